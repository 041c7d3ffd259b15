//! The one teardown, for DEL, GC, a failed ADD and a killed one. It removes everything that an attachment can have, whether it has it
//! or not. After an error it continues, and reports the first.

use std::path::Path;

use cluster::Cluster;
use cni::Call;
use journal::Attachment;
use netlink::{Netns, NetnsError, Rtnl};
use plugin::{Error, readable};

use crate::{
    config, egress,
    endpoint::source_guard,
    firewall::table,
    follow::{follower::Follower, membership},
    host_link,
    names::{self, EGRESS_NIC, VXLAN},
    segment::sandbox,
    state::{attachment::Record, host::Host},
};

/// Removes the attachment's links, its part in sandbox and egress bridge, and these if it was their last user. The
/// caller holds the container's lock. `netns` is where the runtime says the container is, if it says so.
///
/// The record stays: the caller removes it when also the addresses are given back.
pub(crate) async fn links(
    host: &Host,
    attachment: &Attachment,
    record: Option<&Record>,
    netns: Option<&Path>,
) -> Result<(), Error> {
    let mut errors = Vec::new();
    let sandbox = sandbox::open(&attachment.network)?;
    // What the attachment has in the container, known by the host's ends: their names are its own. An interface of
    // the same name that another program made, or that belongs to another network, stays.
    let mut doomed = Vec::new();
    let (port, egress_port) = (names::port(attachment), names::egress_port(attachment));
    if let Some(rtnl) = &sandbox
        && rtnl.link(&port).await?.is_some()
    {
        doomed.push(attachment.ifname.as_str());
    }
    // A sandbox that cannot be found, though its file is there, may live in another mount namespace: the container tells.
    if sandbox.is_none() && Netns::is_bare(&names::sandboxes(), &attachment.network) {
        doomed.push(attachment.ifname.as_str());
    }
    let known = egress::known(host).await?;
    let last = known.is_none_or(|ledger| ledger.is_last(attachment));
    let bridge = if last {
        egress::open(host).await?
    } else {
        None
    };
    let stands = match bridge {
        Some(rtnl) => rtnl.link(&egress_port).await,
        None => Ok(None),
    };
    // Its port may be in a namespace that was lost. The link group tells that the NIC is ours.
    if last && (stands?.is_some() || !doomed.is_empty()) {
        doomed.push(EGRESS_NIC);
    }
    // From the container both pairs go in one batch, for one of the kernel's grace periods.
    if !doomed.is_empty() {
        match container(host, record, netns) {
            Ok(Some(container)) => {
                errors.extend(inside(&container, attachment, &doomed).await.err());
            }
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    // If the container is gone or was never reached, the host's ends remain.
    if let Some(rtnl) = sandbox {
        for link in [port.clone(), names::ifb(&port)] {
            let removed = rtnl.remove_link(&link).await;
            errors.extend(removed.err().map(Error::from));
        }
    }
    errors.extend(host_side(host, attachment).await.err());
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// Removes the attachment's part in egress bridge and sandbox: all that is left where its container is gone.
pub(crate) async fn host_side(host: &Host, attachment: &Attachment) -> Result<(), Error> {
    let egress = egress::leave(host, attachment).await;
    let left = leave_segment(host, attachment).await;
    egress.and(left)
}

/// Ends an attachment's use of its network's sandbox, and removes that with its last user.
async fn leave_segment(host: &Host, attachment: &Attachment) -> Result<(), Error> {
    let (network, hash) = (&attachment.network, attachment.hash());
    let _lock = host.lock_network(network)?;
    let record = readable(&host.records, &hash)?;
    let known = record.and_then(|record| record.port);
    // Before the link goes, which may be with this attachment.
    if let Some(permitted) = &known {
        host_link::part(host, network, permitted).await?;
    }
    if sandbox::leave(host, network, &hash)? {
        remove_unused(host, network).await?;
    }
    let Some((netns, _)) = sandbox::open_netns(network)? else {
        return Ok(());
    };
    let port = names::port(attachment);
    source_guard::release(&netns, VXLAN, &port, known.as_ref())
}

/// Removes all that a network without users has on this host, unless its sandbox still has a container's port; the caller holds
/// the network's lock.
pub(crate) async fn remove_unused(host: &Host, network: &str) -> Result<(), Error> {
    let sandbox = sandbox::open(network)?;
    if let Some(rtnl) = &sandbox
        && sandbox::has_ports(rtnl).await?
    {
        // The list was lost. From here on the ports tell whether the sandbox is used.
        return Ok(host.users.remove(network)?);
    }
    host_link::leave(host, network).await?;
    sandbox::remove(host, network, sandbox).await?;
    let _open = table::forget_tunnel(host, network)?;
    membership::leave(host, network)?;
    Ok(host.users.remove(network)?)
}

/// The container's namespace, if it is still the one in which the attachment was made and is not the host's own.
fn container(
    host: &Host,
    record: Option<&Record>,
    netns: Option<&Path>,
) -> Result<Option<Netns>, Error> {
    let Some(path) = netns.or(record.map(|record| record.netns.as_path())) else {
        return Ok(None);
    };
    match Netns::open(path) {
        Ok(netns) if netns.same_as(&host.netns) => Ok(None),
        Ok(netns) if record.is_some_and(|record| record.netns_id != netns.id()) => Ok(None),
        Ok(netns) => Ok(Some(netns)),
        Err(NetnsError::Gone { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes the `doomed` links in the container, as one batch where no other network has a link of ours there. Our
/// group marks what is ours.
async fn inside(container: &Netns, attachment: &Attachment, doomed: &[&str]) -> Result<(), Error> {
    let rtnl = match Rtnl::open(container) {
        Ok(rtnl) => rtnl,
        // What the runtime names is no container, whatever it was.
        Err(NetnsError::OtherKind { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let group = names::group(attachment);
    let links = rtnl.links().await?;
    let (going, staying): (Vec<_>, Vec<_>) = links
        .iter()
        .filter(|link| link.group == group)
        .partition(|link| doomed.contains(&link.name.as_str()));
    if staying.is_empty() {
        return rtnl
            .remove_group(group)
            .await
            .map(drop)
            .map_err(Error::from);
    }
    for link in going {
        rtnl.remove_link(&link.name).await?;
    }
    Ok(())
}

/// Tells the store that this host forwards no more on the call's network, where its sandbox is gone. That needs settings
/// and a store, which a removal may lack: what cannot be told now is noted, for the next verb or sync.
pub(crate) async fn farewell(host: &Host, call: &Call) {
    let network = call.conf.name.as_str();
    let told = async {
        if !membership::load(host, network)?.is_some_and(|member| member.left) {
            return Ok(());
        }
        let settings = config::settings(call)?;
        let store = settings.open_store()?;
        let cluster = Cluster::new(&*store, settings.layout.clone());
        let follower = Follower {
            host,
            cluster: &cluster,
            settings: &settings,
            network,
        };
        follower.same_store().await?;
        follower.tell_leave().await
    };
    let told: Result<(), Error> = told.await;
    if let Err(error) = told {
        cni::log(&format!("network {network}: not yet left: {error}"));
    }
}

/// Removes the record, after everything that it spoke of.
pub(crate) fn forget(host: &Host, attachment: &Attachment) -> Result<(), Error> {
    plugin::connected::documents().remove(&attachment.hash())?;
    host.records.remove(&attachment.hash()).map_err(Error::from)
}
