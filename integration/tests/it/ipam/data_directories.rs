//! Data directories (`ipam.dataDir`): configurations that name different ones have the same networks and addresses without
//! seeing each other, and yet all of them are the operator's to see, and the host's to look after.

use std::collections::BTreeSet;

use integration::{Backend, Direct, Lab, ipamconf};
use serde_json::{Value, json};

/// The network `net1` with its data in `dir`.
fn conf(dir: &str) -> Value {
    let ranges = json!([[{ "subnet": "10.5.0.0/24" }]]);
    let mut conf = ipamconf("net1", json!({ "ranges": ranges, "dataDir": dir }));
    conf["cni.dev/valid-attachments"] = json!([]);
    conf
}

/// The key of a lease of it.
fn below(dir: &str, address: &str) -> String {
    match dir {
        "" => format!("crosshost/v1/leases/net1/{address}"),
        _ => format!(
            "crosshost/data/-2fsrv-2f{}/v1/leases/net1/{address}",
            &dir[5..]
        ),
    }
}

/// The keys of all leases, whatever they are below.
fn leases(lab: &Lab) -> BTreeSet<String> {
    let (_, keys) = lab.consul().request("GET", "/v1/kv/crosshost?keys", "");
    let keys: BTreeSet<String> = serde_json::from_str(&keys).expect("keys");
    let leases = keys.into_iter().filter(|key| key.contains("/leases/"));
    leases.collect()
}

const DIRS: [&str; 3] = ["", "/srv/a", "/srv/b"];

#[test]
fn two_data_directories_never_see_each_other() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    let leases = || leases(&lab);
    // The same network, subnet and container, and each time the first address.
    let mut held = BTreeSet::new();
    for dir in DIRS {
        assert_eq!(one.given("c1", &conf(dir)), ["10.5.0.2/24"], "{dir}");
        held.insert(below(dir, "10.5.0.2"));
        assert_eq!(leases(), held, "{dir}");
        one.add("c1", &conf(dir)).refused(100, &["c1", "10.5.0.2"]);
    }
    // Within one they do: another host gets another address.
    let far = two.given("c1", &conf("/srv/a")).remove(0);
    let far = far.trim_end_matches("/24");
    assert_ne!(far, "10.5.0.2");
    held.insert(below("/srv/a", far));
    let mut near = conf("/srv/b");
    near["runtimeConfig"] = json!({ "ips": [far] });
    assert_eq!(one.given("c2", &near), [format!("{far}/24")]);
    held.insert(below("/srv/b", far));
    assert_eq!(leases(), held);
    let listed = lab.host(1).listed("endpoint ls --local");
    assert_eq!(listed.as_array().map(Vec::len), Some(4), "{listed:#}");

    // What goes, goes in one of them; also if the store hears of it by a later sync.
    one.call("GC", "", &conf("/srv/b")).run().ok();
    held.retain(|key| !key.contains("-2fb/"));
    assert_eq!(leases(), held);
    lab.host(1).configure("consul://192.168.1.5:1");
    one.call("DEL", "c1", &conf("/srv/a")).run().ok();
    assert_eq!(leases(), held);
    lab.host(1).configure(&lab.store_url());
    lab.host(1).sync();
    held.remove(&below("/srv/a", "10.5.0.2"));
    assert_eq!(leases(), held);
    one.add("c1", &conf("")).refused(100, &["c1", "10.5.0.2"]);
}

#[test]
fn after_a_reboot_a_sync_voids_what_was_held_in_any_of_them() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    for dir in DIRS {
        hosts[0].given("c1", &conf(dir));
        hosts[1].given("c2", &conf(dir));
    }
    assert_eq!(leases(&lab).len(), 6);
    // One that cannot be read is in no other one's way.
    let broken = "/v1/kv/crosshost/data/-2fsrv-2fa/v1/networks/net1";
    let (_, whole) = lab.consul().request("GET", &format!("{broken}?raw"), "");
    lab.consul().request("PUT", broken, "{");
    let host = lab.host(1);
    host.reboot();
    host.crosshost("sync")
        .failed()
        .warns(&["network net1@/srv/a: "]);
    assert_eq!(leases(&lab).len(), 4, "{:?}", leases(&lab));
    lab.consul().request("PUT", broken, &whole);
    host.sync();
    let left = leases(&lab);
    assert_eq!(left.len(), 3, "{left:?}");
    for (at, dir) in DIRS.into_iter().enumerate() {
        let of = below(dir, "");
        assert_eq!(
            left.iter().filter(|key| key.starts_with(&of)).count(),
            1,
            "{at}"
        );
    }
}

#[test]
fn an_operator_sees_all_of_them_and_removes_a_host_from_all_of_them() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let (one, two) = (lab.host(1), lab.host(2));
    // The first host is known in data directories alone.
    for dir in &DIRS[1..] {
        hosts[0].given("c1", &conf(dir));
    }
    hosts[1].given("c2", &conf(""));
    let table = |words: &[&str]| two.crosshost(words).ok().stdout;
    let networks = table(&["network", "ls"]);
    for name in ["net1 ", "net1@/srv/a ", "net1@/srv/b "] {
        assert!(networks.contains(name), "no {name:?} in {networks}");
    }
    let endpoints = table(&["endpoint", "ls"]);
    assert!(endpoints.contains("net1@/srv/b"), "{endpoints}");
    let listed = two.listed("endpoint ls");
    let dirs = [0, 1, 2].map(|at| listed[at]["dataDir"].clone());
    assert_eq!(dirs, [json!(null), json!("/srv/a"), json!("/srv/b")]);
    one.crosshost("endpoint ls --local")
        .ok()
        .says(&["net1@/srv/a"]);
    let nodes = table(&["node", "ls"]);
    assert!(nodes.contains(one.name()), "{nodes}");
    let shown = table(&["network", "inspect", "net1@/srv/a"]);
    assert!(shown.contains("10.5.0.2"), "{shown}");

    // Refused by all where one has endpoints; then gone from all.
    let before = leases(&lab);
    let said = two.crosshost(&["node", "rm", one.name()]).failed().stderr;
    let held = "10.5.0.2 of network net1@/srv/b, eth0 of container c1";
    assert!(said.contains(held), "{said}");
    assert_eq!(leases(&lab), before);
    let words = "network rm net1@/srv/a";
    two.crosshost(words).failed().warns(&["has 1 endpoint(s)"]);
    let force = ["node", "rm", one.name(), "--force"];
    two.crosshost(&force).ok();
    assert_eq!(leases(&lab).len(), 1);
    let shown = table(&["network", "inspect", "net1@/srv/a"]);
    assert!(shown.contains("- (was docker01's)"), "{shown}");
    two.crosshost(&force).failed().warns(&["not registered"]);
    two.crosshost(words).ok();
    let networks = table(&["network", "ls"]);
    assert!(!networks.contains("net1@/srv/a"), "{networks}");
}
