//! What the host's nftables table should have, and how it differs from what the kernel has. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use cluster::NetworkSnapshot;
use ipnetwork::IpNetwork;
use nft::{Nonmember, Permitted};
use serde::{Deserialize, Serialize};

use crate::{names, segment::forwarding::peers};

/// The form of our chains and sets, counted up with each change of them: what was seen in another form is looked at again.
pub(super) const FORM: u32 = 4;

/// What the table should have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The kernel's count of changes to any rules when all of this was last seen in the table.
    #[serde(default)]
    pub(super) rules: Option<u32>,
    /// The form of the table that was seen then ([`FORM`]); 0 of versions up to 1.0.0.
    #[serde(default)]
    pub(super) form: u32,
    /// Subnets that leave the host under its own address, by owner.
    pub(super) hidden: BTreeMap<String, BTreeSet<IpNetwork>>,
    /// Networks with their tunnels.
    pub(super) tunnels: BTreeMap<String, Tunnel>,
    /// Sets of tunnel addresses by their digests; networks that know the same hosts share one.
    pub(super) hosts: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// A network's tunnel on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tunnel {
    /// Our tunnel address, and the UDP port.
    pub(super) end: SocketAddr,
    /// Digest of the set of the addresses that may send to it.
    hosts: String,
    /// Whether it sends from any port, as the devices do that versions up to 1.0.0 made.
    #[serde(default = "yes")]
    any_source_port: bool,
    /// The network's VNI; absent in what versions up to 1.0.0 noted. Then all hosts may send, until the next verb of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
    /// Those of the hosts that have no part in the network.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    nonmembers: BTreeSet<IpAddr>,
    /// The networks that it may meet, where these name it as well.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    reaches: BTreeSet<String>,
}

/// A network's tunnel as a snapshot describes it.
pub(super) struct Described {
    /// Our tunnel address, and the UDP port.
    pub(super) end: SocketAddr,
    /// Whether it sends from any port.
    pub(super) any_source_port: bool,
    vni: Option<u32>,
    /// The addresses that may send to it.
    hosts: BTreeSet<IpAddr>,
    /// The addresses that frames are sent to.
    members: BTreeSet<IpAddr>,
    /// The networks that it may meet; absent if the record does not say.
    reaches: Option<BTreeSet<String>>,
}

impl Described {
    pub(super) fn new(
        (end, any_source_port): (SocketAddr, bool),
        node: &str,
        snapshot: &NetworkSnapshot,
    ) -> Self {
        let network = snapshot.network.as_ref();
        Self {
            end,
            any_source_port,
            vni: network.and_then(|network| network.record.vni),
            hosts: senders(end, snapshot),
            members: peers(snapshot, node, end.ip()),
            reaches: network.and_then(|network| network.record.reaches.clone()),
        }
    }
}

/// What is so where a document says nothing.
fn yes() -> bool {
    true
}

/// The addresses that may send to a tunnel that ends at `end`: the nodes of this snapshot, and this host itself. Versions up to 1.0.0
/// compare them.
fn senders(end: SocketAddr, snapshot: &NetworkSnapshot) -> BTreeSet<IpAddr> {
    let vteps = snapshot
        .nodes
        .iter()
        .filter_map(|(_, node)| node.last_read()?.vtep);
    let hosts = vteps.filter(|vtep| vtep.is_ipv4() == end.is_ipv4());
    hosts.chain([end.ip()]).collect()
}

impl Table {
    pub(super) fn guard(&mut self, network: &str, described: Described) {
        let hosts = described.hosts;
        // A set that is here goes on under the digest that it has: versions up to commit 86dc1f2 computed another one.
        let known = self.hosts.iter().find(|(_, known)| **known == hosts);
        let digest = known.map_or_else(|| digest(&hosts), |(digest, _)| digest.clone());
        // What a conflist said stays where the record says nothing.
        let noted = self.tunnels.get(network);
        let reaches = described
            .reaches
            .or_else(|| noted.map(|tunnel| tunnel.reaches.clone()));
        let tunnel = Tunnel {
            end: described.end,
            hosts: digest.clone(),
            any_source_port: described.any_source_port,
            vni: described.vni,
            nonmembers: hosts.difference(&described.members).copied().collect(),
            reaches: reaches.unwrap_or_default(),
        };
        self.tunnels.insert(network.to_owned(), tunnel);
        self.hosts.insert(digest, hosts);
        self.forget_hosts();
    }

    /// Notes the networks that a network with a tunnel on this host may meet.
    pub(super) fn meet(&mut self, network: &str, reaches: &BTreeSet<String>) {
        if let Some(tunnel) = self.tunnels.get_mut(network) {
            tunnel.reaches.clone_from(reaches);
        }
    }

    /// The networks that a network may meet, if it has a tunnel on this host.
    pub(super) fn reaches(&self, network: &str) -> BTreeSet<String> {
        let tunnel = self.tunnels.get(network);
        tunnel.map_or_else(BTreeSet::new, |tunnel| tunnel.reaches.clone())
    }

    /// The networks to which links of a network may forward: itself, and those with which it meets.
    fn met<'t>(&'t self, network: &'t str, tunnel: &'t Tunnel) -> impl Iterator<Item = &'t str> {
        let names_it = |other: &&String| {
            let other = self.tunnels.get(*other);
            other.is_some_and(|other| other.reaches.contains(network))
        };
        let others = tunnel.reaches.iter().filter(names_it);
        others.map(String::as_str).chain([network])
    }

    pub(super) fn forget_tunnel(&mut self, network: &str) {
        self.tunnels.remove(network);
        self.forget_hosts();
    }

    fn forget_hosts(&mut self) {
        let used: BTreeSet<_> = self.tunnels.values().map(|tunnel| &tunnel.hosts).collect();
        self.hosts.retain(|digest, _| used.contains(digest));
    }

    /// What may pass. Links of one network may forward to each other, and to those of a network with which it meets.
    pub(super) fn permitted(&self) -> Permitted {
        let mut permitted = Permitted {
            hosts: self.hosts.values().flatten().copied().collect(),
            ..Permitted::default()
        };
        for (network, tunnel) in &self.tunnels {
            let port = tunnel.end.port();
            permitted.tunnels.insert(tunnel.end);
            if tunnel.any_source_port {
                permitted.any_source_port.insert(port);
            }
            let hosts = self.hosts.get(&tunnel.hosts).into_iter().flatten();
            let others = hosts.filter(|host| **host != tunnel.end.ip());
            let remotes = others.map(|host| SocketAddr::new(*host, port));
            permitted.remotes.extend(remotes);
            // A tunnel sends nothing to its own host, so a program sent what comes from this host's own address.
            let nonmembers = tunnel.vni.into_iter().flat_map(|vni| {
                let hosts = tunnel.nonmembers.iter();
                hosts.map(move |host| Nonmember {
                    host: *host,
                    end: tunnel.end,
                    vni,
                })
            });
            permitted.nonmembers.extend(nonmembers);
            let segment = tunnel.vni.map(|vni| (port, vni));
            permitted.segments.extend(segment);
            let from = links(network);
            let to: Vec<_> = self.met(network, tunnel).flat_map(links).collect();
            let pairs = from
                .iter()
                .flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone())));
            permitted.together.extend(pairs);
        }
        permitted
    }

    pub(super) fn is_unused(&self) -> bool {
        self.hidden.is_empty() && self.tunnels.is_empty()
    }

    /// The subnets that leave the host under its own address, each with its owner.
    pub(super) fn masqueraded(&self) -> BTreeSet<Masqueraded> {
        let all = self.hidden.iter();
        all.flat_map(|(owner, subnets)| subnets.iter().map(|it| (*it, owner.clone())))
            .collect()
    }

    /// What is not as it should be.
    pub(super) fn deviation(&self, seen: &Seen) -> Option<String> {
        if !seen.is_complete {
            return Some("gone or changed by another program".to_owned());
        }
        let wanted = self.masqueraded();
        let lacks = |(subnet, _): &Masqueraded| format!("does not masquerade {subnet}");
        let has = |(subnet, _): &Masqueraded| format!("masquerades {subnet}, which is not ours");
        let first = wanted.difference(&seen.masqueraded).next().map(lacks);
        first
            .or_else(|| seen.masqueraded.difference(&wanted).next().map(has))
            .or_else(|| {
                let what = "does not know what may pass to tunnels and containers";
                (!seen.permits).then(|| what.to_owned())
            })
    }
}

/// The links that a host may have to a network's segment.
fn links(network: &str) -> [String; 2] {
    [names::gateway_link(network), names::host_link(network)]
}

/// A subnet and its owner.
pub(super) type Masqueraded = (IpNetwork, String);

/// What the kernel has of the table.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Whether its chains, rules and sets are all there, and no others.
    pub(super) is_complete: bool,
    pub(super) masqueraded: BTreeSet<Masqueraded>,
    /// Whether it lets pass what may, and nothing else.
    pub(super) permits: bool,
}

/// What stands for a set of tunnel addresses.
fn digest(hosts: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    journal::digest(&texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damage_of_the_table_is_named() {
        let hidden: BTreeMap<_, _> = [("a", "10.0.0.0/24"), ("b", "172.18.0.0/16")]
            .map(|(owner, subnet)| (owner.to_owned(), [subnet.parse().unwrap()].into()))
            .into();
        let table = Table {
            hidden,
            ..Table::default()
        };
        let whole = Seen {
            is_complete: true,
            masqueraded: table.masqueraded(),
            permits: true,
        };
        let owned = |subnet: &str, owner: &str| (subnet.parse().unwrap(), owner.to_owned());
        let told = |damage: &dyn Fn(&mut Seen)| {
            let mut seen = whole.clone();
            damage(&mut seen);
            table.deviation(&seen).unwrap_or_default()
        };
        assert_eq!(told(&|_| ()), "");
        assert_eq!(
            told(&|seen| seen.is_complete = false),
            "gone or changed by another program"
        );
        let removed = told(&|seen| drop(seen.masqueraded.pop_first()));
        assert_eq!(removed, "does not masquerade 10.0.0.0/24");
        let changed = told(&|seen| {
            seen.masqueraded.pop_first();
            seen.masqueraded.insert(owned("10.0.0.0/24", "other"));
        });
        assert_eq!(changed, "does not masquerade 10.0.0.0/24");
        let doubled = told(&|seen| {
            seen.masqueraded.insert(owned("10.7.0.0/16", "a"));
        });
        assert_eq!(doubled, "masquerades 10.7.0.0/16, which is not ours");
        assert_eq!(
            told(&|seen| seen.permits = false),
            "does not know what may pass to tunnels and containers"
        );
    }

    #[test]
    fn a_set_of_hosts_goes_on_under_the_digest_that_an_earlier_version_gave_it() {
        let hosts = ["192.168.1.11", "192.168.1.12"];
        let mut noted = Table::default();
        noted.guard("n", described("192.168.1.11:4789", &hosts));
        let tunnel = noted.tunnels.get_mut("n").unwrap();
        let known = noted.hosts.remove(&tunnel.hosts).unwrap();
        tunnel.hosts = "0123456789abcdef".to_owned();
        noted.hosts.insert(tunnel.hosts.clone(), known);
        let mut table = noted.clone();
        table.guard("n", described("192.168.1.11:4789", &hosts));
        assert_eq!(table, noted, "nothing to be mended");
        let more = ["192.168.1.11", "192.168.1.12", "192.168.1.13"];
        table.guard("n", described("192.168.1.11:4789", &more));
        let (digest, known) = table.hosts.first_key_value().unwrap();
        assert_eq!(
            (digest.as_str(), known),
            ("d00b707456e2a417", &addresses(&more))
        );
        assert_eq!((table.hosts.len(), &table.tunnels["n"].hosts), (1, digest));
    }

    fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|it| it.parse().unwrap()).collect()
    }

    /// A tunnel with these hosts, all of which have addresses of its network.
    fn described(end: &str, hosts: &[&str]) -> Described {
        let end: SocketAddr = end.parse().unwrap();
        let hosts = addresses(hosts);
        let others = hosts.iter().filter(|host| **host != end.ip());
        Described {
            end,
            any_source_port: false,
            vni: Some(4097),
            members: others.copied().collect(),
            reaches: None,
            hosts,
        }
    }

    /// Two networks. All hosts of the first are members. An earlier version made the tunnel of the second, which has one more host, and not
    /// all of its hosts are members.
    fn two_networks() -> Table {
        let mut table = Table::default();
        let hosts = ["192.168.1.11", "192.168.1.12", "192.168.1.13"];
        table.guard("a", described("192.168.1.11:4789", &hosts[..2]));
        let other = described("192.168.1.11:8472", &hosts);
        let other = Described {
            any_source_port: true,
            vni: Some(4098),
            members: addresses(&hosts[1..2]),
            ..other
        };
        table.guard("b", other);
        table
    }

    #[test]
    fn the_tunnels_of_other_hosts_are_known_by_address_and_port() {
        let permitted = two_networks().permitted();
        let sockets = |sockets: &BTreeSet<SocketAddr>| {
            let texts = sockets.iter().map(ToString::to_string);
            texts.collect::<Vec<_>>()
        };
        let ours = ["192.168.1.11:4789", "192.168.1.11:8472"];
        assert_eq!(sockets(&permitted.tunnels), ours);
        let others = [
            "192.168.1.12:4789",
            "192.168.1.12:8472",
            "192.168.1.13:8472",
        ];
        assert_eq!(sockets(&permitted.remotes), others);
        assert_eq!(permitted.any_source_port, [8472].into());
        assert_eq!(permitted.hosts.len(), 3);
    }

    #[test]
    fn hosts_that_have_no_part_in_a_network_and_this_one_send_nothing_to_it() {
        let permitted = two_networks().permitted();
        let nonmembers = permitted.nonmembers.iter();
        let texts = nonmembers.map(|it| format!("{} {} {}", it.host, it.end, it.vni));
        let wanted = [
            "192.168.1.11 192.168.1.11:4789 4097",
            "192.168.1.11 192.168.1.11:8472 4098",
            "192.168.1.13 192.168.1.11:8472 4098",
        ];
        assert_eq!(texts.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn what_an_earlier_version_noted_lets_all_hosts_send_and_its_tunnel_from_any_port() {
        let earlier = r#"{"hidden":{},"tunnels":{"n":{"end":"192.168.1.11:4789","hosts":"00"}},
                          "hosts":{"00":["192.168.1.11","192.168.1.12"]}}"#;
        let table: Table = serde_json::from_str(earlier).unwrap();
        let permitted = table.permitted();
        assert_eq!(permitted.any_source_port, [4789].into());
        assert!(permitted.nonmembers.is_empty());
        assert_eq!(permitted.hosts.len(), 2);
    }

    fn names_of(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn networks_meet_where_each_names_the_other() {
        let together = |a: &[&str], b: &[&str]| {
            let mut table = two_networks();
            table.meet("a", &names_of(a));
            table.meet("b", &names_of(b));
            let together = table.permitted().together;
            let pair = |from: String, to: String| together.contains(&(from, to));
            let (gateway, host) = (names::gateway_link, names::host_link);
            let own = pair(gateway("a"), host("a")) && pair(host("b"), gateway("b"));
            assert!(own, "{a:?} {b:?}");
            [
                pair(gateway("a"), gateway("b")) && pair(gateway("a"), host("b")),
                pair(gateway("b"), gateway("a")) && pair(host("b"), gateway("a")),
            ]
        };
        assert_eq!(together(&["b"], &["a"]), [true; 2]);
        assert_eq!(together(&["b"], &[]), [false; 2]);
        assert_eq!(together(&[], &["a"]), [false; 2]);
        assert_eq!(together(&["c"], &["c"]), [false; 2]);
    }

    #[test]
    fn what_a_conflist_lets_meet_stays_where_the_record_says_nothing() {
        let again = |record: Option<&[&str]>| {
            let mut table = two_networks();
            table.meet("a", &names_of(&["b"]));
            let reaches = record.map(names_of);
            let described = Described {
                reaches,
                ..described("192.168.1.11:4789", &["192.168.1.12"])
            };
            table.guard("a", described);
            table.reaches("a")
        };
        assert_eq!(again(None), names_of(&["b"]));
        assert_eq!(again(Some(&["c"])), names_of(&["c"]));
        assert!(again(Some(&[])).is_empty());
    }

    #[test]
    fn links_forward_to_those_of_their_own_network() {
        let together = two_networks().permitted().together;
        let pair = |from: String, to: String| together.contains(&(from, to));
        let (gateway, host) = (names::gateway_link, names::host_link);
        assert!(pair(gateway("a"), host("a")) && pair(host("b"), gateway("b")));
        assert!(pair(gateway("a"), gateway("a")) && pair(host("a"), host("a")));
        assert!(!pair(gateway("a"), gateway("b")) && !pair(host("a"), gateway("b")));
        let mut pairs = together.iter();
        assert!(pairs.all(|(from, to)| names::is_facing(from) && names::is_facing(to)));
    }
}
