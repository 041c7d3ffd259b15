//! The way of packets through this host to a container: what stops it, other than ours.
//!
//! Packets are judged on three stretches: as they arrive, sent to a port of this host; at the hook at which firewalls decide;
//! and wherever else they are met on their way to a container, or back. Off the middle one a chain is named only if nothing gets through
//! it, as many of them look at things that no port depends on (whether a source address can be true).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::RangeInclusive,
};

use cni::Error;
use nft::{Blocked, Endpoint, Hook, Packet, Traffic, Words};

use crate::{
    kernel,
    record::{Record, Run},
};

/// What lets a host forward, by version of IP.
const FORWARD: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
/// Priorities of chains at prerouting: before the kernel knows of connections; from then on until the way to a container is
/// looked up; and behind that.
const UNSEEN: RangeInclusive<i32> = i32::MIN..=-201;
const SEEN: RangeInclusive<i32> = -200..=-100;
const LED: RangeInclusive<i32> = -99..=i32::MAX;
/// The stretch on which chains are named also if they only may stop something.
const MIDDLE: usize = 1;
/// More runs of ports are judged together, by what is the same of all.
const EACH: usize = 64;

/// The keys of sysctl that would have to be 1.
pub(crate) fn off(record: &Record) -> Vec<&'static str> {
    let is_off = |key: &str| {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        fs::read_to_string(path).is_ok_and(|value| value.trim() == "0")
    };
    let versions: BTreeSet<_> = record.runs.iter().map(|run| run.to.is_ipv6()).collect();
    let keys = versions.into_iter().map(|v6| FORWARD[usize::from(v6)]);
    keys.filter(|key| is_off(key)).collect()
}

/// The chains of others that let nothing through to the records' ports, or back, or may not.
pub(crate) fn blocked(records: &[Record]) -> Result<Vec<Blocked>, Error> {
    let mut ways: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
    // What comes to 127.0.0.1 is of this host itself, and goes another way.
    let is_here = |run: &&Run| run.address.is_some_and(|address| address.is_loopback());
    let runs = records.iter().flat_map(|record| &record.runs);
    for run in runs.filter(|run| !is_here(run)) {
        let way = (run.via.as_str(), run.to.is_ipv6());
        ways.entry(way).or_default().push(run);
    }
    let mut named = Vec::new();
    for ((via, v6), runs) in ways {
        // No interface has the index 0: of one that is gone, no rule can be but by its name.
        let index = netlink::index_of(via).unwrap_or(0);
        let way = Way {
            via: (via, index),
            v6,
        };
        let each = if runs.len() > EACH { &[] } else { &*runs };
        let mut traffic = way.stretches(None, &openings(&runs)).to_vec();
        traffic.extend(each.iter().flat_map(|run| {
            let opening = BTreeSet::from([opening(run)]);
            way.stretches(Some(run), &opening)
        }));
        let blocked = nft::blocked(&traffic).map_err(|error| kernel(&error))?;
        let (all, each) = blocked.split_at(3);
        for (stretch, all) in all.iter().enumerate() {
            let each: Vec<_> = each.iter().skip(stretch).step_by(3).collect();
            for chain in all {
                named.extend(verdict(chain, &each, stretch == MIDDLE));
            }
        }
    }
    Ok(named)
}

/// What is to be said of a chain that stops all of the traffic, or may: which of its parts it stops, if those are told apart.
fn verdict(all: &Blocked, each: &[&Vec<Blocked>], is_middle: bool) -> Vec<Blocked> {
    let one = |all| vec![Blocked::clone(all)];
    if all.certain {
        return one(all);
    }
    let of_this = |part: &&Vec<Blocked>| part.iter().find(|it| it.chain == all.chain).cloned();
    let parts: Vec<_> = each.iter().filter_map(of_this).collect();
    let certain: Vec<_> = parts.iter().filter(|it| it.certain).cloned().collect();
    if !certain.is_empty() {
        return certain;
    }
    let may = each.is_empty() || !parts.is_empty();
    if may && is_middle { one(all) } else { vec![] }
}

/// Over an interface and a version of IP.
struct Way<'a> {
    /// Its name and index.
    via: (&'a str, u32),
    v6: bool,
}

impl<'a> Way<'a> {
    /// What comes to a run of ports, or to all of them, and what is answered, on each stretch. What would have to be let in are
    /// the openings.
    fn stretches(&self, run: Option<&Run>, openings: &BTreeSet<Opening>) -> [Traffic<'a>; 3] {
        let via = self.via.0;
        let version = if self.v6 { "IPv6" } else { "IPv4" };
        let ports = match run {
            None => "published ports".to_owned(),
            Some(run) if run.count == 1 => format!("port {}", run.at()),
            Some(run) => format!("ports {} to {}", run.at(), run.ports().end()),
        };
        let what = format!("what comes to {ports} over {version}, by {via},");
        let nft = openings.iter().map(|(protocol, first, last)| {
            let one = first == last;
            let ports = if one {
                first.to_string()
            } else {
                format!("{first}-{last}")
            };
            format!("{protocol} dport {ports} accept")
        });
        let iptables = openings.iter().map(|(protocol, first, last)| {
            format!("-p {protocol} --dport {first}:{last} -j ACCEPT")
        });
        let firewalld = format!("firewall-cmd --zone=trusted --change-interface={via}");
        let words = |nft, iptables| Words {
            nft,
            iptables,
            firewalld: firewalld.clone(),
        };
        let arrive = words(
            nft.chain([format!("iifname {via} accept")]).collect(),
            iptables.chain([format!("-i {via} -j ACCEPT")]).collect(),
        );
        let middle = words(
            vec![
                format!("oifname {via} ct status dnat accept"),
                format!("iifname {via} ct state established,related accept"),
            ],
            vec![
                format!("-o {via} -m conntrack --ctstate DNAT -j ACCEPT"),
                format!("-i {via} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
            ],
        );
        let elsewhere = words(
            vec!["ct status dnat accept".to_owned()],
            vec!["-m conntrack --ctstate DNAT -j ACCEPT".to_owned()],
        );
        let traffic = |packets, words| Traffic {
            packets,
            what: what.clone(),
            words,
        };
        [
            traffic(self.arriving(run), arrive),
            traffic(self.forwarded(run), middle),
            traffic(self.elsewhere(run), elsewhere),
        ]
    }

    /// To a port of this host, from wherever: a rule that asks for that may let it in. And from the container, back.
    fn arriving(&self, run: Option<&Run>) -> Vec<Packet<'a>> {
        let comes = Packet {
            protocol: run.map(|run| run.protocol.number()),
            to: run.map_or_else(Endpoint::default, |run| Endpoint {
                address: run.address,
                port: (run.count == 1).then_some(run.port),
            }),
            ..Packet::at(Hook::Prerouting, self.v6)
        };
        let reply = Packet {
            iif: Some(self.via),
            ..self.reply(Hook::Prerouting, run)
        };
        let unseen = |packet: &Packet<'a>| Packet {
            state: Packet::UNSEEN,
            priorities: UNSEEN,
            ..packet.clone()
        };
        let seen = |packet: &Packet<'a>| Packet {
            priorities: SEEN,
            ..packet.clone()
        };
        vec![unseen(&comes), seen(&comes), unseen(&reply), seen(&reply)]
    }

    fn forwarded(&self, run: Option<&Run>) -> Vec<Packet<'a>> {
        let comes = Packet {
            oif: Some(self.via),
            ..self.led(Hook::Forward, run)
        };
        let reply = Packet {
            iif: Some(self.via),
            ..self.reply(Hook::Forward, run)
        };
        vec![comes, reply]
    }

    fn elsewhere(&self, run: Option<&Run>) -> Vec<Packet<'a>> {
        let late = |packet| Packet {
            priorities: LED,
            ..packet
        };
        let leaves = Packet {
            oif: Some(self.via),
            ..self.led(Hook::Postrouting, run)
        };
        let answered = Packet {
            iif: Some(self.via),
            ..self.reply(Hook::Prerouting, run)
        };
        vec![
            late(self.led(Hook::Prerouting, run)),
            late(answered),
            leaves,
            // From the container, or from this host already.
            Packet {
                from: Endpoint::default(),
                ..self.reply(Hook::Postrouting, run)
            },
        ]
    }

    /// On its way to a container.
    fn led(&self, hook: Hook, run: Option<&Run>) -> Packet<'a> {
        Packet {
            state: Packet::TRANSLATED,
            protocol: run.map(|run| run.protocol.number()),
            to: run.map(served).unwrap_or_default(),
            ..Packet::at(hook, self.v6)
        }
    }

    /// On its way back.
    fn reply(&self, hook: Hook, run: Option<&Run>) -> Packet<'a> {
        Packet {
            state: Packet::ESTABLISHED,
            protocol: run.map(|run| run.protocol.number()),
            from: run.map(served).unwrap_or_default(),
            ..Packet::at(hook, self.v6)
        }
    }
}

/// Where a container answers.
fn served(run: &Run) -> Endpoint {
    Endpoint {
        address: Some(run.to.ip()),
        port: (run.count == 1).then_some(run.to.port()),
    }
}

/// Ports of this host: protocol, first and last.
type Opening = (&'static str, u16, u16);

/// Where these are; of very many all between.
fn openings(runs: &[&Run]) -> BTreeSet<Opening> {
    let mut openings: BTreeSet<_> = runs.iter().map(|run| opening(run)).collect();
    if openings.len() > EACH {
        let mut spans = BTreeMap::new();
        for (protocol, first, last) in openings {
            let span = spans.entry(protocol).or_insert((first, last));
            *span = (span.0.min(first), span.1.max(last));
        }
        let spans = spans.into_iter();
        openings = spans
            .map(|(protocol, (first, last))| (protocol, first, last))
            .collect();
    }
    openings
}

fn opening(run: &Run) -> Opening {
    let (first, last) = run.ports().into_inner();
    (run.protocol.as_str(), first, last)
}
