//! A key in the store that anybody may have written: what is read below each of our prefixes is called as this version calls
//! it, a block is one that the network can have, no walk is longer than the pool, and what is overlooked
//! is told.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use cluster::{Cluster, Layout, NetworkSpec, Node};
use ipam::Range;
use store::{Key, Store as _, mem::Mem};

/// The prefixes, and a value that is a record of each.
const FOLDERS: [(&str, &str); 6] = [
    (
        "nodes",
        r#"{"schema":1,"name":"n","bootID":"b","lastContact":1}"#,
    ),
    ("blocks/n", r#"{"schema":1,"node":"docker01"}"#),
    (
        "leases/n",
        r#"{"schema":1,"node":"docker01","bootID":"b","containerID":"c","ifname":"eth0","since":1}"#,
    ),
    ("ledgers/n", r#"{"schema":1,"bootID":"b"}"#),
    ("acks/n", r#"{"schema":1,"bootID":"b","seen":1}"#),
    ("vnis", r#"{"schema":1,"network":"n"}"#),
];
/// Addresses of the two pools.
const POOL: usize = 256 + 16;

/// Holds any name below each prefix to that.
pub fn check(name: &[u8]) {
    let Ok(name) = std::str::from_utf8(name) else {
        return;
    };
    for (folder, value) in FOLDERS {
        if let Ok(key) = Key::new(format!("p/v1/{folder}/{name}")) {
            now(read(folder, name, &key, value));
        }
    }
}

async fn read(folder: &str, name: &str, key: &Key, value: &str) {
    let store = Mem::new();
    let cluster = Cluster::new(&store, Layout::new("p").expect("a prefix"));
    let node = Node {
        name: "docker01".to_owned(),
        vtep: Some([192, 168, 1, 11].into()),
        boot_id: "b".to_owned(),
        machine_id: None,
        last_contact: 1,
        version: None,
        commit: None,
    };
    cluster.register(&node).await.expect("registered");
    let set = |subnet: &str| {
        let subnet = subnet.parse().expect("a subnet");
        vec![Range::of(subnet).expect("a range")]
    };
    let spec = NetworkSpec {
        name: "n".to_owned(),
        segment: true,
        ranges: vec![set("10.0.0.0/24"), set("fd00::/124")],
        ..NetworkSpec::default()
    };
    cluster.create_network(&spec).await.expect("created");
    // One that is there already is as good.
    let written = store
        .create(key, value.as_bytes())
        .await
        .expect("the store");

    let snapshot = cluster.snapshot("n").await.expect("a snapshot");
    let network = &snapshot.network.as_ref().expect("the network").record;
    for (block, _) in &snapshot.blocks {
        assert!(network.has_block(*block), "{block}");
        assert!(block.size() <= 256, "{block}");
    }
    assert!(snapshot.homes().count() <= POOL);
    let leases = cluster.leases("n").await.expect("leases");
    let node_view = cluster.node_view("docker01").await.expect("a survey");
    assert_eq!(node_view.nodes, snapshot.nodes);
    let is_read = match folder {
        "nodes" => snapshot.nodes.contains(name),
        "blocks/n" => {
            let mut blocks = snapshot.blocks.keys().map(ToString::to_string);
            let mut macs = snapshot.macs.keys().map(ToString::to_string);
            blocks.any(|block| block == name) || macs.any(|mac| mac == name)
        }
        "leases/n" => leases.keys().any(|address| address.to_string() == name),
        _ => return,
    };
    let unusable = cluster.unusable_keys().await.expect("keys");
    let is_told = unusable.iter().any(|it| it.key == key.as_str());
    assert!(
        is_read || is_told || written.is_none(),
        "{key}: {unusable:?}"
    );
}

/// What needs no waiting.
fn now<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("memory does not wait"),
    }
}
