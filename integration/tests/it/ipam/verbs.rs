//! The verbs of `ipam-kv` where they refuse or repair: each error by its code and its words, and what is held before and
//! after. ADD and DEL that succeed are in most other scenarios, GC and CHECK through a runtime in `interface_plugins.rs`, STATUS in
//! `status.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::store_reader;
use crate::store_reader::{leased, records_but_nodes};
use integration::{Backend, Direct, Lab, Programs, addresses_in, ipamconf, ranges};
use serde_json::{Value, json};

/// No program listens there.
const NO_STORE: &str = "consul://192.168.1.5:1";
/// No machine is there.
const NOWHERE: &str = "consul://192.168.1.99:8500";

/// The network `net1` with a pool of each family.
fn both_families() -> Value {
    ipamconf(
        "net1",
        json!({ "ranges": ranges("10.1.0.0/24 fd00:1::/64") }),
    )
}

fn asking(conf: &Value, ips: &[&str]) -> Value {
    let mut conf = conf.clone();
    conf["runtimeConfig"] = json!({ "ips": ips });
    conf
}

#[test]
fn check_finds_each_way_in_which_a_lease_is_not_as_the_result_says() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    let conf = both_families();
    let result = one.add("c1", &conf).ok().json();
    assert_eq!(addresses_in(&result), ["10.1.0.2/24", "fd00:1::2/64"]);
    let call = |id: &str, result: &Value| {
        let mut conf = conf.clone();
        conf["prevResult"] = result.clone();
        one.call("CHECK", id, &conf)
    };
    let check = |result: &Value| call("c1", result).run();
    assert_eq!(check(&result).ok().stdout, "");
    one.call("CHECK", "c1", &conf)
        .run()
        .refused(7, &["prevResult"]);

    // Not this attachment's: of another container, interface or host.
    call("c2", &result)
        .run()
        .refused(110, &["c2", "holds no address"]);
    call("c1", &result)
        .ifname("eth1")
        .run()
        .refused(110, &["eth1", "holds no address"]);
    let mut there = conf.clone();
    there["prevResult"] = result.clone();
    two.call("CHECK", "c1", &there)
        .run()
        .refused(110, &["c1", "holds no address"]);

    // Not what the result lists: one lacks, one is another, one is too many. Those of other plugins are theirs.
    let changed = |change: fn(&mut Vec<Value>)| {
        let mut result = result.clone();
        change(result["ips"].as_array_mut().expect("a list"));
        check(&result)
    };
    changed(|ips| ips.truncate(1)).refused(110, &["c1", "holds fd00:1::2", "does not list"]);
    changed(|ips| ips[0]["address"] = "10.1.0.3/24".into())
        .refused(110, &["holds 10.1.0.2", "does not list"]);
    changed(|ips| ips.push(json!({ "address": "10.1.0.3/24" })))
        .refused(110, &["lists 10.1.0.3", "does not hold"]);
    changed(|ips| ips.push(json!({ "address": "172.19.0.3/16" }))).ok();

    // No lease in the store, until the host says it again; and with the store away, what the host itself knows.
    let lease = "/v1/kv/crosshost/v1/leases/net1/fd00:1::2";
    assert_eq!(lab.consul().request("DELETE", lease, "").0, 200);
    check(&result).refused(110, &["c1", "fd00:1::2", "no lease", "crosshost sync"]);
    one.host().configure(NO_STORE);
    check(&result).ok();
    one.host().configure(&lab.store_url());
    one.host().sync();
    check(&result).ok();

    // Another's lease in the store: this host was taken for dead, and what it held was given away.
    two.given("first", &conf);
    two.host().crosshost("node rm docker01 --force").ok();
    two.given("heir", &asking(&conf, &["10.1.0.2"]));
    check(&result).refused(
        110,
        &["c1", "10.1.0.2", "eth0 of container heir on node docker02"],
    );
}

#[test]
fn a_repeated_add_is_refused_and_the_first_lease_stays_as_it_is() {
    let lab = Lab::new(1, Backend::Consul);
    let host = Direct::on(lab.host(1));
    let conf = both_families();
    let result = host.add("c1", &conf).ok().json();
    let mut checked = conf.clone();
    checked["prevResult"] = result;
    let before = records_but_nodes(&lab);
    let words = &[
        "net1",
        "c1",
        "eth0",
        "10.1.0.2",
        "fd00:1::2",
        "DEL it first",
    ];
    let refuse = |conf: &Value| {
        host.add("c1", conf).refused(100, words);
        assert_eq!(records_but_nodes(&lab), before);
        host.call("CHECK", "c1", &checked).run().ok();
    };
    refuse(&conf);
    refuse(&asking(&conf, &["10.1.0.2"]));
    refuse(&asking(&conf, &["10.1.0.99"]));
    lab.host(1).configure(NO_STORE);
    refuse(&conf);
    lab.host(1).configure(&lab.store_url());
    refuse(&conf);

    // Another interface is another attachment, and after DEL it is no repetition.
    let second = host
        .call("ADD", "c1", &conf)
        .ifname("eth1")
        .run()
        .ok()
        .json();
    assert_eq!(addresses_in(&second), ["10.1.0.3/24", "fd00:1::3/64"]);
    host.call("DEL", "c1", &conf).run().ok();
    assert_eq!(host.given("c1", &conf), ["10.1.0.4/24", "fd00:1::4/64"]);
    let left = ["10.1.0.3", "10.1.0.4", "fd00:1::3", "fd00:1::4"];
    assert_eq!(leased(&lab, "net1"), left.map(str::to_owned).into());
}

#[test]
fn a_requested_address_that_is_taken_is_refused_with_its_holder() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    let pool = json!({ "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100" });
    let conf = ipamconf(
        "net1",
        json!({ "ranges": [[pool], [{ "subnet": "fd00:1::/64" }]] }),
    );
    // Chosen, of a block; asked for, out of the range.
    let chosen = one.given("c1", &conf);
    let chosen: Vec<_> = chosen
        .iter()
        .map(|text| text.split('/').next().expect("an address"))
        .collect();
    one.given("c2", &asking(&conf, &["10.1.0.9", "fd00:1::9"]));
    let before = leased(&lab, "net1");
    for host in &hosts {
        for (address, holder) in [
            (chosen[0], "c1"),
            (chosen[1], "c1"),
            ("10.1.0.9", "c2"),
            ("fd00:1::9", "c2"),
        ] {
            let by = format!("held by eth0 of container {holder} on node docker01");
            host.add("asks", &asking(&conf, &[address]))
                .refused(108, &[address, &by]);
            assert_eq!(leased(&lab, "net1"), before, "{address}");
        }
    }

    // The host itself knows its containers with the store away.
    one.host().configure(NO_STORE);
    one.add("asks", &asking(&conf, &[chosen[0]]))
        .refused(108, &[chosen[0], "c1", "docker01"]);
    // What it gives meanwhile it alone knows: another host learns at first only whom to ask.
    let late = one.given("c3", &conf).remove(0);
    let late = late.trim_end_matches("/24");
    one.host().configure(&lab.store_url());
    let said = two.add("asks", &asking(&conf, &[late]));
    said.refused(108, &[late, "node docker01", "crosshost sync"]);
    one.host().sync();
    let by = "held by eth0 of container c3 on node docker01";
    two.add("asks", &asking(&conf, &[late]))
        .refused(108, &[late, by]);
    one.call("DEL", "c3", &conf).run().ok();
    one.call("DEL", "c1", &conf).run().ok();
    assert!(!leased(&lab, "net1").contains(late));
}

#[test]
fn version_needs_no_store_no_root_and_no_standard_input() {
    let lab = Lab::new(1, Backend::Consul);
    let namespace = lab.host(1).namespace();
    lab.host(1).configure(NOWHERE);
    namespace.write("/etc/crosshost/config.json", "{ broken");
    // A pipe that is never closed, and a user who may read and write nothing of ours.
    namespace.script(&format!(
        "cp {} /run/ipam-kv
         mkfifo /run/silence
         chmod 711 /run
         chmod 700 /etc/crosshost",
        Programs::product("ipam-kv").display()
    ));
    let script = "exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
                  env -i CNI_COMMAND=VERSION CNI_NETNS=dummy CNI_IFNAME=dummy CNI_PATH=dummy CNI_CONTAINERID= \
                  /run/ipam-kv <>/run/silence";
    let said = namespace.run(&["sh", "-euc", script]).ok();
    let versions = [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ];
    assert_eq!(
        said.json(),
        json!({ "cniVersion": "1.1.0", "supportedVersions": versions })
    );
    assert!(said.took < Duration::from_secs(1), "{said}");
    assert!(!namespace.path("/run/crosshost").exists());
    assert_eq!(store_reader::records(&lab).len(), 0);
}

/// What GC is told: nothing, or `valid` under `key`.
fn collecting(conf: &Value, key: &str, valid: Value) -> Value {
    let mut conf = conf.clone();
    conf[key] = valid;
    conf
}

#[test]
fn garbage_is_what_this_node_holds_of_this_network_and_is_not_listed() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    let conf = both_families();
    let mut other = ipamconf("net2", json!({ "subnet": "10.2.0.0/24" }));
    other["cniVersion"] = "1.0.0".into();
    one.given("c1", &other);
    two.given("c1", &conf);
    let others = (leased(&lab, "net1"), leased(&lab, "net2"));
    let key = "cni.dev/valid-attachments";
    let one_is = |id: &str, ifname: &str| json!({ "containerID": id, "ifname": ifname });
    let gc = |conf: &Value| one.call("GC", "", conf).netns("").ifname("").run();

    // Three words for none.
    for none in [
        conf.clone(),
        collecting(&conf, key, Value::Null),
        collecting(&conf, key, json!([])),
    ] {
        one.given("c1", &conf);
        one.given("c2", &conf);
        assert_eq!(leased(&lab, "net1").len(), others.0.len() + 4);
        assert_eq!(gc(&none).ok().stdout, "");
        assert_eq!(
            (leased(&lab, "net1"), leased(&lab, "net2")),
            others,
            "{none}"
        );
        assert_eq!(gc(&none).ok().stdout, "", "nothing is left");
    }

    // A list that cannot be read is not an empty list, and it lists attachments, not containers.
    let held = one.given("c1", &conf);
    let second = one
        .call("ADD", "c1", &conf)
        .ifname("eth1")
        .run()
        .ok()
        .json();
    one.given("c2", &conf);
    let all = leased(&lab, "net1");
    for (bad, word) in [
        (json!({}), key),
        (json!("c1"), "c1"),
        (json!([{ "containerID": "c1" }]), "ifname"),
        (json!([one_is("../c1", "eth0")]), "../c1"),
        (json!([one_is("c1", "eth0"), 5]), "5"),
    ] {
        gc(&collecting(&conf, key, bad)).refused(7, &[key, word]);
        assert_eq!(leased(&lab, "net1"), all);
    }
    let listed = collecting(
        &conf,
        key,
        json!([one_is("c1", "eth0"), one_is("never", "eth0")]),
    );
    let listed = collecting(
        &listed,
        "cni.dev/attachments",
        json!([one_is("c2", "eth0")]),
    );
    gc(&listed).ok();
    let mut left = all;
    for address in addresses_in(&second) {
        left.remove(address.split('/').next().expect("an address"));
    }
    assert_eq!(leased(&lab, "net1"), left);

    // A host that lost its documents has the store's word; one without the store tells it later.
    one.host().script("rm -r /run/crosshost");
    let keep = collecting(&conf, key, json!([one_is("c1", "eth0")]));
    gc(&keep).ok();
    let bare = held
        .iter()
        .map(|text| text.split('/').next().expect("an address").to_owned());
    let kept: BTreeSet<_> = others.0.iter().cloned().chain(bare).collect();
    assert_eq!(leased(&lab, "net1"), kept);
    one.host().sync();
    one.host().configure(NO_STORE);
    gc(&conf).refused(11, &["192.168.1.5:1"]);
    one.host().configure(&lab.store_url());
    assert_eq!(leased(&lab, "net1"), kept);
    one.host().sync();
    assert_eq!((leased(&lab, "net1"), leased(&lab, "net2")), others);
}

#[test]
fn an_address_needs_no_namespace() {
    let lab = Lab::new(1, Backend::Dir);
    let host = Direct::on(lab.host(1));
    let mut conf = both_families();
    for netns in ["/run/netns/absent", "/proc/self/ns/net", "/etc/hostname"] {
        let call = |verb: &str, conf: &Value| host.call(verb, "c1", conf).netns(netns).run();
        let result = call("ADD", &conf).ok().json();
        assert_eq!(addresses_in(&result).len(), 2, "{netns}");
        conf["prevResult"] = result;
        call("CHECK", &conf).ok();
        call("DEL", &conf).ok();
    }
    assert_eq!(leased(&lab, "net1"), BTreeSet::new());
    let unnamed = host.call("ADD", "c1", &conf).netns("").run();
    unnamed.refused(4, &["CNI_NETNS"]);
}
