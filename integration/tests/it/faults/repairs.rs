//! What a host finds after something went wrong on it, and mends: a killed ADD beside the container's other network, a
//! sync beside the last DEL, `/run` lost under running containers, documents that cannot be read, settings that are
//! broken when a container ends.

use std::time::Duration;

use crate::store_reader::assert_no_lease;
use integration::{Attachment, Backend, Container, Lab, OUTSIDE, conflist, netconf};
use serde_json::json;

const SUBNETS: [(&str, &str); 2] = [("ov_net1", "10.0.0.0/24"), ("ov_net2", "10.0.1.0/24")];

fn lab(hosts: u8, backend: Backend) -> Lab {
    let lab = Lab::registered(hosts, backend);
    for (network, subnet) in SUBNETS {
        lab.host(1).create_network(network, subnet);
        lab.install(&conflist(network, subnet));
    }
    lab
}

#[test]
fn a_killed_add_leaves_the_containers_other_network_its_way_out() {
    let lab = lab(1, Backend::Dir);
    let host = lab.host(1);
    let container = host.container("t1");
    let call = |verb: &str, number: usize| {
        let (network, subnet) = SUBNETS[number];
        let call = container.call(verb, &netconf(network, subnet, "1.0.0"));
        call.id("twice-0123456789").ifname(["eth0", "eth1"][number])
    };
    let untouched = lab.footprints();
    for step in 0..30 {
        let killed = call("ADD", 0).start();
        killed.kill_after(Duration::from_micros(2_000 + 300 * step));
        killed.wait(Duration::from_secs(30));
        let when = format!("first network killed in step {step}");

        call("ADD", 1).run().ok();
        assert!(container.tcp_get(OUTSIDE).is_ok(), "{when}, second added");
        call("DEL", 0).run().ok();
        call("ADD", 0).run().ok();
        assert!(container.tcp_get(OUTSIDE).is_ok(), "{when}, both added");
        call("DEL", 1).run().ok();
        assert!(container.tcp_get(OUTSIDE).is_ok(), "{when}, second gone");
        call("DEL", 0).run().ok();
        lab.assert_same_as(&untouched, &when);
    }
}

#[test]
fn a_sync_beside_the_last_del_does_not_bring_the_sandbox_back() {
    let lab = lab(1, Backend::Dir);
    let host = lab.host(1);
    let untouched = lab.footprints();
    for _ in 0..15 {
        let attached = Attachment::new(host, "t1", "ov_net1");
        std::thread::scope(|scope| {
            let syncs = scope.spawn(|| (0..8).for_each(|_| drop(host.sync())));
            attached.detach().ok();
            syncs.join().expect("the syncs");
        });
        attached.container.remove();
        lab.assert_same_as(&untouched, "after a DEL beside syncs");
    }
}

#[test]
fn documents_lost_under_running_containers_cost_them_nothing() {
    let lab = lab(2, Backend::Dir);
    let host = lab.host(1);
    let (t1, t2) = (
        Attachment::new(host, "t1", "ov_net1"),
        Attachment::new(lab.host(2), "t2", "ov_net1"),
    );
    host.script("cd /run/crosshost && rm -rf journal ledger sandbox egress news locks");
    host.in_sandbox("ov_net1", "ip link delete vxlan0");
    host.sync();
    assert!(t1.container.pings(t2.address, &[]), "t1 is looked after");
    let t3 = Attachment::new(host, "t3", "ov_net1");
    assert_ne!(
        t1.address, t3.address,
        "what the store knows is not given out again"
    );
    assert_ne!(way_out(&t1.container), way_out(&t3.container));
    for attached in [&t1, &t3] {
        assert!(attached.container.pings(t2.address, &[]));
        assert!(attached.container.tcp_get(OUTSIDE).is_ok());
    }
    t3.detach().ok();
    assert!(
        t1.container.pings(t2.address, &[]),
        "the sandbox stays for t1"
    );
    assert!(
        t1.container.tcp_get(OUTSIDE).is_ok(),
        "and so does its way out"
    );
    t1.detach().ok();
    t2.detach().ok();
    let gone = host.run("ip -br link").ok().stdout;
    assert!(!gone.contains("ch-egress"), "{gone}");
    assert_no_lease(&lab, "after the DELs");
}

fn way_out(container: &Container<'_>) -> std::net::IpAddr {
    container.address("gw0").expect("gw0 has an address")
}

#[test]
fn documents_that_cannot_be_read_stop_no_verb() {
    let lab = lab(1, Backend::Dir);
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", "ov_net1");
    for document in ["news/ov_net1.json", "ledger/ov_net1.json"] {
        host.write(&format!("/run/crosshost/{document}"), "{");
    }
    let t2 = Attachment::new(host, "t2", "ov_net1");
    assert_ne!(t1.address, t2.address);
    // Each in place of a whole one: of all attachments, of who uses the sandbox, of the way out.
    host.script(
        "cd /run/crosshost; for it in journal/overlay/* sandbox/ov_net1.json egress/egress.json; do echo { > $it; done",
    );
    let t3 = Attachment::new(host, "t3", "ov_net1");
    assert_ne!(way_out(&t1.container), way_out(&t3.container));
    t3.detach().ok();
    assert!(t1.container.pings(t2.address, &[]), "the sandbox stays");
    assert!(t1.container.tcp_get(OUTSIDE).is_ok(), "and the way out");
    t1.detach().ok();
    t2.detach().ok();
    assert_no_lease(&lab, "after the DELs");
    let gone = host.run("ip -br link").ok().stdout;
    assert!(!gone.contains("ch-egress"), "{gone}");
    host.write("/run/crosshost/journal/overlay/odd.json", "{");
    let mut gc = netconf(SUBNETS[0].0, SUBNETS[0].1, "1.1.0");
    gc["cni.dev/valid-attachments"] = json!([]);
    host.call("overlay", "GC").conf(&gc).run().ok();
}

#[test]
fn del_needs_no_settings_and_the_store_hears_of_it_later() {
    let lab = lab(1, Backend::Dir);
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", "ov_net1");
    host.write("/etc/crosshost/config.json", "{");
    t1.detach().ok();
    assert_eq!(t1.container.address("eth0"), None);
    let listed = host.listed("endpoint ls --local");
    assert!(
        listed[0]["state"]
            .as_str()
            .is_some_and(|state| state.starts_with("freed")),
        "{listed}"
    );
    host.configure(&lab.store_url());
    host.sync();
    assert_no_lease(&lab, "after the DELs");
    assert_eq!(host.listed("endpoint ls --local"), json!([]));
}
