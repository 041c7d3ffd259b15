//! GC: withdraws what is published for attachments of this network that are not listed.

use std::collections::BTreeSet;

use cni::{Call, ContainerId, IfName};
use journal::Attachment;
use nft::ports::{Ports, Scope};
use plugin::Error;

use crate::{conflict, table::PortTable, verbs::del};

pub(crate) fn gc(call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
    let network = call.conf.name.as_str();
    let stays: BTreeSet<_> = valid
        .iter()
        .map(|(container, ifname)| {
            let attachment = Attachment {
                network: network.to_owned(),
                container: container.as_str().to_owned(),
                ifname: ifname.as_str().to_owned(),
            };
            attachment.hash()
        })
        .collect();
    let mut ports = Ports::open()?;
    let table = PortTable::open()?;
    let records = table.all()?;
    let known: BTreeSet<_> = records.iter().map(|it| it.attachment.hash()).collect();
    let mut failures = Vec::new();
    for record in &records {
        let digest = record.attachment.hash();
        if record.attachment.network == network && !stays.contains(&digest) {
            failures.extend(table.withdraw(&mut ports, record).err());
        }
    }
    // If records were lost, the elements' texts name the network.
    let found = ports.read(&Scope::All)?;
    let prefix = format!("{network}/");
    let lost: BTreeSet<_> = conflict::without_record(&found.elements, |owner| {
        known.contains(owner) || stays.contains(owner)
    })
    .filter(|(_, text)| text.starts_with(&prefix))
    .map(|(owner, _)| owner.to_owned())
    .collect();
    if !lost.is_empty() {
        let lost: Vec<_> = lost.into_iter().collect();
        failures.extend(del::remove_unknown(&mut ports, &lost).err());
        for digest in &lost {
            failures.extend(table.remove(digest, &mut ports).err());
        }
    }
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(first),
    }
}
