//! Decides which container owns an element of the table, without I/O.
//!
//! A port belongs to one container. That container may have it by several of its networks, as its runtime passes the same
//! list to each; then the first one is used, and the next takes over when it goes. An element that is no port, but marks a
//! port's destination, may have any number of owners, as two networks may lead to one egress address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use journal::Attachment;
use nft::ports::{Element, Elements, Entry, FEW, HostPort, Key, Published, Scope};

use crate::record::{Record, Run};

/// Another container has the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The port that was wanted.
    pub wanted: HostPort,
    /// The first owner: its digest, and in words.
    pub owner: (String, String),
}

impl Conflict {
    fn new(wanted: HostPort, held: &Element) -> Self {
        let digest = held.owners.first().cloned().unwrap_or_default();
        Self {
            wanted,
            owner: (digest, held.text.clone()),
        }
    }
}

/// Records of other attachments, by digest.
pub type Others<'a> = &'a dyn Fn(&str) -> Option<Record>;

/// The keys of the record's elements.
pub fn keys(record: &Record) -> BTreeSet<Key> {
    record.entries().map(|entry| entry.key()).collect()
}

/// The keys of the record's elements and of their rivals. `local` are this host's addresses, which may be very many.
pub fn keys_and_rivals(record: &Record, local: &[IpAddr]) -> Scope {
    let mut keys = keys(record);
    let (of_one, of_all): (Vec<_>, Vec<_>) =
        record.runs.iter().partition(|run| run.address.is_some());
    let of = |at: HostPort, address| HostPort { address, ..at }.key();
    let ports = of_one.into_iter().flat_map(Run::pairs);
    keys.extend(ports.map(|(at, _)| of(at, None)));
    let same = |run: &Run| {
        let v6 = run.to.is_ipv6();
        local.iter().filter(move |it| it.is_ipv6() == v6)
    };
    let counts = of_all.iter();
    let counts = counts.map(|run| usize::from(run.count) * same(run).count());
    if counts.sum::<usize>() > FEW {
        return Scope::KeysAndBound(keys);
    }
    for run in of_all {
        for (at, _) in run.pairs() {
            keys.extend(same(run).map(|address| of(at, Some(*address))));
        }
    }
    Scope::Keys(keys)
}

/// The record's port that excludes another one, if any: one on all addresses excludes the same port on one of them.
fn rival(record: &Record, local: &[IpAddr], other: HostPort) -> Option<HostPort> {
    let is_rival = |run: &&Run| match (run.address, other.address) {
        (Some(_), None) => true,
        (None, Some(address)) => local.contains(&address),
        _ => false,
    };
    let mut runs = record.runs.iter().filter(is_rival).filter(|run| {
        let at = run.at();
        (at.v6, at.protocol) == (other.v6, other.protocol) && run.ports().contains(&other.port)
    });
    runs.next().map(|run| HostPort {
        port: other.port,
        ..run.at()
    })
}

/// What was found, with the record added. `local` are this host's addresses.
pub fn add(
    found: &Published,
    record: &Record,
    local: &[IpAddr],
    others: Others<'_>,
) -> Result<Published, Conflict> {
    for (key, held) in &found.elements {
        if let Some(at) = key.port().and_then(|other| rival(record, local, other))
            && !is_of_container(held, record, others)
        {
            return Err(Conflict::new(at, held));
        }
    }
    let mut wanted = found.clone();
    insert(&mut wanted, record, others)?;
    Ok(wanted)
}

/// Adds all of a record's elements, or none.
fn insert(wanted: &mut Published, record: &Record, others: Others<'_>) -> Result<(), Conflict> {
    for entry in record.entries() {
        if let Entry::Port { at, .. } = &entry
            && let Some(held) = wanted.elements.get(&entry.key())
            && !is_of_container(held, record, others)
        {
            return Err(Conflict::new(*at, held));
        }
    }
    let me = record.attachment.hash();
    for entry in record.entries() {
        let new = || entry.element(vec![], record.text());
        let held = wanted.elements.entry(entry.key()).or_insert_with(new);
        if !held.owners.contains(&me) {
            held.owners.push(me.clone());
        }
    }
    wanted.conditions.set(&me, &record.conditionals());
    Ok(())
}

/// What was found, without the record. Elements that have other owners stay with those.
pub fn remove(found: &Published, record: &Record, others: Others<'_>) -> Published {
    let me = record.attachment.hash();
    let mut wanted = found.clone();
    for key in keys(record) {
        if let Some(held) = wanted.elements.remove(&key) {
            let left = without(held, &key, &me, others);
            wanted.elements.extend(left.map(|held| (key, held)));
        }
    }
    wanted.conditions.set(&me, &[]);
    wanted
}

/// The element without this owner; `None` if it was the only one.
fn without(mut held: Element, key: &Key, me: &str, others: Others<'_>) -> Option<Element> {
    let Some(place) = held.owners.iter().position(|owner| owner == me) else {
        return Some(held);
    };
    held.owners.remove(place);
    let next = held.owners.first()?.clone();
    if place > 0 {
        return Some(held);
    }
    // The element's data is the first owner's, which is another one now.
    let next_record = others(&next).filter(|next_record| !next_record.leaving);
    let entry = next_record.as_ref().and_then(|next_record| {
        let mut entries = next_record.entries();
        let entry = entries.find(|entry| entry.key() == *key)?;
        Some(entry.element(held.owners.clone(), next_record.text()))
    });
    Some(entry.unwrap_or(held))
}

/// The elements of all records that are not leaving. If two containers have a port, it is the older record's. Elements of
/// unknown owners stay: a record may be lost while its container lives.
pub fn all_records(found: &Published, records: &[Record]) -> Published {
    let mut records: Vec<_> = records.iter().collect();
    records.sort_by_key(|record| (record.since, record.attachment.hash()));
    let known: BTreeMap<_, _> = records
        .iter()
        .map(|record| (record.attachment.hash(), *record))
        .collect();
    let others = |owner: &str| known.get(owner).map(|record| (*record).clone());
    let strange = |owner: &String| !known.contains_key(owner);
    let strangers = found.elements.iter().filter_map(|(key, held)| {
        let mut held = held.clone();
        held.owners.retain(strange);
        (!held.owners.is_empty()).then(|| (key.clone(), held))
    });
    let mut wanted = Published {
        elements: strangers.collect(),
        conditions: found.conditions.clone(),
        is_complete: true,
    };
    // A rule without an owner is not ours, and may keep packets from all ports.
    let is_lost = |owner: &str| Attachment::is_hash(owner) && !known.contains_key(owner);
    wanted.conditions.retain(is_lost);
    for record in records.into_iter().filter(|record| !record.leaving) {
        // A record that lost its ports while the table was away has none until its next ADD.
        let _ = insert(&mut wanted, record, &others);
    }
    wanted
}

/// The digests of owners that have no record, with the elements' texts, which name the network.
pub fn without_record<'e>(
    elements: &'e Elements,
    is_known: impl Fn(&str) -> bool + 'e,
) -> impl Iterator<Item = (&'e str, &'e str)> + 'e {
    elements.values().flat_map(move |held| {
        let unknown: Vec<_> = held
            .owners
            .iter()
            .filter(|owner| !is_known(owner))
            .map(|owner| (owner.as_str(), held.text.as_str()))
            .collect();
        unknown
    })
}

/// Whether an element belongs to the record's container: by the record of its first owner, or else by its text, of which the
/// end may be missing.
fn is_of_container(held: &Element, record: &Record, others: Others<'_>) -> bool {
    let container = &record.attachment.container;
    let first = held.owners.first();
    if let Some(other) = first.and_then(|owner| others(owner)) {
        return other.attachment.container == *container;
    }
    let named = held.text.splitn(3, '/').nth(2).unwrap_or_default();
    named == container || (held.is_cut() && !named.is_empty() && container.starts_with(named))
}

#[cfg(test)]
mod tests;
