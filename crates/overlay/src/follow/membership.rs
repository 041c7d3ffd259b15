//! The membership document on disk: what this host has told the store of its forwarding on a network.

use cluster::forwarder::Change;
use journal::{Found, Unreadable};
use plugin::Error;

use crate::state::host::Host;

pub use cluster::forwarder::Membership;

/// The document of a network. One that cannot be read counts as a join that was killed: the store may know of us.
pub fn load(host: &Host, network: &str) -> Result<Option<Membership>, Error> {
    Ok(match host.members.load(network)? {
        Found::Absent => None,
        Found::Readable(member) => Some(member),
        Found::Unreadable(unreadable) => Some(unknown(&unreadable)),
    })
}

/// Whether there is a document that cannot be read.
pub fn is_lost(host: &Host, network: &str) -> Result<bool, Error> {
    let found = host.members.load(network)?;
    Ok(matches!(found, Found::Unreadable(_)))
}

/// The documents of all networks.
pub fn all(host: &Host) -> Result<Vec<Membership>, Error> {
    let all = host.members.all()?;
    let unknown = all.unreadable.iter().map(unknown);
    Ok(all.readable.into_iter().chain(unknown).collect())
}

fn unknown(unreadable: &Unreadable) -> Membership {
    cni::log(&unreadable.to_string());
    Membership {
        network: unreadable.name(),
        ..Membership::default()
    }
}

/// Changes the document as one step; what it is after that. A change that changes nothing needs neither lock nor write.
pub fn change(host: &Host, network: &str, change: &Change) -> Result<Option<Membership>, Error> {
    let changed = || {
        let before = load(host, network)?;
        let mut after = before.clone();
        change.apply(&mut after);
        Ok::<_, Error>((after != before, after))
    };
    let (is_new, after) = changed()?;
    if !is_new {
        return Ok(after);
    }
    let _lock = host.lock(&format!("acks-{network}"))?;
    let (is_new, after) = changed()?;
    match &after {
        _ if !is_new => {}
        Some(member) => host.members.save(network, member)?,
        None => host.members.remove(network)?,
    }
    Ok(after)
}

/// Notes that nothing is forwarded on the network any more: its sandbox is gone. The caller holds the network's lock.
pub fn leave(host: &Host, network: &str) -> Result<(), Error> {
    change(host, network, &Change::Leave).map(drop)
}
