//! Which forwarding entries a sandbox should have, from the news alone. Pure.
//!
//! A container's MAC is a function of its address, and an address's home is that of its block, but for the few addresses
//! that changed hands one by one. So every entry of every remote address can be made before any container has it, and
//! an ADD changes nothing on other hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use cluster::News;
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

/// How far news can be relied on.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Nobody waits for this host before an address of these news changes its home: what they say of homes may be over.
    Floods,
    /// Nothing changes its home before this host has dropped it.
    Homes {
        /// Addresses that containers of this host have, whatever the news say.
        local: &'a BTreeSet<IpAddr>,
    },
}

/// The tunnel address of a node, unless it is this one or cannot be reached from its own tunnel address. A remote node
/// with our own is an old record of ourselves.
fn away(news: &News, node: &str, vtep: IpAddr, name: &str) -> Option<IpAddr> {
    let remote = news
        .nodes
        .get(name)
        .filter(|remote| remote.record.name != node);
    remote
        .and_then(|remote| remote.record.vtep)
        .filter(|there| *there != vtep && there.is_ipv4() == vtep.is_ipv4())
}

/// The tunnel addresses of the other hosts that have addresses of the network.
pub fn peers(news: &News, node: &str, vtep: IpAddr) -> BTreeSet<IpAddr> {
    let away = |name: &str| away(news, node, vtep, name);
    if news.blocks.is_empty() {
        // A foreign IPAM plugin: nobody knows where an address lives, so every host may have any.
        return news.nodes.keys().filter_map(|name| away(name)).collect();
    }
    news.owners().filter_map(away).collect()
}

/// The MACs that addresses of more than one home have. IPv4 tells each address by its MAC, IPv6 by its low 32 bits only.
fn shared<'n>(homes: impl Iterator<Item = (IpAddr, Option<&'n str>)>) -> BTreeSet<Mac> {
    let mut known = BTreeMap::new();
    let macs = homes.map(|(address, home)| (mac_of(address), home));
    macs.filter(|(mac, home)| {
        known
            .insert(*mac, *home)
            .is_some_and(|other| other != *home)
    })
    .map(|(mac, _)| mac)
    .collect()
}

/// All entries that the sandbox on `node`, whose tunnel address is `vtep`, should have: for each remote host with an
/// address of the network a flood entry, and for each of its addresses the three that take a frame there.
///
/// An address that changes hands has no entry, nor has one whose MAC an address of another home has: an entry would take
/// the frames of both to one of the two. They flood.
pub fn desired(news: &News, node: &str, vtep: IpAddr, trust: Trust<'_>) -> Forwarding {
    let away = |name: &str| away(news, node, vtep, name);
    let floods = peers(news, node, vtep).into_iter();
    let mut entries: Forwarding = floods.map(|vtep| Forward::Flood { vtep }).collect();
    let Trust::Homes { local } = trust else {
        return entries;
    };
    // The MAC of a pair comes from its IPv4 address, so addresses of IPv6 tell MACs only where there is no IPv4.
    let networks = news.network.iter();
    let has_v4 = networks
        .flat_map(|network| network.record.subnets())
        .any(|subnet| subnet.is_ipv4());
    let silent = |address: IpAddr| local.contains(&address) || (has_v4 && address.is_ipv6());
    let homes = || news.homes().filter(|(address, _)| !silent(*address));
    let shared = if has_v4 {
        BTreeSet::new()
    } else {
        let here = local.iter().map(|address| (*address, None));
        shared(here.chain(homes().map(|(address, home)| (address, Some(home)))))
    };
    for (addr, home) in homes() {
        let mac = mac_of(addr);
        if let Some(vtep) = away(home).filter(|_| !shared.contains(&mac)) {
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
    use cluster::{
        BlockRecord, BlockState, Exclusion, ExclusionState, Network, NetworkState, Node, Versioned,
    };
    use ipam::Range;

    fn network(ranges: &[&str]) -> Network {
        Network {
            name: "n".into(),
            id: None,
            vni: Some(4097),
            ranges: ranges
                .iter()
                .map(|subnet| vec![Range::of(subnet.parse().unwrap()).unwrap()])
                .collect(),
            block_prefix: None,
            mtu: None,
            vxlan_port: None,
            egress: None,
            reclaim_after: None,
            state: NetworkState::Ready,
        }
    }

    fn versioned<T>(record: T) -> Versioned<T> {
        Versioned {
            record,
            revision: 1,
        }
    }

    fn news(blocks: &[(&str, &str)]) -> News {
        let node = |n: u8| Node {
            name: format!("docker0{n}"),
            vtep: Some(vtep(n)),
            boot_id: "b".into(),
            machine_id: None,
            last_contact: 0,
        };
        let nodes = (1..=3).map(|n| (node(n).name, versioned(node(n))));
        let block = |(block, node): &(&str, &str)| {
            (block.parse().unwrap(), versioned(BlockRecord::of(node)))
        };
        News {
            network: Some(versioned(network(&["10.0.0.0/24"]))),
            nodes: nodes.collect(),
            blocks: blocks.iter().map(block).collect(),
        }
    }

    fn vtep(n: u8) -> IpAddr {
        [192, 168, 1, 10 + n].into()
    }

    /// What docker01 should have.
    fn wanted(news: &News) -> Forwarding {
        let local = BTreeSet::new();
        desired(news, "docker01", vtep(1), Trust::Homes { local: &local })
    }

    /// Where docker01 sends what is for `address`.
    fn sent(entries: &Forwarding, address: &str) -> Option<IpAddr> {
        let addr = address.parse().unwrap();
        let mac = mac_of(addr);
        let to = entries.iter().find_map(|entry| match entry {
            Forward::Fdb { mac: known, vtep } if *known == mac => Some(*vtep),
            _ => None,
        });
        for part in [Forward::Port { mac }, Forward::Neigh { addr, mac }] {
            assert_eq!(entries.contains(&part), to.is_some(), "{part}");
        }
        to
    }

    #[test]
    fn every_remote_address_is_known_before_anyone_has_it_and_no_local_one() {
        let news = news(&[
            ("10.0.0.0_29", "docker01"),
            ("10.0.0.8_29", "docker02"),
            ("10.0.0.248_29", "docker03"),
        ]);
        let entries = wanted(&news);
        // Two hosts; 8 addresses of one block and 7 of the other, whose last is the broadcast address.
        assert_eq!(entries.len(), 2 + 3 * (8 + 7));
        for owner in [2, 3] {
            assert!(entries.contains(&Forward::Flood { vtep: vtep(owner) }));
        }
        let known = ["10.0.0.9", "10.0.0.254", "10.0.0.255", "10.0.0.2"];
        let known = known.map(|address| sent(&entries, address));
        assert_eq!(known, [Some(vtep(2)), Some(vtep(3)), None, None]);
    }

    #[test]
    fn an_address_that_changes_hands_floods_until_it_is_given() {
        let mut news = news(&[("10.0.0.0_29", "docker01"), ("10.0.0.8_29", "docker02")]);
        let (address, block) = ("10.0.0.9".parse().unwrap(), "10.0.0.8_29".parse().unwrap());
        for (state, to) in [
            (ExclusionState::Asked, None),
            (ExclusionState::Granted, None),
            (ExclusionState::Given, Some(vtep(3))),
            (ExclusionState::Returned, None),
        ] {
            let exclusion = Exclusion::of("docker03", state, 0);
            let record = &mut news.blocks.get_mut(&block).unwrap().record;
            record.exclusions.insert(address, exclusion);
            let entries = wanted(&news);
            assert_eq!(sent(&entries, "10.0.0.9"), to, "{state:?}");
            assert_eq!(sent(&entries, "10.0.0.10"), Some(vtep(2)), "the others");
            assert!(entries.contains(&Forward::Flood { vtep: vtep(2) }));
            // Only a node that has an address of the network is to hear its broadcasts.
            let third = Forward::Flood { vtep: vtep(3) };
            assert_eq!(entries.contains(&third), to.is_some(), "{state:?}");
        }
    }

    #[test]
    fn an_address_of_ours_that_was_given_away_goes_to_its_new_home() {
        let mut news = news(&[("10.0.0.0_29", "docker01")]);
        let given = Exclusion::of("docker02", ExclusionState::Given, 0);
        let block = news.blocks.values_mut().next().unwrap();
        block
            .record
            .exclusions
            .insert("10.0.0.5".parse().unwrap(), given);
        let entries = wanted(&news);
        assert_eq!(sent(&entries, "10.0.0.5"), Some(vtep(2)));
        assert_eq!(entries.len(), 1 + 3);
    }

    #[test]
    fn a_block_without_an_owner_has_no_entries() {
        for state in [BlockState::Returned, BlockState::Reclaiming] {
            let mut news = news(&[("10.0.0.8_29", "docker02"), ("10.0.0.16_29", "docker03")]);
            let block = news.blocks.values_mut().next().unwrap();
            block.record.state = state;
            let entries = wanted(&news);
            assert_eq!(sent(&entries, "10.0.0.9"), None, "{state:?}");
            assert_eq!(entries.len(), 1 + 3 * 8, "{state:?}: docker03's alone");
        }
    }

    #[test]
    fn an_address_out_of_the_dynamic_range_is_its_own_claimants() {
        let mut news = news(&[("10.0.0.8_29", "docker02"), ("10.0.0.250_32", "docker03")]);
        let network = &mut news.network.as_mut().unwrap().record;
        network.ranges[0][0].range_end = Some("10.0.0.199".parse().unwrap());
        let entries = wanted(&news);
        let known = ["10.0.0.250", "10.0.0.251"].map(|address| sent(&entries, address));
        assert_eq!(known, [Some(vtep(3)), None]);
    }

    #[test]
    fn a_pair_is_known_by_its_ipv4_address() {
        let mut news = news(&[("10.0.0.8_29", "docker02"), ("fd00::8_125", "docker02")]);
        news.network = Some(versioned(network(&["10.0.0.0/24", "fd00::/120"])));
        assert_eq!(wanted(&news).len(), 1 + 3 * 8);
        news.network = Some(versioned(network(&["fd00::/120"])));
        assert_eq!(sent(&wanted(&news), "fd00::9"), Some(vtep(2)));
    }

    #[test]
    fn a_mac_that_two_homes_share_floods() {
        let mut news = news(&[
            ("fd00::8_125", "docker02"),
            ("fd01::8_125", "docker03"),
            ("fd00::10_125", "docker02"),
            ("fd01::10_125", "docker01"),
            ("fd00::18_125", "docker02"),
        ]);
        news.network = Some(versioned(network(&["fd00::/120", "fd01::/120"])));
        let local = BTreeSet::from(["fd01::19".parse().unwrap()]);
        let entries = desired(&news, "docker01", vtep(1), Trust::Homes { local: &local });
        for shared in ["fd00::9", "fd01::9", "fd00::11", "fd00::19"] {
            assert_eq!(sent(&entries, shared), None, "{shared}");
        }
        assert_eq!(sent(&entries, "fd00::1a"), Some(vtep(2)));
        assert_eq!(entries.len(), 2 + 3 * 7, "two hosts, seven addresses");
    }

    #[test]
    fn what_may_be_over_is_flooded() {
        let news = news(&[("10.0.0.8_29", "docker02"), ("10.0.0.16_29", "docker01")]);
        let entries = desired(&news, "docker01", vtep(1), Trust::Floods);
        assert_eq!(entries, [Forward::Flood { vtep: vtep(2) }].into());
    }

    #[test]
    fn a_container_of_this_host_is_never_remote() {
        let news = news(&[("10.0.0.8_29", "docker02")]);
        let local = BTreeSet::from(["10.0.0.9".parse().unwrap()]);
        let entries = desired(&news, "docker01", vtep(1), Trust::Homes { local: &local });
        assert_eq!(sent(&entries, "10.0.0.9"), None);
        assert_eq!(sent(&entries, "10.0.0.10"), Some(vtep(2)));
    }

    #[test]
    fn an_old_record_of_ourselves_and_an_unknown_owner_get_nothing() {
        let mut news = news(&[("10.0.0.8_29", "docker02"), ("10.0.0.16_29", "nobody")]);
        news.nodes.get_mut("docker02").unwrap().record.vtep = Some(vtep(1));
        assert!(wanted(&news).is_empty());
    }

    #[test]
    fn under_a_foreign_ipam_plugin_everything_is_flooded_to_all() {
        let floods = [2, 3].map(|n| Forward::Flood { vtep: vtep(n) });
        assert_eq!(wanted(&news(&[])), floods.into());
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let wanted = wanted(&news(&[("10.0.0.8_29", "docker02")]));
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
