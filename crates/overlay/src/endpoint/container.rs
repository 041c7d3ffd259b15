//! The container's namespace, as ADD and CHECK find it: opened once. What was looked at is what is worked in, though the path may
//! lead elsewhere a moment later, as `/proc/PID/ns/net` does when the process id is used again.

use std::{fmt::Display, path::Path};

use cni::Call;
use netlink::{Netns, NetnsError, Rtnl};
use plugin::Error;

use crate::{names, segment::sandbox, state::host::Host};

/// The namespace of `CNI_NETNS` and a socket in it. Code 8 if it is no network namespace, or the host's own.
pub(crate) fn open(call: &Call, host: &Host) -> Result<(Netns, Rtnl), Error> {
    let path = call.netns.as_deref().unwrap_or(Path::new(""));
    let opened = Netns::open(path).and_then(|netns| {
        let inside = Rtnl::open(&netns)?;
        Ok((netns, inside))
    });
    let (netns, inside) = opened.map_err(|error| match error {
        NetnsError::Gone { .. } | NetnsError::OtherKind { .. } => refused(&error),
        _ => error.into(),
    })?;
    if netns.same_as(&host.netns) && !call.allows_own_netns() {
        let why = "it is the plugin's own network namespace";
        return Err(refused(&format!("{}: {why}", path.display())));
    }
    Ok((netns, inside))
}

/// Refuses a namespace that this host keeps for itself: the sandbox of a network, or the egress bridge's. Code 8.
pub(crate) fn refuse_ours(netns: &Netns) -> Result<(), Error> {
    let sandboxes = names::sandboxes();
    let ours = sandbox::networks()?.into_iter();
    let ours = ours.map(|network| sandboxes.join(network));
    let (folder, egress) = names::egress_netns();
    for path in ours.chain([folder.join(egress)]) {
        if Netns::open(&path).is_ok_and(|ours| ours.same_as(netns)) {
            let why = format!("it is {}, which is no container's", path.display());
            return Err(refused(&format!("{}: {why}", netns.path().display())));
        }
    }
    Ok(())
}

fn refused(why: &dyn Display) -> Error {
    Error::netns(format!("CNI_NETNS: {why}"))
}
