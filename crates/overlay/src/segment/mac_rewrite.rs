//! Translation: what a sandbox readdresses, because a host that has not yet heard of a MAC that was asked for sends to the one
//! that follows from the address.
//!
//! What it is is noted before the kernel is told, so that a verb which has nothing to translate, and never had, need not
//! enter the sandbox.

use journal::Found;
use netlink::Netns;
use nft::Translation;
use plugin::Error;

use crate::{names, segment::forwarding::Translations, state::host::Host};

/// Readdresses these frames in the network's sandbox and no others; whether it was not so. The caller holds the network's
/// lock. Where there are none, and were none, the sandbox is not entered.
pub fn bring(host: &Host, network: &str, macs: &Translations) -> Result<bool, Error> {
    let noted = host.translations.load(network);
    let noted = noted?;
    if noted == Found::Absent && macs.is_empty() {
        return Ok(false);
    }
    let save = |macs| host.translations.save(network, macs);
    if noted.or_lost(&|it| cni::log(&it.to_string())).as_ref() != Some(macs) {
        save(macs)?;
    }
    let netns = Netns::open(&names::sandboxes().join(network))?;
    let changed = set(&netns, macs)?;
    if macs.is_empty() {
        let removed = host.translations.remove(network);
        removed?;
    }
    Ok(changed)
}

/// Whether the network's sandbox readdresses these frames and no others.
pub fn is(network: &str, macs: &Translations) -> Result<bool, Error> {
    let netns = Netns::open(&names::sandboxes().join(network))?;
    let is = netns.run(|| Translation::open()?.is(&bytes(macs)));
    is?.map_err(Error::from)
}

/// Readdresses these frames in this namespace and no others; whether it was not so.
pub fn set(netns: &Netns, macs: &Translations) -> Result<bool, Error> {
    let done = netns.run(|| Translation::open()?.set(&bytes(macs)));
    done?.map_err(Error::from)
}

fn bytes(macs: &Translations) -> nft::Macs {
    macs.iter().map(|(from, to)| (from.0, to.0)).collect()
}
