//! The way of packets through this host to a container: what stops it, other than ours.
//!
//! Packets are judged on three stretches: as they arrive, sent to a port of this host; at the hook at which firewalls decide;
//! and wherever else they are met on their way to a container, or back. Off the middle one a chain is named only if nothing gets through
//! it, as many of them look at things that no port depends on (whether a source address can be true).

use std::{collections::BTreeMap, fmt::Write, ops::RangeInclusive};

use nft::{Blocked, Endpoint, Hook, Packet, State, Traffic, Words};
use plugin::Error;

use crate::{
    ingress::Outside,
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
/// firewalld lets pass what is led to a container, unless it is told not to (firewalld.conf(5)); a zone for the containers would
/// not help, as it goes by where packets come from.
const STRICT: &str = "sed -i s/^StrictForwardPorts=.*/StrictForwardPorts=no/ /etc/firewalld/firewalld.conf && firewall-cmd --reload";
/// The stretch on which chains are named also if they only may stop something.
const MIDDLE: usize = 1;
/// More runs of ports are judged together, by what is the same of all.
const EACH: usize = 64;

/// The chains of others that let nothing through to the records' ports, or back, or may not.
pub(crate) fn blocked(records: &[Record], outside: &Outside) -> Result<Vec<Blocked>, Error> {
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
            outside.links(via, v6)
        };
        if outside.is_empty() && !is_here {
            // Nobody can come.
            continue;
        }
        // No interface has the index 0: of one that is gone, no rule can be but by its name.
        let index = netlink::index_of(via).unwrap_or(0);
        let way = Way {
            via: (via, index),
            v6,
            is_here,
            outside,
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
    // One command may be for many.
    let mut joined: Vec<(Blocked, usize)> = Vec::new();
    for part in parts.iter().filter(|it| it.certain) {
        match joined.iter_mut().find(|(it, _)| it.allow == part.allow) {
            Some((_, more)) => *more += 1,
            None => joined.push((part.clone(), 0)),
        }
    }
    if !joined.is_empty() {
        let named = joined.into_iter().map(|(mut part, more)| {
            if more > 0 {
                let _ = write!(part.why, ", and what comes to {more} more");
            }
            part
        });
        return named.collect();
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
    outside: Vec<(&'a str, u32)>,
}

impl<'a> Way<'a> {
    fn blocked(&self, runs: &[&Run]) -> Result<Vec<Blocked>, Error> {
        let each = if runs.len() > EACH { &[] } else { runs };
        let known = if each.is_empty() {
            Known::of(runs)
        } else {
            Known::default()
        };
        let mut traffic = self.stretches("published ports", runs, &known).to_vec();
        traffic.extend(each.iter().flat_map(|run| {
            let ports = match run.count {
                1 => format!("port {}", run.at()),
                _ => format!("ports {} to {}", run.at(), run.ports().end()),
            };
            self.stretches(&ports, &[run], &Known::of(&[run]))
        }));
        let blocked = nft::blocked(&traffic)?;
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

    /// What comes to some ports, which are called so, and what is answered, on each stretch.
    fn stretches(&self, ports: &str, runs: &[&Run], known: &Known) -> [Traffic<'a>; 3] {
        let via = self.via.0;
        let version = if self.v6 { "IPv6" } else { "IPv4" };
        let what = format!("what comes to {ports} over {version}, by {via},");
        let openings = openings(runs);
        let nft = openings.iter().map(|(protocol, runs)| {
            let ports: Vec<_> = runs.iter().map(|run| range(run, '-')).collect();
            match &*ports {
                [one] => format!("{protocol} dport {one} accept"),
                all => format!("{protocol} dport {{ {} }} accept", all.join(", ")),
            }
        });
        let iptables = openings.iter().flat_map(|(protocol, runs)| {
            let ports = runs.iter().map(|run| range(run, ':'));
            ports.map(move |ports| format!("-p {protocol} --dport {ports} -j ACCEPT"))
        });
        let (quoted, named) = (nft::quoted(via), nft::interface(via));
        let words = |nft, iptables| Words {
            nft,
            iptables,
            firewalld: STRICT.to_owned(),
        };
        let arrive = words(
            // Where nft has no spelling for the interface, part of the rules would open nothing.
            named
                .iter()
                .flat_map(|it| nft.clone().chain([format!("iifname {it} accept")]))
                .collect(),
            iptables.chain([format!("-i {quoted} -j ACCEPT")]).collect(),
        );
        let middle = words(
            named
                .iter()
                .flat_map(|it| {
                    [
                        format!("oifname {it} ct status dnat accept"),
                        format!("iifname {it} ct state established,related accept"),
                    ]
                })
                .collect(),
            vec![
                format!("-o {quoted} -m conntrack --ctstate DNAT -j ACCEPT"),
                format!("-i {quoted} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
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
            self.forwarded(known)
        };
        [
            traffic(self.arriving(known), arrive),
            traffic(forwarded, middle),
            traffic(self.elsewhere(known), elsewhere),
        ]
    }

    /// To a port of this host, and from the container, back.
    fn arriving(&self, known: &Known) -> Vec<Vec<Packet<'a>>> {
        let sent = Packet {
            oif: self.is_here.then_some(LOOPBACK),
            protocol: known.protocol,
            to: known.at,
            ..Packet::at(self.first_hook(), self.v6)
        };
        let comes = self.coming(&sent);
        let reply = vec![self.back(Hook::Prerouting, known)];
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

    fn forwarded(&self, known: &Known) -> Vec<Vec<Packet<'a>>> {
        let comes = Packet {
            oif: Some(self.via),
            ..self.led(Hook::Forward, known)
        };
        let reply = self.back(Hook::Forward, known);
        vec![self.coming(&comes), self.leaving(&reply)]
    }

    fn elsewhere(&self, known: &Known) -> Vec<Vec<Packet<'a>>> {
        let late = |packet| Packet {
            priorities: LED,
            ..packet
        };
        let leaves = Packet {
            oif: Some(self.via),
            ..self.led(Hook::Postrouting, known)
        };
        let mut all = vec![
            self.coming(&late(self.led(self.first_hook(), known))),
            vec![late(self.back(Hook::Prerouting, known))],
            self.coming(&leaves),
        ];
        if self.is_here {
            all.push(vec![self.back(Hook::Input, known)]);
        } else {
            // From the container, or from this host already.
            let answered = Packet {
                from: Endpoint::default(),
                iif: None,
                ..self.back(Hook::Postrouting, known)
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
    fn led(&self, hook: Hook, known: &Known) -> Packet<'a> {
        Packet {
            state: State::Translated,
            protocol: known.protocol,
            to: known.served,
            ..Packet::at(hook, self.v6)
        }
    }

    /// On its way back.
    fn back(&self, hook: Hook, known: &Known) -> Packet<'a> {
        Packet {
            state: State::ReplyOfTranslated,
            iif: Some(self.via),
            protocol: known.protocol,
            from: known.served,
            ..Packet::at(hook, self.v6)
        }
    }

    /// It, as it comes from each place where clients are.
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
        if self.is_here {
            return vec![packet.clone()];
        }
        let forms = self.outside.iter().map(|link| {
            let mut form = packet.clone();
            set(&mut form, Some(*link));
            form
        });
        forms.collect()
    }
}

/// What is known of ports: what is the same of all.
#[derive(Default)]
struct Known {
    protocol: Option<u8>,
    /// Of this host.
    at: Endpoint,
    /// Of the container.
    served: Endpoint,
}

impl Known {
    fn of(runs: &[&Run]) -> Self {
        let one = |run: &&Run, port: u16| (run.count == 1).then_some(port);
        Self {
            protocol: same(runs.iter().map(|run| Some(run.protocol.number()))),
            at: Endpoint {
                address: same(runs.iter().map(|run| run.address)),
                port: same(runs.iter().map(|run| one(run, run.port))),
            },
            served: Endpoint {
                address: same(runs.iter().map(|run| Some(run.to.ip()))),
                port: same(runs.iter().map(|run| one(run, run.to.port()))),
            },
        }
    }
}

/// What all of these are, if they are all the same.
fn same<T: PartialEq>(mut all: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = all.next()??;
    all.all(|it| it.as_ref() == Some(&first)).then_some(first)
}

/// The ports of this host by protocol, in as few ranges as there are.
fn openings(runs: &[&Run]) -> BTreeMap<&'static str, Vec<RangeInclusive<u16>>> {
    let mut sorted: Vec<_> = runs
        .iter()
        .map(|run| (run.protocol.as_str(), run.ports()))
        .collect();
    sorted.sort_by_key(|(protocol, ports)| (*protocol, *ports.start(), *ports.end()));
    let mut openings: BTreeMap<_, Vec<RangeInclusive<u16>>> = BTreeMap::new();
    for (protocol, ports) in sorted {
        let known = openings.entry(protocol).or_default();
        match known.last_mut() {
            Some(last) if *ports.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(ports.end());
            }
            _ => known.push(ports),
        }
    }
    openings
}

/// In nft's words with a dash between, in those of iptables with a colon.
fn range(ports: &RangeInclusive<u16>, between: char) -> String {
    match (ports.start(), ports.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}{between}{last}"),
    }
}
