//! Which forwarding entries a sandbox should have, from the news alone. Pure.
//!
//! A container's MAC is a function of its address, and an address's host is a function of its block. So every entry
//! of every remote address can be made before any container has it, and an ADD changes nothing on other hosts.

use std::{collections::BTreeSet, net::IpAddr};

use cluster::{Network, News};
use netlink::{Change, Forward, Forwarding, Mac};

/// The MAC of the interface that has this address first: `02:42` and the address, of IPv6 its low 32 bits.
pub fn mac_of(address: IpAddr) -> Mac {
    let low = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    };
    Mac([0x02, 0x42, low[0], low[1], low[2], low[3]])
}

/// All entries that the sandbox of `network` on `node`, whose tunnel address is `vtep`, should have: for each remote
/// host with a block a flood entry, and for each address of its blocks the three that take a frame there.
///
/// A remote node with our own tunnel address is an old record of ourselves, and gets nothing.
pub fn desired(network: &Network, news: &News, node: &str, vtep: IpAddr) -> Forwarding {
    let home = |name: &str| {
        let remote = news
            .nodes
            .get(name)
            .filter(|remote| remote.record.name != node);
        remote
            .and_then(|remote| remote.record.vtep)
            .filter(|there| *there != vtep && there.is_ipv4() == vtep.is_ipv4())
    };
    let mut entries = Forwarding::new();
    if news.blocks.is_empty() {
        // A foreign IPAM plugin: nobody knows where an address lives, so every host may have any.
        entries.extend(
            news.nodes
                .keys()
                .filter_map(|name| home(name))
                .map(|vtep| Forward::Flood { vtep }),
        );
    }
    // The MAC of a pair comes from its IPv4 address, so blocks of IPv6 tell MACs only where there is no IPv4.
    let has_v4 = network
        .ranges
        .iter()
        .flatten()
        .any(|range| range.subnet.is_ipv4());
    for (block, owner) in &news.blocks {
        let Some(vtep) = home(&owner.record.node) else {
            continue;
        };
        entries.insert(Forward::Flood { vtep });
        if has_v4 && block.first().is_ipv6() {
            continue;
        }
        let offered = |address: &IpAddr| {
            network
                .ranges
                .iter()
                .flatten()
                .any(|range| range.offers(*address))
        };
        for addr in block.addresses().filter(offered) {
            let mac = mac_of(addr);
            entries.extend([
                Forward::Fdb { mac, vtep },
                Forward::Port { mac },
                Forward::Neigh { addr, mac },
            ]);
        }
    }
    entries
}

/// The steps from what the kernel has to what it should have. Nothing, if they are the same.
pub fn changes(desired: &Forwarding, present: &Forwarding) -> Vec<Change> {
    let gone: BTreeSet<_> = present.difference(desired).copied().collect();
    let removed = gone.into_iter().map(Change::Remove);
    removed
        .chain(desired.difference(present).copied().map(Change::Add))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::{BlockRecord, NetworkState, Node, Versioned};
    use ipam::Range;

    fn network() -> Network {
        Network {
            name: "n".into(),
            vni: Some(4097),
            ranges: vec![vec![Range::of("10.0.0.0/24".parse().unwrap()).unwrap()]],
            block_prefix: None,
            mtu: None,
            vxlan_port: None,
            egress: None,
            state: NetworkState::Ready,
        }
    }

    fn news(blocks: &[(&str, &str)]) -> News {
        let node = |n: u8| Node {
            name: format!("docker0{n}"),
            vtep: Some([192, 168, 1, 10 + n].into()),
            boot_id: "b".into(),
            machine_id: None,
            last_contact: 0,
        };
        let block = |(block, node): &(&str, &str)| {
            let record = BlockRecord {
                node: (*node).into(),
            };
            (
                block.parse().unwrap(),
                Versioned {
                    record,
                    revision: 1,
                },
            )
        };
        News {
            network: None,
            nodes: (1..=3)
                .map(|n| {
                    (
                        node(n).name,
                        Versioned {
                            record: node(n),
                            revision: 1,
                        },
                    )
                })
                .collect(),
            blocks: blocks.iter().map(block).collect(),
        }
    }

    fn vtep(n: u8) -> IpAddr {
        [192, 168, 1, 10 + n].into()
    }

    #[test]
    fn every_remote_address_is_known_before_anyone_has_it_and_no_local_one() {
        let news = news(&[
            ("10.0.0.0_29", "docker01"),
            ("10.0.0.8_29", "docker02"),
            ("10.0.0.248_29", "docker03"),
        ]);
        let entries = desired(&network(), &news, "docker01", vtep(1));
        // Two hosts; 8 addresses of one block and 7 of the other, whose last is the broadcast address.
        assert_eq!(entries.len(), 2 + 3 * (8 + 7));
        let mac: Mac = "02:42:0a:00:00:09".parse().unwrap();
        for entry in [
            Forward::Flood { vtep: vtep(2) },
            Forward::Fdb { mac, vtep: vtep(2) },
            Forward::Port { mac },
            Forward::Neigh {
                addr: "10.0.0.9".parse().unwrap(),
                mac,
            },
        ] {
            assert!(entries.contains(&entry), "{entry}");
        }
        let local: Mac = "02:42:0a:00:00:02".parse().unwrap();
        assert!(!entries.contains(&Forward::Port { mac: local }));
    }

    #[test]
    fn an_old_record_of_ourselves_and_an_unknown_owner_get_nothing() {
        let mut news = news(&[("10.0.0.8_29", "docker02"), ("10.0.0.16_29", "nobody")]);
        news.nodes.get_mut("docker02").unwrap().record.vtep = Some(vtep(1));
        assert!(desired(&network(), &news, "docker01", vtep(1)).is_empty());
    }

    #[test]
    fn under_a_foreign_ipam_plugin_everything_is_flooded_to_all() {
        let entries = desired(&network(), &news(&[]), "docker01", vtep(1));
        assert_eq!(
            entries,
            [
                Forward::Flood { vtep: vtep(2) },
                Forward::Flood { vtep: vtep(3) }
            ]
            .into()
        );
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let wanted = desired(
            &network(),
            &news(&[("10.0.0.8_29", "docker02")]),
            "docker01",
            vtep(1),
        );
        assert!(changes(&wanted, &wanted).is_empty());
        let steps = changes(
            &[Forward::Flood { vtep: vtep(2) }].into(),
            &[Forward::Flood { vtep: vtep(3) }].into(),
        );
        assert_eq!(
            steps,
            [
                Change::Remove(Forward::Flood { vtep: vtep(3) }),
                Change::Add(Forward::Flood { vtep: vtep(2) })
            ]
        );
    }

    #[test]
    fn macs_follow_the_address() {
        assert_eq!(
            mac_of("10.0.0.2".parse().unwrap()).to_string(),
            "02:42:0a:00:00:02"
        );
        assert_eq!(
            mac_of("fd00::a:b".parse().unwrap()).to_string(),
            "02:42:00:0a:00:0b"
        );
    }
}
