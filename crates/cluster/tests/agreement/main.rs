//! Hosts against one store: what they must agree on, and what must be refused.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod handover;
mod leases;
mod networks;
mod nodes;

use std::net::IpAddr;

use cluster::{Cluster, Layout, Lease, LeaseGuard, NetworkSpec, Node};
use ipam::Range;
use store::mem::Mem;

fn cluster(store: &Mem) -> Cluster<'_> {
    Cluster::new(store, Layout::new("crosshost").unwrap())
}

fn node(name: &str) -> Node {
    let vtep = Some("192.168.1.11".parse().unwrap());
    Node {
        name: name.into(),
        vtep,
        boot_id: "boot-1".into(),
        machine_id: Some("machine-1".into()),
        last_contact: 1,
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
        ifname: "eth0".into(),
        since: 5,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn guard(cluster: &Cluster<'_>, network: &str, node: &str) -> LeaseGuard {
    let news = cluster.news(network).await.unwrap();
    let mut own = news
        .blocks
        .iter()
        .filter(|(_, block)| block.record.is_of(node));
    let (block, revision) = own.next().map(|(b, v)| (*b, v.revision)).unwrap();
    LeaseGuard {
        network: news.network.unwrap().revision,
        blocks: [(block, revision)].into(),
    }
}
