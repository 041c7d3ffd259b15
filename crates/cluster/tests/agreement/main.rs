//! Several hosts with one store: what they must agree on, and what must be refused.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

/// What a call gives that must succeed.
macro_rules! ok {
    ($call:expr) => {
        $call.await.unwrap()
    };
}

/// Why a call failed that must fail.
macro_rules! err {
    ($call:expr) => {
        $call.await.unwrap_err()
    };
}

mod changes;
mod exclusions;
mod handover;
mod leases;
mod macs;
mod networks;
mod nodes;
mod removal;

use std::{net::IpAddr, time::Duration};

use cluster::{Cluster, Layout, Lease, LeaseGuard, NetworkSnapshot, NetworkSpec, Node, Versioned};
use ipam::{Block, Range};
use store::mem::Mem;

fn cluster(store: &Mem) -> Cluster<'_> {
    Cluster::new(store, Layout::new("crosshost").unwrap())
}

/// A store with these nodes, which lasts until the process ends.
async fn with_nodes(names: &[&str]) -> (&'static Mem, Cluster<'static>) {
    let store: &Mem = Box::leak(Box::new(Mem::new()));
    let cluster = cluster(store);
    for name in names {
        ok!(cluster.register(&node(name)));
    }
    (store, cluster)
}

fn node(name: &str) -> Node {
    let vtep = Some("192.168.1.11".parse().unwrap());
    Node {
        name: name.into(),
        vtep,
        boot_id: "boot-1".into(),
        machine_id: Some("machine-1".into()),
        last_contact: 1,
        version: Some("1.0.0".into()),
        commit: Some("cafe0001".into()),
    }
}

fn spec(name: &str, subnet: &str) -> NetworkSpec {
    let ranges = vec![vec![Range::of(subnet.parse().unwrap()).unwrap()]];
    NetworkSpec {
        name: name.into(),
        segment: true,
        ranges,
        ..NetworkSpec::default()
    }
}

fn lease(node: &str, container: &str) -> Lease {
    Lease {
        node: node.into(),
        boot_id: "boot-1".into(),
        container: container.into(),
        container_name: None,
        ifname: "eth0".into(),
        mac: None,
        since: 5,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn guard(cluster: &Cluster<'_>, network: &str, node: &str) -> LeaseGuard {
    let snapshot = cluster.snapshot(network).await.unwrap();
    let mut own = snapshot
        .blocks
        .readable()
        .filter(|(_, block)| block.record.is_of(node));
    let (block, revision) = own.next().map(|(b, v)| (*b, v.revision)).unwrap();
    LeaseGuard {
        network: snapshot.network.unwrap().revision,
        blocks: [(block, revision)].into(),
        held: false,
    }
}

const NOW: Duration = Duration::ZERO;

/// A network on three nodes that all keep a ledger; returns its snapshot.
async fn three(cluster: &Cluster<'_>, spec: &NetworkSpec) -> NetworkSnapshot {
    for name in ["n1", "n2", "n3"] {
        cluster.register(&node(name)).await.unwrap();
    }
    cluster.create_network(spec).await.unwrap();
    for name in ["n1", "n2", "n3"] {
        cluster.keep_ledger("a", name, "boot-1").await.unwrap();
    }
    cluster.snapshot("a").await.unwrap()
}

fn with_id(subnet: &str) -> NetworkSpec {
    NetworkSpec {
        id: Some("first".into()),
        ..spec("a", subnet)
    }
}

fn block_of(snapshot: &NetworkSnapshot, node: &str) -> (Block, Versioned<cluster::BlockRecord>) {
    let mut own = snapshot
        .blocks
        .readable()
        .filter(|(_, block)| block.record.is_of(node));
    own.next()
        .map(|(block, present)| (*block, present.clone()))
        .unwrap()
}
