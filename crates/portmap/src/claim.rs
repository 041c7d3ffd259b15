//! Whose element is whose: pure, on what was found at some places of the table.
//!
//! A port has one container. That one may have it by several of its networks, to each of which its runtime gives the same
//! list; then the first counts, and the next takes over when that one goes. What is no port, but a mark on where ports lead,
//! may have any number of owners, as two networks lead to one egress address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use journal::Attachment;
use nft::ports::{Elements, Entry, FEW, Held, HostPort, Key, Places, Published};

use crate::record::{Record, Run};

/// Somebody else has the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The port that was wanted.
    pub wanted: HostPort,
    /// Whose it is: the digest of the first owner, and its words.
    pub holder: (String, String),
}

impl Taken {
    fn new(wanted: HostPort, held: &Held) -> Self {
        let digest = held.owners.first().cloned().unwrap_or_default();
        Self {
            wanted,
            holder: (digest, held.text.clone()),
        }
    }
}

/// Records of other attachments, by digest.
pub type Others<'a> = &'a dyn Fn(&str) -> Option<Record>;

/// Where the record's own elements are.
pub fn own(record: &Record) -> BTreeSet<Key> {
    record.entries().map(|entry| entry.key()).collect()
}

/// Where to look before these ports are claimed: at them and at their rivals. `local` are this host's addresses, of which there may
/// be very many.
pub fn places(record: &Record, local: &[IpAddr]) -> Places {
    let mut keys = own(record);
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
        return Places::TheseAndBound(keys);
    }
    for run in of_all {
        for (at, _) in run.pairs() {
            keys.extend(same(run).map(|address| of(at, Some(*address))));
        }
    }
    Places::These(keys)
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
pub fn claim(
    found: &Published,
    record: &Record,
    local: &[IpAddr],
    others: Others<'_>,
) -> Result<Published, Taken> {
    for (key, held) in &found.elements {
        if let Some(at) = key.port().and_then(|other| rival(record, local, other))
            && !is_of_container(held, record, others)
        {
            return Err(Taken::new(at, held));
        }
    }
    let mut wanted = found.clone();
    enter(&mut wanted, record, others)?;
    Ok(wanted)
}

/// Adds what the record means, or nothing of it.
fn enter(wanted: &mut Published, record: &Record, others: Others<'_>) -> Result<(), Taken> {
    for entry in record.entries() {
        if let Entry::Port { at, .. } = &entry
            && let Some(held) = wanted.elements.get(&entry.key())
            && !is_of_container(held, record, others)
        {
            return Err(Taken::new(*at, held));
        }
    }
    let me = record.attachment.hash();
    for entry in record.entries() {
        let new = || entry.held(vec![], record.text());
        let held = wanted.elements.entry(entry.key()).or_insert_with(new);
        if !held.owners.contains(&me) {
            held.owners.push(me.clone());
        }
    }
    wanted.conditions.set(&me, &record.conditionals());
    Ok(())
}

/// Takes what the record means from what was found. What another owner has too stays, as that one has it.
pub fn release(found: &Published, record: &Record, others: Others<'_>) -> Published {
    let me = record.attachment.hash();
    let mut wanted = found.clone();
    for key in own(record) {
        if let Some(held) = wanted.elements.remove(&key) {
            let left = without(held, &key, &me, others);
            wanted.elements.extend(left.map(|held| (key, held)));
        }
    }
    wanted.conditions.set(&me, &[]);
    wanted
}

/// The element without this owner; nothing, if there is no other.
fn without(mut held: Held, key: &Key, me: &str, others: Others<'_>) -> Option<Held> {
    let Some(place) = held.owners.iter().position(|owner| owner == me) else {
        return Some(held);
    };
    held.owners.remove(place);
    let next = held.owners.first()?.clone();
    if place > 0 {
        return Some(held);
    }
    // What it says is the first one's, and that is another now.
    let heir = others(&next).filter(|heir| !heir.leaving);
    let entry = heir.as_ref().and_then(|heir| {
        let mut entries = heir.entries();
        let entry = entries.find(|entry| entry.key() == *key)?;
        Some(entry.held(held.owners.clone(), heir.text()))
    });
    Some(entry.unwrap_or(held))
}

/// All that these records mean, but for those that are leaving; of a port that two containers have, the first one's. What is of nobody known stays: its
/// record may be lost while its container lives.
pub fn all(found: &Published, records: &[Record]) -> Published {
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
    };
    // A rule without an owner is of somebody else, and may keep packets from all ports.
    let is_lost = |owner: &str| Attachment::is_hash(owner) && !known.contains_key(owner);
    wanted.conditions.retain(is_lost);
    for record in records.into_iter().filter(|record| !record.leaving) {
        // One that lost its ports to another while the table was away has none until its next ADD.
        let _ = enter(&mut wanted, record, &others);
    }
    wanted
}

/// Elements of attachments that have no record, with the digests of those; for what the words say of their network.
pub fn strangers<'e>(
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
fn is_of_container(held: &Held, record: &Record, others: Others<'_>) -> bool {
    let container = &record.attachment.container;
    let first = held.owners.first();
    if let Some(other) = first.and_then(|owner| others(owner)) {
        return other.attachment.container == *container;
    }
    let named = held.text.splitn(3, '/').nth(2).unwrap_or_default();
    named == container || (held.is_cut() && !named.is_empty() && container.starts_with(named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mapping::Protocol, record::Run};

    fn record(network: &str, container: &str, since: u64, port: u16, to: &str) -> Record {
        Record {
            attachment: Attachment {
                network: network.to_owned(),
                container: container.to_owned(),
                ifname: "eth0".to_owned(),
            },
            since,
            leaving: false,
            runs: vec![Run {
                protocol: Protocol::Tcp,
                address: None,
                port,
                to: to.parse().unwrap(),
                count: 2,
                via: "br0".to_owned(),
            }],
            hairpin: true,
            hidden: false,
            conditions: [vec!["ip saddr 10.0.0.1".to_owned()], vec![]],
        }
    }

    fn claimed(found: &Published, record: &Record, known: &[&Record]) -> Result<Published, Taken> {
        let others = |owner: &str| {
            let found = known.iter().find(|it| it.attachment.hash() == owner);
            found.map(|it| (*it).clone())
        };
        claim(found, record, &["10.9.9.9".parse().unwrap()], &others)
    }

    fn leads(all: &Published, record: &Record) -> bool {
        let run = &record.runs[0];
        run.pairs().all(|(at, to)| {
            let held = all.elements.get(&at.key());
            held.is_some_and(|held| held.leads_to(to))
        })
    }

    #[test]
    fn a_port_has_one_container_which_is_named() {
        let none = Published::default();
        let first = record("n", "c", 1, 80, "10.0.0.2:8000");
        let all = claimed(&none, &first, &[]).unwrap();
        assert_eq!(all.elements.len(), 4, "two ports, two hairpins");
        assert!(leads(&all, &first));
        assert_eq!(claimed(&all, &first, &[]), Ok(all.clone()), "again");
        let rival = record("m", "d", 2, 81, "10.0.0.3:8000");
        for known in [&[&first][..], &[]] {
            let taken = claimed(&all, &rival, known).unwrap_err();
            assert_eq!(taken.wanted.port, 81);
            assert_eq!(
                taken.holder,
                (first.attachment.hash(), "n/eth0/c".to_owned())
            );
        }
        assert!(claimed(&all, &record("m", "d", 2, 82, "10.0.0.3:8000"), &[]).is_ok());
    }

    #[test]
    fn a_port_of_one_address_is_a_rival_of_the_same_of_all() {
        let (first, mut rival) = (
            record("n", "c", 1, 80, "10.0.0.2:8000"),
            record("n", "d", 2, 80, "10.0.0.3:8000"),
        );
        let all = claimed(&Published::default(), &first, &[]).unwrap();
        rival.runs[0].address = Some("10.9.9.9".parse().unwrap());
        assert_eq!(claimed(&all, &rival, &[]).unwrap_err().wanted.port, 80);
        let all = claimed(&Published::default(), &rival, &[]).unwrap();
        assert_eq!(claimed(&all, &first, &[]).unwrap_err().wanted.port, 80);
        let mut elsewhere = record("n", "e", 2, 80, "10.0.0.4:8000");
        elsewhere.runs[0].address = Some("10.9.9.8".parse().unwrap());
        assert!(claimed(&all, &elsewhere, &[]).is_ok());
    }

    #[test]
    fn the_networks_of_a_container_share_a_port_and_inherit_it() {
        let (one, two) = (
            record("n", "c", 1, 80, "10.0.0.2:8000"),
            record("m", "c", 2, 80, "10.1.0.2:8000"),
        );
        let known = [&one, &two];
        let alone = claimed(&Published::default(), &one, &known).unwrap();
        let both = claimed(&alone, &two, &known).unwrap();
        assert!(leads(&both, &one) && !leads(&both, &two));
        let others = |owner: &str| {
            let found = known.iter().find(|it| it.attachment.hash() == owner);
            found.map(|it| (*it).clone())
        };
        // The second goes: all is as before. The first goes: the second inherits.
        assert_eq!(release(&both, &two, &others), alone);
        let heir = release(&both, &one, &others);
        assert!(leads(&heir, &two));
        assert_eq!(
            release(&heir, &one, &others),
            heir,
            "it has nothing any more"
        );
        let gone = release(&heir, &two, &others);
        assert_eq!(gone, Published::default());
        // The records alone say the same, in any order, whatever became of the table.
        for found in [&Published::default(), &both, &heir] {
            assert_eq!(all(found, &[two.clone(), one.clone()]), both);
        }
    }

    #[test]
    fn all_of_thousands_are_put_together_within_seconds() {
        let one = |number: u16| {
            let to = format!("10.0.{}.{}:80", number >> 8, number & 255);
            record("n", &format!("c{number}"), 1, 2 * number + 1, &to)
        };
        let many: Vec<_> = (0..4000).map(one).collect();
        let began = std::time::Instant::now();
        let all = all(&Published::default(), &many);
        let took = began.elapsed();
        assert_eq!(all.elements.len(), 16_000, "two ports, two hairpins");
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    }

    #[test]
    fn a_long_range_costs_no_more_on_a_host_with_many_addresses() {
        let local: Vec<_> = (0..=255).map(|it| IpAddr::from([10, 9, 9, it])).collect();
        let mut range = record("n", "c", 1, 10_000, "10.0.0.2:10000");
        assert!(matches!(places(&range, &local[..9]), Places::These(_)));
        range.runs[0].count = 20_000;
        let began = std::time::Instant::now();
        assert!(matches!(places(&range, &local), Places::TheseAndBound(_)));
        let mut one = record("n", "d", 2, 29_998, "10.0.0.3:80");
        one.runs[0].address = local.last().copied();
        let all = claimed(&Published::default(), &one, &[]).unwrap();
        let taken = claim(&all, &range, &local, &|_| None).unwrap_err();
        assert_eq!((taken.wanted.port, taken.wanted.address), (29_998, None));
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(1), "{took:?}");
    }

    #[test]
    fn a_mark_on_a_target_stays_as_long_as_anybody_needs_it() {
        let (old, new) = (
            record("n", "c", 1, 80, "10.0.0.2:8000"),
            record("n", "d", 2, 90, "10.0.0.2:8000"),
        );
        let none = |_: &str| None;
        let all = claimed(&Published::default(), &old, &[]).unwrap();
        let both = claimed(&all, &new, &[]).unwrap();
        assert_eq!(both.elements.len(), 6, "four ports, two hairpins");
        let late = release(&both, &old, &none);
        assert_eq!(late.elements.len(), 4);
        assert!(leads(&late, &new));
        assert_eq!(release(&late, &new, &none), Published::default());
    }

    #[test]
    fn what_leaves_is_not_made_again_and_what_nobody_knows_stays() {
        let (mut one, lost) = (
            record("n", "c", 1, 80, "10.0.0.2:8000"),
            record("n", "d", 2, 90, "10.0.0.3:8000"),
        );
        let only_lost = claimed(&Published::default(), &lost, &[]).unwrap();
        let both = claimed(&only_lost, &one, &[]).unwrap();
        one.leaving = true;
        assert_eq!(all(&both, std::slice::from_ref(&one)), only_lost);
        let mine = |key: &&Key| !only_lost.elements.contains_key(*key);
        let mine: BTreeSet<_> = both.elements.keys().filter(mine).cloned().collect();
        assert_eq!(own(&one), mine);
        assert_eq!(release(&both, &one, &|_| None), only_lost);
        let unknown: BTreeSet<_> = strangers(&both.elements, |_| false).collect();
        let lost = lost.attachment.hash();
        assert_eq!(unknown.len(), 2);
        assert!(unknown.contains(&(lost.as_str(), "n/eth0/d")));
    }
}
