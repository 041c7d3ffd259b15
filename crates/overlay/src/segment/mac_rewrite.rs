//! The destination MACs that a sandbox rewrites: a host that has not yet heard of a requested MAC sends to the one that is
//! computed from the address.
//!
//! They are noted before the kernel is told, so that a verb which has nothing to rewrite, and never had, need not enter the
//! sandbox.

use journal::Found;
use netlink::Netns;
use nft::MacRewrite;
use plugin::{Error, report_unreadable};

use crate::{names, segment::forwarding::Translations, state::host::Host};

/// Rewrites these MACs in the network's sandbox and no others; whether it was not so. The caller holds the network's
/// lock. Where there are none, and were none, the sandbox is not entered.
pub fn apply(host: &Host, network: &str, macs: &Translations) -> Result<bool, Error> {
    if !note(host, network, macs)? {
        return Ok(false);
    }
    let netns = Netns::open(&names::sandboxes().join(network))?;
    let changed = set(&netns, macs)?;
    forget(host, network, macs)?;
    Ok(changed)
}

/// Notes what is to be rewritten, before the kernel is told; whether there is, or was, anything.
pub(crate) fn note(host: &Host, network: &str, macs: &Translations) -> Result<bool, Error> {
    let noted = host.translations.load(network)?;
    if noted == Found::Absent && macs.is_empty() {
        return Ok(false);
    }
    let save = |macs| host.translations.save(network, macs);
    if noted.or_lost(&report_unreadable).as_ref() != Some(macs) {
        save(macs)?;
    }
    Ok(true)
}

/// Removes the note of a sandbox that rewrites nothing any more, after the kernel was told.
pub(crate) fn forget(host: &Host, network: &str, macs: &Translations) -> Result<(), Error> {
    if !macs.is_empty() {
        return Ok(());
    }
    let removed = host.translations.remove(network);
    removed.map_err(Error::from)
}

/// Whether this namespace rewrites these MACs and no others.
pub fn is(netns: &Netns, macs: &Translations) -> Result<bool, Error> {
    let is = netns.run(|| MacRewrite::open()?.is(&bytes(macs)));
    is?.map_err(Error::from)
}

/// Rewrites these MACs in this namespace and no others; whether it was not so.
pub fn set(netns: &Netns, macs: &Translations) -> Result<bool, Error> {
    let done = netns.run(|| MacRewrite::open()?.set(&bytes(macs)));
    done?.map_err(Error::from)
}

fn bytes(macs: &Translations) -> nft::Macs {
    macs.iter().map(|(from, to)| (from.0, to.0)).collect()
}
