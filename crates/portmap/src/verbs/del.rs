//! DEL: needs the attachment alone. Removing what is gone, or never was there, is no error.

use cni::Call;
use journal::Attachment;
use nft::ports::{Ports, Published, Scope};
use plugin::Error;

use crate::{
    config::may_name_ports,
    conflict::Conflict,
    table::{self, PortTable},
};

pub(crate) fn del(call: &Call) -> Result<(), Error> {
    let attachment = plugin::attachment(call)?;
    // A container without ports has nothing in the table. Its DEL must not fail where nfnetlink cannot be opened, or the
    // plugins before this one would never be called.
    if !may_name_ports(call) && table::records().is_absent(&attachment.hash()) {
        return Ok(());
    }
    forget(&attachment)
}

/// Withdraws everything that is published for the attachment.
pub fn forget(attachment: &Attachment) -> Result<(), Error> {
    // The common case: a DEL before the first ADD. It must not open nfnetlink.
    if table::is_complete() && table::records().is_absent(&attachment.hash()) {
        return Ok(());
    }
    let mut ports = Ports::open()?;
    let table = PortTable::open()?;
    if let Some(record) = table.record(attachment)? {
        return table.withdraw(&mut ports, &record);
    }
    let had_some = remove_unknown(&mut ports, &[attachment.hash()])?;
    if !had_some && table.records.is_absent(&attachment.hash()) {
        return Ok(());
    }
    table.remove(&attachment.hash(), &mut ports)
}

/// Removes elements without a record, by the digests of their owners; returns whether there were any.
pub(crate) fn remove_unknown(ports: &mut Ports, digests: &[String]) -> Result<bool, Error> {
    let stays = |owner: &str| !digests.iter().any(|digest| digest == owner);
    let want = |found: &Published| {
        let mut wanted = found.clone();
        for held in wanted.elements.values_mut() {
            held.owners.retain(|owner| stays(owner));
        }
        wanted.elements.retain(|_, held| !held.owners.is_empty());
        wanted.conditions.retain(stays);
        Ok::<_, Conflict>(wanted)
    };
    let updated = ports.update(&Scope::All, want);
    Ok(updated?.unwrap_or(false))
}
