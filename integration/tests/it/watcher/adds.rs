//! ADDs on a host where a watcher keeps the snapshots fresh.

use std::time::Duration;

use integration::{Attachment, Backend, Host, Lab, Proxy, conflist, until};

const NETWORK: &str = "ov_net1";

/// The document by which the watcher vouches for its networks.
fn vouched(host: &Host) -> bool {
    let said = host.run("cat /run/crosshost/watch/following.json");
    said.stdout.contains(NETWORK)
}

fn soon(what: &str, is_so: impl Fn() -> bool) {
    until(Duration::from_secs(20), what, is_so);
}

/// The requests that an ADD makes, each with its method first; the watcher's, which fall between, do not count.
fn asked(proxy: &Proxy, host: &Host, name: &str) -> Vec<String> {
    proxy.take();
    host.container(name);
    host.cnitool("add", NETWORK, name, "eth0").ok();
    let mut requests = proxy.take();
    requests.retain(|request| request.program != "crosshost");
    let told = requests.iter();
    told.map(|it| format!("{} {} {} {}", it.method, it.program, it.target, it.body))
        .collect()
}

/// Whether that was the lease and nothing else.
fn is_lease_alone(asked: &[String]) -> bool {
    matches!(asked, [only] if only.starts_with("PUT "))
}

#[test]
fn read_no_records_while_the_watcher_lives_and_follows() {
    let mut lab = Lab::new(1, Backend::Consul);
    let proxy = lab.consul().proxy();
    // Blocks of which no ADD here takes so much that it claims another.
    let create = format!("network create {NETWORK} --subnet 10.0.0.0/16 --block-prefix 24");
    lab.host(1).configure(&proxy.url());
    lab.host(1).crosshost(&create).ok();
    let conf = conflist(NETWORK, "10.0.0.0/16");
    lab.host(1).install(&conf);
    lab.add_host(2).install(&conf);
    let host = lab.host(1);

    assert!(!vouched(host));
    let watcher = host.watch();
    // The first one makes the sandbox and joins.
    assert!(asked(&proxy, host, "t1").len() > 2);
    soon("the watcher vouches for the new network", || vouched(host));
    let requests = asked(&proxy, host, "t2");
    assert!(is_lease_alone(&requests), "{requests:#?}");

    // The records are read all the same, and the ADD goes by them.
    let far = Attachment::new(lab.host(2), "far", NETWORK);
    soon("the new host is heard of", || {
        host.existing("t2").pings(far.address, &[])
    });
    soon("the watcher vouches again", || vouched(host));
    let requests = asked(&proxy, host, "t3");
    assert!(is_lease_alone(&requests), "{requests:#?}");
    assert!(host.existing("t3").pings(far.address, &[]));

    // A sandbox that is not as it should be is repaired by the ADD, which reads the records itself. The watcher is held, or it would repair it first.
    let pid = watcher.pid();
    host.script(&format!("kill -STOP {pid}"));
    host.in_sandbox(NETWORK, "ip link set br0 down");
    let requests = asked(&proxy, host, "t4");
    host.script(&format!("kill -CONT {pid}"));
    assert_eq!(requests.len(), 2, "records and lease: {requests:#?}");
    assert!(host.existing("t4").pings(far.address, &[]));

    // A dead one vouches for nothing, whatever it left.
    drop(watcher);
    assert!(vouched(host), "it could not take that back");
    let requests = asked(&proxy, host, "t5");
    assert_eq!(requests.len(), 2, "records and lease: {requests:#?}");

    // One that is told to stop takes it back.
    let mut watcher = host.watch();
    soon("the watcher vouches", || vouched(host));
    watcher.stop();
    assert!(!vouched(host));
    far.detach().ok();
}
