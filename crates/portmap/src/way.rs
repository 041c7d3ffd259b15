//! The way of packets through this host to a container: what stops it, other than ours.
//!
//! Packets are judged on three stretches: as they arrive, sent to a port of this host; at the hook at which firewalls decide;
//! and wherever else they are met on their way to a container, or back. Off the middle one a chain is named only if nothing gets through
//! it, as many of them look at things that no port depends on (whether a source address can be true).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use cni::Error;
use nft::{Blocked, Endpoint, Hook, Packet, State, Traffic, Words};

use crate::{
    kernel,
    outside::{self, Link},
    record::{Record, Run},
};

/// Priorities of chains at prerouting and output: before the kernel knows of connections; from then on until the way to a
/// container is looked up; and behind that. Which of two chains at the same priority is first nobody can see, so those at the
/// borders are left out.
const UNSEEN: RangeInclusive<i32> = i32::MIN..=-201;
const SEEN: RangeInclusive<i32> = -199..=-101;
const LED: RangeInclusive<i32> = -99..=i32::MAX;
/// Name and index of the loopback interface (`LOOPBACK_IFINDEX`).
const LOOPBACK: (&str, u32) = ("lo", 1);
/// The stretch on which chains are named also if they only may stop something.
const MIDDLE: usize = 1;
/// More runs of ports are judged together, by what is the same of all.
const EACH: usize = 64;

/// The chains of others that let nothing through to the records' ports, or back, or may not.
pub(crate) async fn blocked(records: &[Record]) -> Result<Vec<Blocked>, Error> {
    let mut ways: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
    for run in records.iter().flat_map(|record| &record.runs) {
        let way = (run.via.as_str(), run.to.is_ipv6(), is_here(run));
        ways.entry(way).or_default().push(run);
    }
    let mut named = Vec::new();
    for ((via, v6, is_here), runs) in ways {
        let outside = if is_here {
            vec![]
        } else {
            outside::links(via, v6).await?
        };
        // No interface has the index 0: of one that is gone, no rule can be but by its name.
        let index = netlink::index_of(via).unwrap_or(0);
        let way = Way {
            via: (via, index),
            v6,
            is_here,
            outside: &outside,
        };
        named.extend(way.blocked(&runs)?);
    }
    Ok(named)
}

/// Whether only programs of this host use it, by 127.0.0.1: nothing of it is forwarded.
pub(crate) fn is_here(run: &Run) -> bool {
    run.address.is_some_and(|address| address.is_loopback())
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

/// Over an interface and a version of IP, by addresses that others reach or by 127.0.0.1.
struct Way<'a> {
    /// The interface's name and index.
    via: (&'a str, u32),
    v6: bool,
    is_here: bool,
    /// Where clients come from.
    outside: &'a [Link],
}

impl<'a> Way<'a> {
    fn blocked(&self, runs: &[&Run]) -> Result<Vec<Blocked>, Error> {
        let each = if runs.len() > EACH { &[] } else { runs };
        let mut traffic = self.stretches(None, &openings(runs)).to_vec();
        traffic.extend(each.iter().flat_map(|run| {
            let opening = BTreeSet::from([opening(run)]);
            self.stretches(Some(run), &opening)
        }));
        let blocked = nft::blocked(&traffic).map_err(|error| kernel(&error))?;
        let (all, each) = blocked.split_at(3);
        let mut named = Vec::new();
        for (stretch, all) in all.iter().enumerate() {
            let each: Vec<_> = each.iter().skip(stretch).step_by(3).collect();
            for chain in all {
                named.extend(verdict(chain, &each, stretch == MIDDLE));
            }
        }
        Ok(named)
    }

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
        // firewalld lets pass what is led to a container, unless it is told not to; a zone for the containers would not help.
        let words = |nft, iptables| Words {
            nft,
            iptables,
            firewalld: None,
        };
        let arrive = words(
            nft.chain([format!("iifname \"{via}\" accept")]).collect(),
            iptables.chain([format!("-i {via} -j ACCEPT")]).collect(),
        );
        let middle = words(
            vec![
                format!("oifname \"{via}\" ct status dnat accept"),
                format!("iifname \"{via}\" ct state established,related accept"),
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
        let forwarded = if self.is_here {
            vec![]
        } else {
            self.forwarded(run)
        };
        [
            traffic(self.arriving(run), arrive),
            traffic(forwarded, middle),
            traffic(self.elsewhere(run), elsewhere),
        ]
    }

    /// To a port of this host, and from the container, back.
    fn arriving(&self, run: Option<&Run>) -> Vec<Vec<Packet<'a>>> {
        let sent = Packet {
            oif: self.is_here.then_some(LOOPBACK),
            protocol: run.map(|run| run.protocol.number()),
            to: run.map_or_else(Endpoint::default, |run| Endpoint {
                address: run.address,
                port: (run.count == 1).then_some(run.port),
            }),
            ..Packet::at(self.first_hook(), self.v6)
        };
        let comes = self.coming(&sent);
        let reply = vec![self.back(Hook::Prerouting, run)];
        let unseen = |packet: &Packet<'a>| Packet {
            state: State::Unseen,
            priorities: UNSEEN,
            ..packet.clone()
        };
        let seen = |packet: &Packet<'a>| Packet {
            priorities: SEEN,
            ..packet.clone()
        };
        let both = [comes, reply];
        let met = |forms: &Vec<Packet<'a>>| {
            let unseen = forms.iter().map(unseen).collect();
            [unseen, forms.iter().map(seen).collect()]
        };
        both.iter().flat_map(met).collect()
    }

    fn forwarded(&self, run: Option<&Run>) -> Vec<Vec<Packet<'a>>> {
        let comes = Packet {
            oif: Some(self.via),
            ..self.led(Hook::Forward, run)
        };
        let reply = self.back(Hook::Forward, run);
        vec![self.coming(&comes), self.leaving(&reply)]
    }

    fn elsewhere(&self, run: Option<&Run>) -> Vec<Vec<Packet<'a>>> {
        let late = |packet| Packet {
            priorities: LED,
            ..packet
        };
        let leaves = Packet {
            oif: Some(self.via),
            ..self.led(Hook::Postrouting, run)
        };
        let mut all = vec![
            self.coming(&late(self.led(self.first_hook(), run))),
            vec![late(self.back(Hook::Prerouting, run))],
            self.coming(&leaves),
        ];
        if self.is_here {
            all.push(vec![self.back(Hook::Input, run)]);
        } else {
            // From the container, or from this host already.
            let answered = Packet {
                from: Endpoint::default(),
                iif: None,
                ..self.back(Hook::Postrouting, run)
            };
            all.push(self.leaving(&answered));
        }
        all
    }

    /// Where what is sent to a port is met first.
    fn first_hook(&self) -> Hook {
        if self.is_here {
            Hook::Output
        } else {
            Hook::Prerouting
        }
    }

    /// On its way to a container.
    fn led(&self, hook: Hook, run: Option<&Run>) -> Packet<'a> {
        Packet {
            state: State::Translated,
            protocol: run.map(|run| run.protocol.number()),
            to: run.map(served).unwrap_or_default(),
            ..Packet::at(hook, self.v6)
        }
    }

    /// On its way back.
    fn back(&self, hook: Hook, run: Option<&Run>) -> Packet<'a> {
        Packet {
            state: State::ReplyOfTranslated,
            iif: Some(self.via),
            protocol: run.map(|run| run.protocol.number()),
            from: run.map(served).unwrap_or_default(),
            ..Packet::at(hook, self.v6)
        }
    }

    /// It, as it comes from each place where clients are; from wherever, if there is none yet.
    fn coming(&self, packet: &Packet<'a>) -> Vec<Packet<'a>> {
        self.forms(packet, |packet, link| packet.iif = link)
    }

    /// It, as it goes there.
    fn leaving(&self, packet: &Packet<'a>) -> Vec<Packet<'a>> {
        self.forms(packet, |packet, link| packet.oif = link)
    }

    fn forms(
        &self,
        packet: &Packet<'a>,
        set: impl Fn(&mut Packet<'a>, Option<(&'a str, u32)>),
    ) -> Vec<Packet<'a>> {
        if self.outside.is_empty() {
            return vec![packet.clone()];
        }
        let forms = self.outside.iter().map(|(name, index)| {
            let mut form = packet.clone();
            set(&mut form, Some((name, *index)));
            form
        });
        forms.collect()
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
