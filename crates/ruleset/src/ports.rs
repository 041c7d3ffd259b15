//! Packets of published ports on their path through this host.
//!
//! A packet is judged on three stretches: as it arrives, sent to a port of this host; at the hook at which firewalls decide;
//! and wherever else it is met on its way to a container, or back. Outside the forward hook a chain is reported only if it
//! drops everything: such chains often test properties that have nothing to do with the port, such as whether a source
//! address can be true.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use nft::Error;

use crate::packet::{Endpoint, Hook, Interface, Packet, State};
use crate::quote;
use crate::remedy::{Obstacle, Remedies, Traffic, obstacles};

/// Priorities of chains at prerouting and output: before connection tracking; then until the destination is translated; then
/// after that. The order of two chains with the same priority cannot be seen, so the priorities at the borders are left out.
const UNSEEN: RangeInclusive<i32> = i32::MIN..=-201;
const SEEN: RangeInclusive<i32> = -199..=-101;
const LED: RangeInclusive<i32> = -99..=i32::MAX;
/// Name and index of the loopback interface (`LOOPBACK_IFINDEX`).
const LOOPBACK: Interface<'static> = ("lo", 1);
/// firewalld lets translated packets pass unless `StrictForwardPorts` is set (firewalld.conf(5)). A zone for the containers
/// would not help, as zones go by where packets come from.
const STRICT: &str = "sed -i s/^StrictForwardPorts=.*/StrictForwardPorts=no/ /etc/firewalld/firewalld.conf && firewall-cmd --reload";
/// On this stretch, chains that only may stop packets are reported, too.
const MIDDLE: usize = 1;
/// More runs of ports than this are judged together, by their common properties.
const EACH: usize = 64;

/// Consecutive ports of this host that lead to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPorts<'a> {
    /// The protocol's name in iptables and nft, and its IP protocol number.
    pub protocol: (&'static str, u8),
    /// The host's address; `None` means all of the same version of IP as `to`.
    pub address: Option<IpAddr>,
    /// The ports of this host.
    pub ports: RangeInclusive<u16>,
    /// The container's address and first port.
    pub to: SocketAddr,
    /// The interface by which the container is reached.
    pub via: Interface<'a>,
}

impl PublishedPorts<'_> {
    /// Whether only programs of this host use them, by 127.0.0.1: nothing is forwarded.
    fn are_local(&self) -> bool {
        self.address.is_some_and(|address| address.is_loopback())
    }

    fn is_one(&self) -> bool {
        self.ports.start() == self.ports.end()
    }

    /// The host's side, in words.
    fn name(&self) -> String {
        let first = self.ports.start();
        let protocol = self.protocol.0;
        let at = match self.address {
            Some(address) => SocketAddr::new(address, *first).to_string(),
            None => first.to_string(),
        };
        if self.is_one() {
            format!("port {at}/{protocol}")
        } else {
            format!("ports {at}/{protocol} to {}", self.ports.end())
        }
    }
}

/// The foreign chains that stop all packets to these ports or their replies, or may. `ingress` gives the interfaces by which
/// clients over a version of IP may arrive for containers behind an interface.
pub fn published<'a>(
    ports: &[PublishedPorts<'a>],
    ingress: impl Fn(&str, bool) -> Vec<Interface<'a>>,
) -> Result<Vec<Obstacle>, Error> {
    let mut paths: BTreeMap<_, Vec<&PublishedPorts<'a>>> = BTreeMap::new();
    for one in ports {
        let path = (one.via, one.to.is_ipv6(), one.are_local());
        paths.entry(path).or_default().push(one);
    }
    let mut named = Vec::new();
    for ((via, v6, is_local), ports) in paths {
        let outside = if is_local { vec![] } else { ingress(via.0, v6) };
        if outside.is_empty() && !is_local {
            // No client can come.
            continue;
        }
        let path = Path {
            via,
            v6,
            is_local,
            outside,
        };
        named.extend(path.obstacles(&ports)?);
    }
    Ok(named)
}

/// The report on a chain that stops all of the traffic, or may. If the parts of the traffic were judged, it says which of
/// them are stopped.
fn verdict(all: &Obstacle, each: &[&Vec<Obstacle>], is_middle: bool) -> Vec<Obstacle> {
    let one = |all| vec![Obstacle::clone(all)];
    if all.certain {
        return one(all);
    }
    let of_this = |part: &&Vec<Obstacle>| part.iter().find(|it| it.chain == all.chain).cloned();
    let parts: Vec<_> = each.iter().filter_map(of_this).collect();
    // Parts with the same remedy are reported together.
    let mut joined: Vec<(Obstacle, usize)> = Vec::new();
    for part in parts.iter().filter(|it| it.certain) {
        match joined.iter_mut().find(|(it, _)| it.remedy == part.remedy) {
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

/// How packets reach ports: by which interface and version of IP, from outside or from programs of this host.
struct Path<'a> {
    via: Interface<'a>,
    v6: bool,
    is_local: bool,
    /// Interfaces by which clients arrive.
    outside: Vec<Interface<'a>>,
}

impl<'a> Path<'a> {
    fn obstacles(&self, all: &[&PublishedPorts<'_>]) -> Result<Vec<Obstacle>, Error> {
        let each = if all.len() > EACH { &[] } else { all };
        let known = if each.is_empty() {
            Known::of(all)
        } else {
            Known::default()
        };
        let mut traffic = self.stretches("published ports", all, &known).to_vec();
        traffic.extend(
            each.iter()
                .flat_map(|one| self.stretches(&one.name(), &[one], &Known::of(&[one]))),
        );
        let obstacles = obstacles(&traffic)?;
        let (all, each) = obstacles.split_at(3);
        let mut named = Vec::new();
        for (stretch, all) in all.iter().enumerate() {
            let each: Vec<_> = each.iter().skip(stretch).step_by(3).collect();
            for chain in all {
                named.extend(verdict(chain, &each, stretch == MIDDLE));
            }
        }
        Ok(named)
    }

    /// The packets to ports of this name and the replies, by stretch.
    fn stretches(
        &self,
        name: &str,
        ports: &[&PublishedPorts<'_>],
        known: &Known,
    ) -> [Traffic<'a>; 3] {
        let via = self.via.0;
        let version = if self.v6 { "IPv6" } else { "IPv4" };
        let what = format!("what comes to {name} over {version}, by {via},");
        let openings = openings(ports);
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
        let (quoted, named) = (quote::quoted(via), quote::interface(via));
        let remedies = |nft, iptables| Remedies {
            nft,
            iptables,
            firewalld: STRICT.to_owned(),
        };
        let arrive = remedies(
            // If nft cannot spell the interface's name, a part of the rules alone would open nothing.
            named
                .iter()
                .flat_map(|it| nft.clone().chain([format!("iifname {it} accept")]))
                .collect(),
            iptables.chain([format!("-i {quoted} -j ACCEPT")]).collect(),
        );
        let middle = remedies(
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
        let elsewhere = remedies(
            vec!["ct status dnat accept".to_owned()],
            vec!["-m conntrack --ctstate DNAT -j ACCEPT".to_owned()],
        );
        let traffic = |packets, remedies| Traffic {
            packets,
            what: what.clone(),
            remedies,
        };
        let forwarded = if self.is_local {
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

    /// Sent to a port of this host; and the reply from the container.
    fn arriving(&self, known: &Known) -> Vec<Vec<Packet<'a>>> {
        let sent = Packet {
            oif: self.is_local.then_some(LOOPBACK),
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
        if self.is_local {
            all.push(vec![self.back(Hook::Input, known)]);
        } else {
            // From the container, or already from this host.
            let answered = Packet {
                from: Endpoint::default(),
                iif: None,
                ..self.back(Hook::Postrouting, known)
            };
            all.push(self.leaving(&answered));
        }
        all
    }

    /// The hook where a packet to a port arrives first.
    fn first_hook(&self) -> Hook {
        if self.is_local {
            Hook::Output
        } else {
            Hook::Prerouting
        }
    }

    /// A packet on its way to a container.
    fn led(&self, hook: Hook, known: &Known) -> Packet<'a> {
        Packet {
            state: State::Translated,
            protocol: known.protocol,
            to: known.served,
            ..Packet::at(hook, self.v6)
        }
    }

    /// A reply on its way back.
    fn back(&self, hook: Hook, known: &Known) -> Packet<'a> {
        Packet {
            state: State::ReplyOfTranslated,
            iif: Some(self.via),
            protocol: known.protocol,
            from: known.served,
            ..Packet::at(hook, self.v6)
        }
    }

    /// The packet's forms, one for each interface by which clients arrive.
    fn coming(&self, packet: &Packet<'a>) -> Vec<Packet<'a>> {
        self.forms(packet, |packet, link| packet.iif = link)
    }

    /// The same for a packet that leaves to clients.
    fn leaving(&self, packet: &Packet<'a>) -> Vec<Packet<'a>> {
        self.forms(packet, |packet, link| packet.oif = link)
    }

    fn forms(
        &self,
        packet: &Packet<'a>,
        set: impl Fn(&mut Packet<'a>, Option<Interface<'a>>),
    ) -> Vec<Packet<'a>> {
        if self.is_local {
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

/// The properties that all ports have in common.
#[derive(Default)]
struct Known {
    protocol: Option<u8>,
    /// The host's side.
    at: Endpoint,
    /// The container's side.
    served: Endpoint,
}

impl Known {
    fn of(all: &[&PublishedPorts<'_>]) -> Self {
        let port = |one: &&PublishedPorts<'_>, port: u16| one.is_one().then_some(port);
        Self {
            protocol: same(all.iter().map(|one| Some(one.protocol.1))),
            at: Endpoint {
                address: same(all.iter().map(|one| one.address)),
                port: same(all.iter().map(|one| port(one, *one.ports.start()))),
            },
            served: Endpoint {
                address: same(all.iter().map(|one| Some(one.to.ip()))),
                port: same(all.iter().map(|one| port(one, one.to.port()))),
            },
        }
    }
}

/// The common value of all, if there is one.
fn same<T: PartialEq>(mut all: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = all.next()??;
    all.all(|it| it.as_ref() == Some(&first)).then_some(first)
}

/// The host's ports by protocol, joined into as few ranges as possible.
fn openings(all: &[&PublishedPorts<'_>]) -> BTreeMap<&'static str, Vec<RangeInclusive<u16>>> {
    let mut sorted: Vec<_> = all
        .iter()
        .map(|one| (one.protocol.0, one.ports.clone()))
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

/// A range of ports, with nft's dash or iptables' colon.
fn range(ports: &RangeInclusive<u16>, between: char) -> String {
    match (ports.start(), ports.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}{between}{last}"),
    }
}
