//! What containers left that are gone without a DEL: the watcher sweeps it within a minute, as `crosshost gc` would, and nothing else.

use std::time::Duration;

use crate::portmap::published::{self, Published, fetch_at, port};
use crate::portmap::reserved::reserved;
use crate::store_reader::leased;
use integration::{Backend, Host, LIMIT, Lab, until};
use serde_json::json;

const MINUTE: Duration = Duration::from_mins(1);

/// The host's ports that are published, in order.
fn ports(host: &Host) -> Vec<u64> {
    let listed = host.listed("port ls");
    let listed = listed.as_array().expect("a list").iter();
    let mut ports: Vec<_> = listed.filter_map(|it| it["hostPort"].as_u64()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn ports_and_addresses_of_containers_that_are_gone_are_swept_and_what_lives_stays() {
    let lab = Lab::new(2, Backend::Consul);
    let host = lab.host(1);
    host.sync();
    host.install(&published::network("overlay", "ov", 1));
    host.install(&published::network("bridge", "br", 2));
    let mut watcher = host.watch();
    let of =
        |name, network, number| Published::new(host, name, network, &json!([port(number, 80)]));
    let (dead, lives) = (of("dead", "ov", 8001), of("lives", "ov", 8002));
    let (dead_br, lives_br) = (of("dead-br", "br", 8003), of("lives-br", "br", 8004));
    // A process keeps its namespace, though its path is gone.
    let held = of("held", "br", 8005);
    let net = held.container.net();
    let _servers = [&lives, &lives_br].map(|one| one.serves(80));
    until(LIMIT, "reserved", || reserved(host).len() == 10);

    for gone in [&dead, &dead_br, &held] {
        gone.container.remove();
    }
    watcher.until(MINUTE, "swept", || ports(host) == [8002, 8004, 8005]);
    watcher.until(MINUTE, "released", || leased(&lab, "ov").len() == 2);
    until(LIMIT, "reserved no more", || reserved(host).len() == 6);
    assert_eq!(
        watcher.times_said("its container is gone"),
        2,
        "{}",
        watcher.said()
    );
    for (number, name) in [(8002, "lives "), (8004, "lives-br ")] {
        let page = fetch_at(lab.host(2).namespace(), host.vtep(), number);
        assert!(page.starts_with(name), "{number}: {page}");
    }
    lives.again("check").ok();
    lives_br.again("check").ok();
    assert_eq!(host.crosshost("gc").ok().stdout, "", "nothing is left");

    drop(net);
    until(LIMIT, "noticed", || {
        let listed = host.crosshost("gc --dry-run").ok().stdout;
        listed.contains("network br: /run/netns/held is gone")
    });
    let said = host.crosshost("gc").ok();
    said.says(&["network br: /run/netns/held is gone"]);
    assert_eq!(ports(host), [8002, 8004]);
    // A runtime that sends DEL after all.
    for late in [&dead, &dead_br, &held] {
        late.again("del").ok();
    }
    lives.again("del").ok();
    lives_br.again("del").ok();
    watcher.stop().ok();
    assert_eq!(published::rules(host), "");
    for network in ["ov", "br"] {
        assert!(leased(&lab, network).is_empty(), "{network}");
    }
}
