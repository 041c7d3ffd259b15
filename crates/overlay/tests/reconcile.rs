//! Random records, random damage: one pass of reconcile reaches what the records say, a second one has nothing to do.
//!
//! The kernel is modelled by what tells its entries apart: a MAC has one VTEP, an address one MAC. Its real part is in
//! `crates/netlink/tests/kernel/reconcile.rs`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cluster::{
    BlockRecord, BlockState, Exclusion, ExclusionState, Network, NetworkSnapshot, NetworkState,
    Node, Versioned,
};
use ipam::{Block, Range};
use netlink::{Change, Forward, Forwarding, Mac};
use overlay::segment::forwarding::{Trust, changes, desired, mac_of};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

/// The first is the node that computes; the last has no record any more.
const HOSTS: [&str; 5] = ["host00", "host01", "host02", "host03", "host04"];

/// Networks by their ranges, each with subnets of 32 addresses. The last has addresses of equal low 32 bits.
const SUBNETS: [&[&str]; 4] = [
    &["10.0.0.0/27"],
    &["fd00::/123"],
    &["10.0.0.0/27", "fd00::/123"],
    &["fd00::/123", "fd01::/123"],
];

fn vtep(host: u8) -> IpAddr {
    [192, 168, 1, 10 + host].into()
}

/// A host's VTEP as its record has it: mostly its own, and what a record can be wrong in.
fn recorded_vtep(host: u8) -> impl Strategy<Value = Option<IpAddr>> {
    let other_family: IpAddr = [0xfd09, 0, 0, 0, 0, 0, 0, host.into()].into();
    prop_oneof![
        8 => Just(Some(vtep(host))),
        1 => Just(None),
        1 => Just(Some(vtep(0))),
        1 => Just(Some(other_family)),
    ]
}

fn versioned<T>(record: T) -> Versioned<T> {
    Versioned {
        record,
        revision: 1,
    }
}

fn node(name: &str, vtep: Option<IpAddr>) -> (String, Versioned<Node>) {
    let node = Node {
        name: name.into(),
        vtep,
        boot_id: "b".into(),
        machine_id: None,
        last_contact: 0,
        version: None,
        commit: None,
    };
    (name.into(), versioned(node))
}

fn network(subnets: &[&str]) -> Network {
    let range = |subnet: &&str| {
        let mut range = Range::of(subnet.parse().unwrap()).unwrap();
        // The last few addresses are claimed one by one.
        range.range_end = ipam::nth(range.subnet.ip(), 27);
        range.check().unwrap()
    };
    // A container has one address of each set.
    let ranges: Vec<Range> = subnets.iter().map(range).collect();
    let sets = ranges.chunk_by(|one, next| one.subnet.is_ipv4() == next.subnet.is_ipv4());
    Network {
        name: "n".into(),
        id: None,
        vni: Some(4097),
        ranges: sets.map(<[Range]>::to_vec).collect(),
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

/// Every address of the network, and every block that somebody can claim.
fn room(network: &Network) -> (Vec<IpAddr>, Vec<Block>) {
    let subnets = network.subnets().into_iter();
    let addresses: Vec<IpAddr> = subnets
        .filter_map(|net| Block::containing(net.ip(), net.prefix()))
        .flat_map(Block::addresses)
        .collect();
    let block = |address: &IpAddr| network.block_of(network.range_of(*address)?, *address);
    let blocks: BTreeSet<Block> = addresses.iter().filter_map(block).collect();
    (addresses, blocks.into_iter().collect())
}

fn record(block: Block) -> impl Strategy<Value = (Block, Versioned<BlockRecord>)> {
    let state = prop_oneof![
        6 => Just(BlockState::Owned),
        1 => Just(BlockState::Returned),
        1 => Just(BlockState::Reclaiming),
    ];
    let stages = vec![
        ExclusionState::Asked,
        ExclusionState::Granted,
        ExclusionState::Given,
        ExclusionState::Returned,
    ];
    let addresses: Vec<IpAddr> = block.addresses().collect();
    let most = addresses.len().min(2);
    let apart = subsequence(addresses, 0..=most);
    let to = || (select(&HOSTS[..]), select(stages.clone()));
    let exclusions = (apart, [to(), to()]);
    (select(&HOSTS[..]), state, exclusions).prop_map(move |(owner, state, (apart, to))| {
        let mut record = BlockRecord::of(owner);
        record.state = state;
        let exclusions = apart.into_iter().zip(to);
        record.exclusions = exclusions
            .map(|(address, (node, stage))| (address, Exclusion::of(node, stage, 0)))
            .collect();
        (block, versioned(record))
    })
}

/// News, and the addresses that containers of this host have.
fn snapshot() -> impl Strategy<Value = (NetworkSnapshot, BTreeSet<IpAddr>)> {
    select(&SUBNETS[..]).prop_flat_map(|subnets| {
        let network = network(subnets);
        let (addresses, blocks) = room(&network);
        let most = blocks.len();
        let blocks = subsequence(blocks, 0..=most)
            .prop_flat_map(|blocks| blocks.into_iter().map(record).collect::<Vec<_>>());
        let vteps = [recorded_vtep(1), recorded_vtep(2), recorded_vtep(3)];
        let local = subsequence(addresses, 0..=4);
        (blocks, vteps, local).prop_map(move |(blocks, vteps, local)| {
            let others = HOSTS[1..].iter().zip(vteps);
            let others = others.map(|(name, vtep)| node(name, vtep));
            let snapshot = NetworkSnapshot {
                network: Some(versioned(network.clone())),
                nodes: others.chain([node(HOSTS[0], Some(vtep(0)))]).collect(),
                blocks: blocks.into_iter().collect(),
                macs: cluster::Records::default(),
            };
            (snapshot, local.into_iter().collect())
        })
    })
}

/// An entry of the same few MACs, addresses and VTEPs: one of ours, one gone wrong, or nobody's.
fn any_entry() -> impl Strategy<Value = Forward> {
    let address = (0u8..4, 0u8..40).prop_map(|(kind, n)| -> IpAddr {
        match kind {
            0 | 1 => [10, 0, 0, n].into(),
            _ => [0xfcfe + u16::from(kind), 0, 0, 0, 0, 0, 0, n.into()].into(),
        }
    });
    (address.clone(), address, 0u8..8, 0u8..4).prop_map(|(one, addr, host, kind)| {
        let (mac, vtep) = (mac_of(one), vtep(host));
        match kind {
            0 => Forward::Flood { vtep },
            1 => Forward::Fdb { mac, vtep },
            2 => Forward::Port { mac },
            _ => Forward::Neigh { addr, mac },
        }
    })
}

/// The kernel's tables.
#[derive(Debug, Clone, Default)]
struct Kernel(Forwarding);

impl Kernel {
    /// As `netlink::Rtnl::change` promises: in any order, and an `Add` wins.
    fn change(&mut self, mut steps: Vec<Change>, first: Index, backwards: bool) {
        if steps.is_empty() {
            return;
        }
        let middle = first.index(steps.len());
        steps.rotate_left(middle);
        if backwards {
            steps.reverse();
        }
        for step in &steps {
            match step {
                Change::Add(entry) => self.add(*entry),
                Change::Remove(entry) => {
                    let instead =
                        |step: &Change| matches!(step, Change::Add(new) if same(new, entry));
                    if !steps.iter().any(instead) {
                        self.remove(entry);
                    }
                }
            }
        }
    }

    fn add(&mut self, entry: Forward) {
        self.0.retain(|old| !same(old, &entry));
        self.0.insert(entry);
    }

    /// The MAC of a neighbour is not compared, the VTEP of an FDB entry is.
    fn remove(&mut self, entry: &Forward) {
        if let Forward::Neigh { .. } = entry {
            self.0.retain(|old| !same(old, entry));
        } else {
            self.0.remove(entry);
        }
    }
}

/// Whether one takes the place of the other.
fn same(one: &Forward, other: &Forward) -> bool {
    match (one, other) {
        (Forward::Fdb { mac: one, .. }, Forward::Fdb { mac: other, .. }) => one == other,
        (Forward::Neigh { addr: one, .. }, Forward::Neigh { addr: other, .. }) => one == other,
        _ => one == other,
    }
}

/// No entry sends a frame to a host that has not the address, or away from a container that is here.
fn nothing_goes_astray(
    snapshot: &NetworkSnapshot,
    local: &BTreeSet<IpAddr>,
    entries: &Forwarding,
) -> Result<(), TestCaseError> {
    let fdb = entries.iter().filter_map(|entry| match entry {
        Forward::Fdb { mac, vtep } => Some((*mac, *vtep)),
        _ => None,
    });
    let sent: BTreeMap<Mac, IpAddr> = fdb.collect();
    let here: BTreeSet<Mac> = local.iter().map(|address| mac_of(*address)).collect();
    for entry in entries {
        match entry {
            Forward::Flood { vtep: to } => prop_assert_ne!(*to, vtep(0)),
            Forward::Port { mac } | Forward::Loose { mac } | Forward::Fdb { mac, .. } => {
                prop_assert!(sent.contains_key(mac), "{} without a host", entry);
                prop_assert!(!here.contains(mac), "{} is a container's here", entry);
            }
            Forward::Neigh { addr, mac } => {
                prop_assert_eq!(*mac, mac_of(*addr));
                let home = snapshot
                    .home(*addr)
                    .and_then(|home| snapshot.nodes.known(home));
                let home = home.and_then(|home| home.record.vtep);
                prop_assert!(home.is_some(), "{} has no home", entry);
                prop_assert_eq!(sent.get(mac).copied(), home, "{}", entry);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn one_pass_reaches_what_the_records_say_and_a_second_changes_nothing(
        (snapshot, local) in snapshot(),
        floods: bool,
        kept in proptest::collection::vec(any::<bool>(), 1..40),
        foreign in proptest::collection::vec(any_entry(), 0..60),
        first: Index,
        backwards: bool,
    ) {
        let trust = if floods { Trust::Floods } else { Trust::Homes { local: &local } };
        let wanted = desired(&snapshot, HOSTS[0], vtep(0), trust);
        nothing_goes_astray(&snapshot, &local, &wanted)?;

        let mut kernel = Kernel::default();
        let kept = wanted.iter().zip(kept.iter().cycle());
        let kept = kept.filter_map(|(entry, kept)| kept.then_some(*entry));
        for entry in kept.chain(foreign) {
            kernel.add(entry);
        }
        kernel.change(changes(&wanted, &kernel.0), first, backwards);
        prop_assert_eq!(&kernel.0, &wanted);
        prop_assert_eq!(changes(&wanted, &kernel.0), vec![]);
    }
}
