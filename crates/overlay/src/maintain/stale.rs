//! Orphans: attachments whose containers are gone, for runtimes that never say so. `crosshost gc` finds them here. (A killed ADD whose
//! container lives is undone by the next verb: `state/earlier.rs`, `maintain/teardown.rs`.)
//!
//! A container is gone when its namespace is: the path that the runtime named leads nowhere or to another one. But the path may
//! be hidden from who looks (another mount namespace), and a namespace lives as long as any process or file holds it. The
//! kernel knows: with a namespace goes the container's end of each veth pair, and with that the host's end. So an attachment
//! of which an end still stands in sandbox or egress namespace may live, and stays.

use std::path::Path;

use journal::{Attachment, Found};
use netlink::{Netns, NetnsError, Rtnl};
use plugin::Error;

use crate::{
    endpoint::bandwidth,
    host_link,
    maintain::teardown,
    names,
    segment::sandbox,
    state::{attachment::Record, host::Host},
};

/// All orphans of this host. Of a record that cannot be read nothing tells whether its container lives: it stays, and `told`
/// hears of it, as of what cannot be judged for another reason.
pub async fn all(host: &Host, told: &dyn Fn(String)) -> Result<Vec<Record>, Error> {
    let mut orphans = Vec::new();
    let records = host.records.all_readable(&|it| told(it.to_string()));
    for record in records? {
        match is_orphan(host, &record).await {
            Ok(true) => orphans.push(record),
            Ok(false) => {}
            Err(error) => told(format!("{}: {error}", record.attachment)),
        }
    }
    Ok(orphans)
}

async fn is_orphan(host: &Host, record: &Record) -> Result<bool, Error> {
    match Netns::open(&record.netns) {
        Ok(netns) if netns.id() == record.netns_id => return Ok(false),
        Ok(_) | Err(NetnsError::Gone { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let attachment = &record.attachment;
    let (egress, bridge) = names::egress_netns();
    let ends = [
        (egress, bridge, names::egress_port(attachment)),
        (
            names::sandboxes(),
            attachment.network.as_str(),
            names::port(attachment),
        ),
    ];
    // Of an egress bridge that an earlier version made on the host.
    let on_host = host.rtnl.link(&names::egress_port(attachment)).await;
    if on_host?.is_some() {
        return Ok(false);
    }
    for (folder, netns, port) in ends {
        if may_have(&folder, netns, &port).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a namespace has this port, or has it for all that can be known: one that another mount namespace has, and that
/// cannot be looked into, or not even be found, is no proof that the port is gone.
async fn may_have(folder: &Path, netns: &str, port: &str) -> Result<bool, Error> {
    match Netns::find(folder, netns) {
        Ok(Some(netns)) => {
            let rtnl = Rtnl::open(&netns)?;
            let link = rtnl.link(port).await;
            Ok(link?.is_some())
        }
        Ok(None) => Ok(Netns::is_bare(folder, netns) && !netlink::sees_all_processes()),
        Err(NetnsError::Elsewhere { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Takes an orphan down like a DEL; `release` gives its addresses back. False where a verb of its container is at work or
/// was quicker: it is no orphan then.
pub async fn take_down(
    host: &Host,
    record: &Record,
    release: impl AsyncFn(&Attachment) -> Result<(), Error>,
) -> Result<bool, Error> {
    let attachment = &record.attachment;
    let Some(_alone) = host.lock_idle_container(attachment)? else {
        return Ok(false);
    };
    let now = host.records.load(&attachment.hash());
    let same = now? == Found::Readable(record.clone());
    if !same || !is_orphan(host, record).await? {
        return Ok(false);
    }
    bandwidth::leave(attachment).await?;
    teardown::host_side(host, attachment).await?;
    release(attachment).await?;
    release_host(host, &attachment.network, release).await?;
    teardown::forget(host, attachment)?;
    Ok(true)
}

/// The networks on which the host has still something of its own though no container of it is there: an earlier version took the
/// last one down without that.
pub fn lone(host: &Host) -> Result<Vec<String>, Error> {
    let mut lone = Vec::new();
    for network in host.host_links.names()? {
        if !host.has_users(&network)? && sandbox::open(&network)?.is_none() {
            lone.push(network);
        }
    }
    Ok(lone)
}

/// Takes the host itself off a network without containers here, like the DEL of the last one; whether there was anything.
pub async fn release_host(
    host: &Host,
    network: &str,
    release: impl AsyncFn(&Attachment) -> Result<(), Error>,
) -> Result<bool, Error> {
    let own = host_link::attachment(network);
    host_link::release_by(host, network, false, async || release(&own).await).await
}
