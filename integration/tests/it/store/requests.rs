//! What each verb costs at the store, as the table of `docs/architecture.md` says it. Invariant 9 there promises that
//! these numbers are small and bounded; a change that moves one should be seen, and the table moved with it.

use integration::{
    Attachment, Backend, Direct, LIMIT, Lab, Proxy, conflist, ipamconf, netconf, until, workspace,
};
use serde_json::json;

const SUBNET: &str = "10.0.0.0/24";

#[test]
fn are_as_many_as_the_document_says() {
    let lab = Lab::new(2, Backend::Consul);
    let proxy = lab.consul().proxy();
    for host in lab.hosts() {
        host.configure(&proxy.url());
        host.sync();
        host.install(&conflist("ov_net1", SUBNET));
    }
    lab.host(2).create_network("ov_net1", SUBNET);
    proxy.take();

    let host = lab.host(1);
    let add = |name| Attachment::new(host, name, "ov_net1");
    let first = add("t1");
    let mut measured = vec![row("ADD, the first of a network, on a known host", &proxy)];
    add("t2");
    measured.push(row("ADD after that", &proxy));
    // A block of eight addresses, of which network and gateway take two.
    add("t3");
    proxy.take();
    add("t4");
    measured.push(row(
        "ADD after which a quarter of a block is left, so that a spare one is claimed",
        &proxy,
    ));
    for name in ["t5", "t6"] {
        add(name);
    }
    proxy.take();
    add("t7");
    measured.push(row("ADD from the spare block", &proxy));
    host.cnitool("check", "ov_net1", "t1", "eth0").ok();
    measured.push(row("CHECK", &proxy));
    let conf = netconf("ov_net1", SUBNET, "1.1.0");
    host.call("overlay", "STATUS").conf(&conf).run().ok();
    measured.push(row("STATUS", &proxy));
    first.detach().ok();
    measured.push(row("DEL", &proxy));
    first.detach().ok();
    measured.push(row("DEL again", &proxy));
    let _watcher = host.watch();
    let following = "grep -q ov_net1 /run/crosshost/watch/following.json";
    until(LIMIT, "followed", || host.run(following).status.success());
    proxy.take();
    add("t8");
    measured.push(row("ADD where a watcher follows the network", &proxy));

    let text = std::fs::read_to_string(workspace().join("docs/architecture.md"));
    let text = text.expect("the document");
    let table = text.lines().skip_while(|line| !line.starts_with("| verb"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    assert_eq!(rows.collect::<Vec<_>>(), measured);
}

#[test]
fn the_first_add_reads_leases_of_no_other_host() {
    let lab = Lab::new(2, Backend::Consul);
    let conf = ipamconf("net1", json!({ "ranges": [[{ "subnet": "10.1.0.0/16" }]] }));
    let others = Direct::on(lab.host(2));
    for number in 0..20 {
        others.given(&format!("c{number}"), &conf);
    }
    let proxy = lab.consul().proxy();
    lab.host(1).configure(&proxy.url());
    Direct::on(lab.host(1)).given("first", &conf);
    let asked: String = proxy
        .take()
        .iter()
        .map(|request| request.body.clone())
        .collect();
    // By its key, which a block of this host has; not the whole network's.
    assert!(asked.contains("leases/net1/10.1."), "{asked}");
    assert!(!asked.contains("leases/net1\""), "{asked}");
}

/// A row of the table, from what passed since the last one.
fn row(verb: &str, proxy: &Proxy) -> String {
    let mut seen = proxy.take();
    // A watcher asks beside the verb, whenever it wants.
    seen.retain(|request| request.program != "crosshost");
    let writes = |operation: &String| ["cas", "delete-cas"].contains(&operation.as_str());
    let writing = seen
        .iter()
        .filter(|request| request.operations().iter().any(writes));
    format!("| {verb} | {} | {} |", seen.len(), writing.count())
}
