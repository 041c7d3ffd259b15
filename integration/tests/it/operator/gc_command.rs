//! `crosshost gc`: what a container left that is gone without a DEL goes, and nothing else does.

use std::collections::BTreeSet;

use crate::doctor_report::ask;
use crate::store_reader::leased;
use integration::{Attachment, Backend, Direct, LIMIT, Lab, conflist, ipamconf, stays, until};
use serde_json::json;

const NETWORKS: [(&str, &str); 2] = [("n1", "10.0.0.0/24"), ("n2", "10.0.1.0/24")];

fn lab() -> Lab {
    let lab = Lab::new(1, Backend::Dir);
    for (name, subnet) in NETWORKS {
        lab.host(1).install(&conflist(name, subnet));
    }
    lab.host(1).sync();
    lab
}

/// Removes a container's namespace, and waits until the kernel has taken it apart.
fn dies(attached: &Attachment<'_>) {
    let host = attached.host();
    attached.container.remove();
    until(LIMIT, "noticed", || {
        !host.crosshost("gc --dry-run").ok().stdout.is_empty()
    });
}

#[test]
fn what_a_dead_container_had_goes_on_all_networks_and_what_lives_stays() {
    let lab = lab();
    let host = lab.host(1);
    let untouched = host.footprint();
    let (lives, dead) = (
        Attachment::new(host, "lives", "n1"),
        Attachment::new(host, "dead", "n1"),
    );
    let second = Attachment::of(host.existing("dead"), "n2", "eth1");
    let direct = Direct::on(host);
    let foreign = ipamconf("net1", json!({ "subnet": "10.1.0.0/24" }));
    direct.given("c1", &foreign);
    assert_eq!(host.crosshost("gc").ok().stdout, "", "all live");

    dies(&dead);
    let before = host.footprint();
    let listed = host.crosshost("gc --dry-run").ok().stdout;
    assert!(
        listed.contains("eth0") && listed.contains("eth1") && !listed.contains("lives"),
        "{listed}"
    );
    host.assert_same_as(&before, "after a list");
    assert_eq!(leased(&lab, "n2").len(), 1);
    assert_eq!(ask(host).wrong(&["its container is gone"]), "crosshost gc");

    let rows = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let swept = host.crosshost("gc").ok().stdout;
    assert_eq!(rows(&swept), rows(&listed));
    assert_eq!(
        leased(&lab, "n1"),
        BTreeSet::from([lives.address.to_string()])
    );
    assert_eq!(leased(&lab, "n2"), BTreeSet::new());
    assert_eq!(leased(&lab, "net1").len(), 1, "of another interface plugin");
    assert!(lives.container.tcp_get(integration::OUTSIDE).is_ok());
    ask(host).assert_well();
    assert_eq!(host.crosshost("gc").ok().stdout, "", "once");
    // The runtime may wake up after all.
    dead.detach().ok();
    second.detach().ok();
    lives.detach().ok();
    direct.call("DEL", "c1", &foreign).run().ok();
    lives.container.remove();
    host.existing("t1").remove();
    host.assert_same_as(&untouched, "after all of it");
}

/// The path that the runtime named leads to the namespace of another container now.
#[test]
fn a_path_that_leads_to_another_container_is_no_life() {
    let lab = lab();
    let host = lab.host(1);
    let dead = Attachment::new(host, "reused", "n1");
    dies(&dead);
    // The kernel gives a new namespace the lowest free number: let it not be the dead one's.
    let _spare = host.container("spare");
    let other = host.container("reused");
    host.crosshost("gc").ok().says(&["/run/netns/reused"]);
    assert!(leased(&lab, "n1").is_empty());
    let again = Attachment::of(other, "n1", "eth0");
    assert_eq!(host.crosshost("gc").ok().stdout, "");
    assert!(again.container.tcp_get(integration::OUTSIDE).is_ok());
    again.detach().ok();
}

/// A path that is gone is no death: a process holds the namespace, of which the kernel knows.
#[test]
fn a_container_whose_path_is_gone_lives_as_long_as_a_process_of_it() {
    let lab = lab();
    let host = lab.host(1);
    let hidden = Attachment::new(host, "hidden", "n1");
    let net = hidden.container.net();
    hidden.container.remove();
    stays(
        std::time::Duration::from_millis(500),
        "without garbage",
        || host.crosshost("gc").ok().stdout.is_empty(),
    );
    assert_eq!(leased(&lab, "n1").len(), 1);
    drop(net);
    until(LIMIT, "noticed", || {
        !host.crosshost("gc").ok().stdout.is_empty()
    });
    assert!(leased(&lab, "n1").is_empty());
}

/// The host has an address of its own there, which goes with the last container, whoever takes that away.
#[test]
fn the_last_dead_container_takes_the_hosts_own_address_with_it() {
    let lab = lab();
    let host = lab.host(1);
    let mut conf = conflist("n1", "10.0.0.0/24");
    conf["plugins"][0]["hostAccess"] = json!(true);
    host.install(&conf);
    let dead = Attachment::new(host, "dead", "n1");
    assert_eq!(
        leased(&lab, "n1").len(),
        2,
        "the container's and the host's"
    );
    dies(&dead);
    host.crosshost("gc").ok();
    assert_eq!(leased(&lab, "n1"), BTreeSet::new());
    host.crosshost("network rm n1").ok();

    // An earlier version took the container down alone.
    let dead = Attachment::new(host, "dead", "n1");
    let foothold = "/run/crosshost/foothold/n1.json";
    host.run(&["cp", foothold, "/run/kept"]).ok();
    dies(&dead);
    host.crosshost("gc").ok();
    host.run(&["cp", "/run/kept", foothold]).ok();
    let said = host.crosshost("gc").ok().stdout;
    assert_eq!(said, "network n1: this host's own address\n");
    assert_eq!(host.crosshost("gc").ok().stdout, "");
}
