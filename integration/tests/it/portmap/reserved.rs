//! The watcher reserves each published port by a socket, so that programs which look at the host's sockets see it. The socket is in
//! nobody's way: not of the container's clients (`reach.rs`), nor of the next container or runtime that wants the port.

use crate::portmap::published::{Published, add, fetch_at, lab, port, rules, serve};
use integration::{Host, LIMIT, Watching, stays, until};
use serde_json::json;
use std::time::{Duration, Instant};

/// The reserved ports of a host, as `ss` shows them: protocol and address.
#[track_caller]
pub fn reserved(host: &Host) -> Vec<String> {
    let said = host.run("ss -Hlntu").ok().stdout;
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let address = words.get(4)?.replace("%if2147483647", "");
        let is_reserved = words[4].contains("%if2147483647");
        is_reserved.then(|| format!("{} {address}", words[0]))
    };
    let mut all: Vec<_> = said.lines().filter_map(line).collect();
    all.sort();
    all
}

#[track_caller]
fn until_reserved(host: &Host, what: &[&str]) {
    until(LIMIT, &format!("reserved {what:?}"), || {
        reserved(host) == what
    });
}

#[test]
fn what_is_published_is_reserved_as_it_is_published_and_no_longer() {
    let lab = lab();
    let host = lab.host(1);
    let mut watcher = host.watch();
    let asked = json!([
        port(8080, 80),
        "127.0.0.1:8081:81",
        // An address that this host does not have.
        "192.0.2.1:8082:82/udp",
        "0.0.0.0:8090-8091:90-91/udp",
        { "hostPort": 8083, "containerPort": 83, "protocol": "sctp" },
    ]);
    let all = [
        "tcp 0.0.0.0:8080",
        "tcp 127.0.0.1:8081",
        "tcp [::]:8080",
        "udp 0.0.0.0:8090",
        "udp 0.0.0.0:8091",
        "udp 192.0.2.1:8082",
    ];
    let web = Published::new(host, "web", "br", &asked);
    until_reserved(host, &all);
    web.again("check").ok();
    // Once more, as some runtimes do, with one port less.
    let id = format!("cnitool-{}", id_of("web"));
    web.alone("ADD", &id, &json!([port(8080, 80)])).ok();
    until_reserved(host, &[all[0], all[2]]);
    web.alone("ADD", &id, &asked).ok();
    until_reserved(host, &all);

    // A watcher that starts again finds them; without one they work all the same.
    watcher.stop().ok();
    assert!(reserved(host).is_empty());
    let _server = web.serves(80);
    let page = || fetch_at(lab.host(2).namespace(), host.vtep(), 8080);
    assert!(page().starts_with("web "), "{}", page());
    let mut watcher = host.watch();
    until_reserved(host, &all);
    assert!(page().starts_with("web "), "{}", page());

    // A DEL releases them before its runtime can ask for them again.
    web.again("del").ok();
    let begun = Instant::now();
    until_reserved(host, &[]);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(rules(host), "");
    add(host, "web", &json!([port(8080, 80)])).ok();
    host.cnitool("del", "br", "web", "eth0").ok();
    watcher.stop().ok();
}

/// nerdctl from 2.2 and podman hold a socket for each port themselves, before the ADD.
#[test]
fn a_port_that_its_runtime_holds_is_left_to_it() {
    let lab = lab();
    let host = lab.host(1);
    let mut conf = crate::portmap::published::network("bridge", "br", 1);
    conf["plugins"][1]["listeners"] = "warn".into();
    host.install(&conf);
    let watcher = host.watch();
    let holder = serve(host.namespace().net(), "holder", 8080);
    let web = Published::new(host, "web", "br", &json!(["0.0.0.0:8080:80"]));
    stays(Duration::from_millis(500), "left to its holder", || {
        reserved(host).is_empty()
    });
    web.again("del").ok();
    drop(holder);
    quiet(&watcher);
}

/// A table that another program flushes, and a container that keeps its address: its clients are refused as without a watcher.
#[test]
fn what_is_reserved_and_leads_nowhere_is_refused() {
    let lab = lab();
    let host = lab.host(1);
    let watcher = host.watch();
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    until_reserved(host, &["tcp 0.0.0.0:8080", "tcp [::]:8080"]);
    let page = |address: &str| fetch_at(host.namespace(), address, 8080);
    assert_eq!(page("::1"), "ConnectionRefused");
    let pid = watcher.pid();
    host.script(&format!("kill -STOP {pid}; nft flush ruleset"));
    for address in ["127.0.0.1", host.vtep()] {
        assert_eq!(page(address), "ConnectionRefused", "{address}");
    }
    host.script(&format!("kill -CONT {pid}"));
    until(LIMIT, "mended", || page(host.vtep()).starts_with("web "));
    web.again("del").ok();
}

/// Two sockets for each port, of IPv4 and IPv6.
#[test]
fn a_thousand_ports_cost_little() {
    let lab = lab();
    let host = lab.host(1);
    let watcher = host.watch();
    watcher.settle();
    let (memory, cpu) = (watcher.peak_memory(), watcher.cpu());
    let web = Published::new(host, "web", "br", &json!(["20000-20999:20000-20999"]));
    let begun = Instant::now();
    until(LIMIT, "reserved", || reserved(host).len() == 2000);
    let took = begun.elapsed();
    watcher.settle();
    let memory = watcher.peak_memory().saturating_sub(memory);
    let cpu = watcher.cpu().saturating_sub(cpu);
    println!("after {took:?}: {cpu:?} of processor time, {memory} bytes");
    // With the repairs that the elements of the table caused.
    assert!(cpu < Duration::from_secs(1), "{cpu:?}");
    assert!(memory < 8 << 20, "{memory} bytes");
    web.again("del").ok();
    until(LIMIT, "released", || reserved(host).is_empty());
    quiet(&watcher);
}

/// The watcher has nothing to complain of.
#[track_caller]
fn quiet(watcher: &Watching) {
    assert_eq!(
        watcher.times_said("reserved ports"),
        0,
        "{}",
        watcher.said()
    );
}

/// The digest by which cnitool names a container.
fn id_of(name: &str) -> String {
    crate::portmap::requested_ports::id_of(name)
}
