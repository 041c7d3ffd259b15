//! Ports on 127.0.0.1. Linux sends no packets with such addresses out of the host unless `route_localnet` of the interface is
//! set. The setting also admits such packets; a rule of the table (`ports-localnet`) drops them.

use std::{collections::BTreeSet, path::Path};

use journal::Journal;
use netlink::Sysctl;
use plugin::{Error, readable};

use crate::record::Record;

/// The document's name. It lists the interfaces for which the setting was turned on here.
const NAME: &str = "localnet";

fn document() -> Journal<BTreeSet<String>> {
    Journal::new(Path::new(journal::ROOT), "portmap")
}

/// The interfaces for which it was turned on; none if the document cannot be read.
fn load(document: &Journal<BTreeSet<String>>) -> Result<BTreeSet<String>, Error> {
    Ok(readable(document, NAME)?.unwrap_or_default())
}

/// Turns it on for the interfaces of the record's ports; returns whether that was a change.
pub(crate) fn enable(record: &Record) -> Result<bool, Error> {
    enable_all(std::slice::from_ref(record))
}

/// The same for many records.
pub(crate) fn enable_all(records: &[Record]) -> Result<bool, Error> {
    let hairpins = records
        .iter()
        .filter(|record| record.hairpin && !record.leaving);
    let runs = hairpins.flat_map(|record| &record.runs);
    let reached = runs.filter(|run| run.to.is_ipv4());
    let wanted: BTreeSet<_> = reached.map(|run| run.via.clone()).collect();
    let document = document();
    let on = load(&document)?;
    let mut off = wanted.iter().filter(|via| !is_on(via)).peekable();
    if off.peek().is_none() {
        return Ok(false);
    }
    let off: Vec<_> = off.cloned().collect();
    // Interfaces that are gone are dropped, so that the document does not grow with each container.
    let mut noted: BTreeSet<_> = on.into_iter().filter(|via| is_there(via)).collect();
    noted.extend(off.iter().cloned());
    document.save(NAME, &noted)?;
    let mut changed = false;
    for via in off {
        match key(&via).set("1") {
            Ok(_) => changed = true,
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(changed)
}

/// Turns it off for the interfaces for which it was turned on here.
pub(crate) fn disable() -> Result<(), Error> {
    let document = document();
    let on = load(&document)?;
    for via in on {
        match key(&via).set("0") {
            Err(error) if !error.is_gone() => return Err(error.into()),
            _ => {}
        }
    }
    document.remove(NAME).map_err(Error::from)
}

/// The interfaces of the record's ports for which it is off, both by their own setting and by that of `all`.
pub(crate) fn disabled(record: &Record) -> impl Iterator<Item = String> {
    let hairpin = record.hairpin && !record.leaving;
    let runs = record.runs.iter().filter(move |_| hairpin);
    let runs = runs.filter(|run| run.to.is_ipv4() && !is_on(&run.via) && !is_on("all"));
    runs.map(|run| run.via.clone())
}

/// Whether an interface's own setting is on.
fn is_on(via: &str) -> bool {
    let value = key(via).read();
    value.is_ok_and(|value| value.is_some_and(|value| value != "0"))
}

fn is_there(via: &str) -> bool {
    key(via).read().is_ok_and(|value| value.is_some())
}

/// The setting of an interface.
pub(crate) fn key(via: &str) -> Sysctl {
    Sysctl::of_link("ipv4", via, "route_localnet")
}
