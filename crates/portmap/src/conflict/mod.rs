//! Whose element is whose: pure, on what was found at some places of the table.
//!
//! A port has one container. That one may have it by several of its networks, to each of which its runtime gives the same
//! list; then the first counts, and the next takes over when that one goes. What is no port, but a mark on where ports lead,
//! may have any number of owners, as two networks lead to one egress address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use journal::Attachment;
use nft::ports::{Element, Elements, Entry, FEW, HostPort, Key, Published, Scope};

use crate::record::{Record, Run};

/// Somebody else has the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The port that was wanted.
    pub wanted: HostPort,
    /// Whose it is: the digest of the first owner, and its words.
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

/// Where the record's own elements are.
pub fn keys(record: &Record) -> BTreeSet<Key> {
    record.entries().map(|entry| entry.key()).collect()
}

/// Where to look before these ports are claimed: at them and at their rivals. `local` are this host's addresses, of which there may
/// be very many.
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

/// Which of the record's ports one cannot have beside this one: that of all addresses, beside the same of one of them.
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

/// Adds what the record means to what was found. `local` are this host's addresses.
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

/// Adds what the record means, or nothing of it.
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

/// Takes what the record means from what was found. What another owner has too stays, as that one has it.
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

/// The element without this owner; nothing, if there is no other.
fn without(mut held: Element, key: &Key, me: &str, others: Others<'_>) -> Option<Element> {
    let Some(place) = held.owners.iter().position(|owner| owner == me) else {
        return Some(held);
    };
    held.owners.remove(place);
    let next = held.owners.first()?.clone();
    if place > 0 {
        return Some(held);
    }
    // What it says is the first one's, and that is another now.
    let next_record = others(&next).filter(|next_record| !next_record.leaving);
    let entry = next_record.as_ref().and_then(|next_record| {
        let mut entries = next_record.entries();
        let entry = entries.find(|entry| entry.key() == *key)?;
        Some(entry.element(held.owners.clone(), next_record.text()))
    });
    Some(entry.unwrap_or(held))
}

/// All that these records mean, but for those that are leaving; of a port that two containers have, the first one's. What is of nobody known stays: its
/// record may be lost while its container lives.
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
    // A rule without an owner is of somebody else, and may keep packets from all ports.
    let is_lost = |owner: &str| Attachment::is_hash(owner) && !known.contains_key(owner);
    wanted.conditions.retain(is_lost);
    for record in records.into_iter().filter(|record| !record.leaving) {
        // One that lost its ports to another while the table was away has none until its next ADD.
        let _ = insert(&mut wanted, record, &others);
    }
    wanted
}

/// Elements of attachments that have no record, with the digests of those; for what the words say of their network.
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

/// Whether an element is of the record's container, by the record of its first owner or else by its words, of which the end
/// may be missing.
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
