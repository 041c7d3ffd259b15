//! Which entries follow from which snapshot.

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
        reaches: None,
        reclaim_after: None,
        macvlan: None,
        conflist: false,
        labels: std::collections::BTreeMap::new(),
        state: NetworkState::Ready,
        restoring: None,
    }
}

fn versioned<T>(record: T) -> Versioned<T> {
    Versioned {
        record,
        revision: 1,
    }
}

fn snapshot(blocks: &[(&str, &str)]) -> NetworkSnapshot {
    let node = |n: u8| Node {
        name: format!("docker0{n}"),
        vtep: Some(vtep(n)),
        boot_id: "b".into(),
        machine_id: None,
        last_contact: 0,
        version: None,
        commit: None,
    };
    let nodes = (1..=3).map(|n| (node(n).name, versioned(node(n))));
    let block =
        |(block, node): &(&str, &str)| (block.parse().unwrap(), versioned(BlockRecord::of(node)));
    NetworkSnapshot {
        network: Some(versioned(network(&["10.0.0.0/24"]))),
        nodes: nodes.collect(),
        blocks: blocks.iter().map(block).collect(),
        ..NetworkSnapshot::default()
    }
}

fn vtep(n: u8) -> IpAddr {
    [192, 168, 1, 10 + n].into()
}

/// What docker01 should have.
fn wanted(snapshot: &NetworkSnapshot) -> Forwarding {
    let local = BTreeSet::new();
    desired(
        snapshot,
        "docker01",
        vtep(1),
        Trust::Homes { local: &local },
    )
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
    let snapshot = snapshot(&[
        ("10.0.0.0_29", "docker01"),
        ("10.0.0.8_29", "docker02"),
        ("10.0.0.248_29", "docker03"),
    ]);
    let entries = wanted(&snapshot);
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
    let mut snapshot = snapshot(&[("10.0.0.0_29", "docker01"), ("10.0.0.8_29", "docker02")]);
    let (address, block) = ("10.0.0.9".parse().unwrap(), "10.0.0.8_29".parse().unwrap());
    for (state, to) in [
        (ExclusionState::Asked, None),
        (ExclusionState::Granted, None),
        (ExclusionState::Given, Some(vtep(3))),
        (ExclusionState::Returned, None),
    ] {
        let exclusion = Exclusion::of("docker03", state, 0);
        let (_, owned) = snapshot
            .blocks
            .readable_mut()
            .find(|it| *it.0 == block)
            .unwrap();
        let record = &mut owned.record;
        record.exclusions.insert(address, exclusion);
        let entries = wanted(&snapshot);
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
    let mut snapshot = snapshot(&[("10.0.0.0_29", "docker01")]);
    let given = Exclusion::of("docker02", ExclusionState::Given, 0);
    let (_, block) = snapshot.blocks.readable_mut().next().unwrap();
    block
        .record
        .exclusions
        .insert("10.0.0.5".parse().unwrap(), given);
    let entries = wanted(&snapshot);
    assert_eq!(sent(&entries, "10.0.0.5"), Some(vtep(2)));
    assert_eq!(entries.len(), 1 + 3);
}

#[test]
fn a_block_without_an_owner_has_no_entries() {
    for state in [BlockState::Returned, BlockState::Reclaiming] {
        let mut snapshot = snapshot(&[("10.0.0.8_29", "docker02"), ("10.0.0.16_29", "docker03")]);
        let (_, block) = snapshot.blocks.readable_mut().next().unwrap();
        block.record.state = state;
        let entries = wanted(&snapshot);
        assert_eq!(sent(&entries, "10.0.0.9"), None, "{state:?}");
        assert_eq!(entries.len(), 1 + 3 * 8, "{state:?}: docker03's alone");
    }
}

#[test]
fn an_address_out_of_the_dynamic_range_is_its_own_claimants() {
    let mut snapshot = snapshot(&[("10.0.0.8_29", "docker02"), ("10.0.0.250_32", "docker03")]);
    let network = &mut snapshot.network.as_mut().unwrap().record;
    network.ranges[0][0].range_end = Some("10.0.0.199".parse().unwrap());
    let entries = wanted(&snapshot);
    let known = ["10.0.0.250", "10.0.0.251"].map(|address| sent(&entries, address));
    assert_eq!(known, [Some(vtep(3)), None]);
}

#[test]
fn a_pair_is_known_by_its_ipv4_address() {
    let mut snapshot = snapshot(&[("10.0.0.8_29", "docker02"), ("fd00::8_125", "docker02")]);
    snapshot.network = Some(versioned(network(&["10.0.0.0/24", "fd00::/120"])));
    assert_eq!(wanted(&snapshot).len(), 1 + 3 * 8);
    snapshot.network = Some(versioned(network(&["fd00::/120"])));
    assert_eq!(sent(&wanted(&snapshot), "fd00::9"), Some(vtep(2)));
}

#[test]
fn of_two_sets_the_first_tells_the_mac() {
    let mut snapshot = snapshot(&[("10.0.0.8_29", "docker02"), ("10.0.1.8_29", "docker02")]);
    snapshot.network = Some(versioned(network(&["10.0.0.0/24", "10.0.1.0/24"])));
    let entries = wanted(&snapshot);
    assert_eq!(sent(&entries, "10.0.0.9"), Some(vtep(2)));
    assert_eq!(sent(&entries, "10.0.1.9"), None);
}

#[test]
fn a_mac_that_two_homes_share_floods() {
    let mut snapshot = snapshot(&[
        ("fd00::8_125", "docker02"),
        ("fd01::8_125", "docker03"),
        ("fd00::10_125", "docker02"),
        ("fd01::10_125", "docker01"),
        ("fd00::18_125", "docker02"),
    ]);
    let mut network = network(&["fd00::/120", "fd01::/120"]);
    network.ranges = vec![network.ranges.concat()];
    snapshot.network = Some(versioned(network));
    let local = BTreeSet::from(["fd01::19".parse().unwrap()]);
    let entries = desired(
        &snapshot,
        "docker01",
        vtep(1),
        Trust::Homes { local: &local },
    );
    for shared in ["fd00::9", "fd01::9", "fd00::11", "fd00::19"] {
        assert_eq!(sent(&entries, shared), None, "{shared}");
    }
    assert_eq!(sent(&entries, "fd00::1a"), Some(vtep(2)));
    assert_eq!(entries.len(), 2 + 3 * 7, "two hosts, seven addresses");
}

#[test]
fn what_may_be_over_is_flooded() {
    let snapshot = snapshot(&[("10.0.0.8_29", "docker02"), ("10.0.0.16_29", "docker01")]);
    let entries = desired(&snapshot, "docker01", vtep(1), Trust::Floods);
    assert_eq!(entries, [Forward::Flood { vtep: vtep(2) }].into());
}

#[test]
fn a_container_of_this_host_is_never_remote() {
    let snapshot = snapshot(&[("10.0.0.8_29", "docker02")]);
    let local = BTreeSet::from(["10.0.0.9".parse().unwrap()]);
    let entries = desired(
        &snapshot,
        "docker01",
        vtep(1),
        Trust::Homes { local: &local },
    );
    assert_eq!(sent(&entries, "10.0.0.9"), None);
    assert_eq!(sent(&entries, "10.0.0.10"), Some(vtep(2)));
}

#[test]
fn an_old_record_of_ourselves_and_an_unknown_owner_get_nothing() {
    let mut snapshot = snapshot(&[("10.0.0.8_29", "docker02"), ("10.0.0.16_29", "nobody")]);
    let mut nodes = snapshot.nodes.readable_mut();
    let (_, second) = nodes.find(|it| it.0 == "docker02").unwrap();
    second.record.vtep = Some(vtep(1));
    drop(nodes);
    assert!(wanted(&snapshot).is_empty());
}

fn unreadable<T>(last: Option<T>) -> Stored<T> {
    Stored::Unreadable(cluster::Unreadable {
        revision: 9,
        why: "damaged".into(),
        is_newer: false,
        last,
    })
}

#[test]
fn a_block_that_cannot_be_read_floods_to_all_hosts() {
    let mut snapshot = snapshot(&[("10.0.0.0_29", "docker01"), ("10.0.0.8_29", "docker02")]);
    let block: ipam::Block = "10.0.0.8_29".parse().unwrap();
    snapshot.blocks.extend([(block, unreadable(None))]);
    let floods = [2, 3].map(|n| Forward::Flood { vtep: vtep(n) });
    assert_eq!(wanted(&snapshot), floods.into());
    assert_eq!(
        snapshot.last_dropped(),
        9,
        "its addresses have no home any more"
    );
}

#[test]
fn a_node_that_cannot_be_read_is_reached_where_it_was_last() {
    let mut snapshot = snapshot(&[("10.0.0.8_29", "docker02")]);
    let before = wanted(&snapshot);
    let last = snapshot.nodes["docker02"].record.clone();
    let name = || "docker02".to_owned();
    snapshot.nodes.extend([(name(), unreadable(None))]);
    assert_eq!(wanted(&snapshot), Forwarding::new(), "an unknown peer");
    snapshot.nodes.extend([(name(), unreadable(Some(last)))]);
    assert_eq!(wanted(&snapshot), before);
}

#[test]
fn a_gateway_is_never_remote_whoever_owns_its_block() {
    let mut entries = wanted(&snapshot(&[("10.0.0.0_29", "docker02")]));
    let (gateway, before) = ("10.0.0.1".parse().unwrap(), entries.len());
    assert_eq!(sent(&entries, "10.0.0.1"), None);
    answered_here(&mut entries, &[gateway].into(), mac_of(gateway));
    let of_it = |entry: &&Forward| match entry {
        Forward::Flood { .. } => false,
        Forward::Fdb { mac, .. }
        | Forward::Port { mac }
        | Forward::Loose { mac }
        | Forward::Neigh { mac, .. } => *mac == mac_of(gateway),
    };
    let known: Vec<_> = entries.iter().filter(of_it).copied().collect();
    let neighbour = Forward::Neigh {
        addr: gateway,
        mac: mac_of(gateway),
    };
    assert_eq!(known, [neighbour]);
    assert_eq!(entries.len(), before + 1, "all others stay");
}

#[test]
fn under_a_foreign_ipam_plugin_everything_is_flooded_to_all() {
    let floods = [2, 3].map(|n| Forward::Flood { vtep: vtep(n) });
    assert_eq!(wanted(&snapshot(&[])), floods.into());
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    let wanted = wanted(&snapshot(&[("10.0.0.8_29", "docker02")]));
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
fn a_mac_that_was_asked_for_is_known_and_answers_for_its_address_itself() {
    let (addr, asked) = ("10.0.0.9".parse().unwrap(), Mac([2, 1, 2, 3, 4, 5]));
    let mut snapshot = snapshot(&[("10.0.0.8_29", "docker02"), ("10.0.0.16_29", "docker03")]);
    let before = wanted(&snapshot);
    let lease = cluster::Lease {
        node: "docker02".to_owned(),
        boot_id: "b".to_owned(),
        container: "c".to_owned(),
        container_name: None,
        ifname: "eth0".to_owned(),
        since: 0,
        mac: Some(ipam::Mac(asked.0)),
    };
    let record = cluster::MacRecord {
        lease,
        addresses: vec![addr],
        returned: false,
    };
    snapshot.macs.insert(ipam::Mac(asked.0), versioned(record));
    let vtep = vtep(2);
    let steps = [
        Change::Remove(Forward::Neigh {
            addr,
            mac: mac_of(addr),
        }),
        Change::Add(Forward::Fdb { mac: asked, vtep }),
        Change::Add(Forward::Port { mac: asked }),
    ];
    let found = changes(&wanted(&snapshot), &before);
    assert!(
        steps.iter().all(|step| found.contains(step)) && found.len() == 3,
        "{found:?}"
    );
    let here = [(ipam::Mac::of(addr), ipam::Mac(asked.0))].into();
    assert_eq!(translations(&snapshot, "docker02"), here);
    assert_eq!(translations(&snapshot, "docker01"), Translations::new());
    // Of another node's address by now, or given back, it is none.
    let record = &mut snapshot.macs.readable_mut().next().unwrap().1.record;
    record.lease.node = "docker03".to_owned();
    assert_eq!(wanted(&snapshot), before);
    let record = &mut snapshot.macs.readable_mut().next().unwrap().1.record;
    record.lease.node = "docker02".to_owned();
    record.returned = true;
    assert_eq!(wanted(&snapshot), before);
}
