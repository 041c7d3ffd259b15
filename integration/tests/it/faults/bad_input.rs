//! Input that is wrong, each kind once: the answer is one CNI error object with the right code that
//! names the key and the value, it comes in bounded time, and nothing on the host or in the store moved.

use std::time::Duration;

use crate::faults::unchanged::{BOTH, Bench, Code, SUBNET, faults, with, without};
use integration::{Backend, Call, Lab, Programs};
use serde_json::{Value, json};

const OVERLAY: &[&str] = &["overlay"];

/// One kind of wrong input.
struct Case {
    what: &'static str,
    plugins: &'static [&'static str],
    change: fn(Call) -> Call,
    codes: &'static [Code],
    says: &'static [&'static str],
}

use Code::{Own, Spec};

const CASES: &[Case] = &[
    Case {
        what: "not JSON",
        plugins: BOTH,
        change: |call| call.stdin("{ cniVersion: 1.0.0 }"),
        codes: &[Spec(6)],
        says: &[],
    },
    Case {
        what: "nothing at all",
        plugins: BOTH,
        change: |call| call.stdin(""),
        codes: &[Spec(6)],
        says: &[],
    },
    Case {
        what: "a list where an object belongs",
        plugins: BOTH,
        change: |call| call.stdin("[1, 2]"),
        codes: &[Spec(6), Spec(7)],
        says: &[],
    },
    Case {
        what: "text for a number",
        plugins: OVERLAY,
        change: |call| call.conf(&with("/mtu", json!("large"))),
        codes: &[Spec(7)],
        says: &["mtu", "large"],
    },
    Case {
        what: "a number for an object",
        plugins: BOTH,
        change: |call| call.conf(&with("/ipam", json!(5))),
        codes: &[Spec(7)],
        says: &["ipam", "5"],
    },
    Case {
        what: "an object for a list",
        plugins: BOTH,
        change: |call| call.conf(&with("/ipam/ranges", json!({ "subnet": SUBNET }))),
        codes: &[Spec(7)],
        says: &["ipam.ranges"],
    },
    Case {
        what: "a VNI of more than 24 bits",
        plugins: OVERLAY,
        change: |call| call.conf(&with("/vni", json!(16_777_216))),
        codes: &[Spec(7)],
        says: &["vni", "16777216"],
    },
    Case {
        what: "an unknown cniVersion",
        plugins: BOTH,
        change: |call| call.conf(&with("/cniVersion", json!("9.9.9"))),
        codes: &[Spec(1)],
        says: &["9.9.9", "1.1.0"],
    },
    Case {
        what: "a cniVersion that is none",
        plugins: BOTH,
        change: |call| call.conf(&with("/cniVersion", json!("latest"))),
        codes: &[Spec(1), Spec(6)],
        says: &["latest"],
    },
    Case {
        what: "a network name with a slash",
        plugins: BOTH,
        change: |call| call.conf(&with("/name", json!("../ov_net1"))),
        codes: &[Spec(7)],
        says: &["name", "../ov_net1"],
    },
    Case {
        what: "a prefix that is too long",
        plugins: BOTH,
        change: |call| call.conf(&with("/ipam/ranges/0/0/subnet", json!("10.0.0.0/33"))),
        codes: &[Spec(7)],
        says: &["subnet", "10.0.0.0/33"],
    },
    Case {
        what: "a subnet that is no CIDR",
        plugins: BOTH,
        change: |call| call.conf(&with("/ipam/ranges/0/0/subnet", json!("ten"))),
        codes: &[Spec(7)],
        says: &["subnet", "ten"],
    },
    Case {
        what: "host bits in a subnet",
        plugins: BOTH,
        change: |call| call.conf(&with("/ipam/ranges/0/0/subnet", json!("10.0.0.5/24"))),
        codes: &[Spec(7)],
        says: &["subnet", "10.0.0.5/24"],
    },
    Case {
        what: "a gateway outside of its subnet",
        plugins: BOTH,
        change: |call| call.conf(&with("/ipam/ranges/0/0/gateway", json!("10.9.9.9"))),
        codes: &[Spec(7)],
        says: &["gateway", "10.9.9.9"],
    },
    Case {
        what: "no ipam",
        plugins: BOTH,
        change: |call| call.conf(&without("ipam")),
        codes: &[Spec(7)],
        says: &["ipam"],
    },
    Case {
        what: "an ipam plugin that is not installed",
        plugins: OVERLAY,
        change: |call| call.conf(&with("/ipam/type", json!("nowhere-ipam"))),
        codes: &[Spec(5), Spec(7), Own],
        says: &["nowhere-ipam"],
    },
    Case {
        what: "a store of an unknown kind",
        plugins: BOTH,
        change: |call| call.conf(&with("/store", json!({ "url": "redis://10.0.0.1" }))),
        codes: &[Spec(7)],
        says: &["store.url", "redis://10.0.0.1"],
    },
    Case {
        what: "no CNI_NETNS",
        plugins: OVERLAY,
        change: |call| call.netns(""),
        codes: &[Spec(4)],
        says: &["CNI_NETNS"],
    },
    Case {
        what: "a namespace that is not there",
        plugins: OVERLAY,
        change: |call| call.netns("/run/netns/absent"),
        codes: &[Spec(3), Spec(8)],
        says: &["/run/netns/absent"],
    },
    Case {
        what: "a namespace that is a plain file",
        plugins: OVERLAY,
        change: |call| call.netns("/etc/hostname"),
        codes: &[Spec(3), Spec(8)],
        says: &["/etc/hostname"],
    },
    Case {
        what: "the host's own namespace",
        plugins: OVERLAY,
        change: |call| call.netns("/proc/self/ns/net"),
        codes: &[Spec(8)],
        says: &["/proc/self/ns/net"],
    },
    Case {
        what: "a key that nearly is one of ours",
        plugins: OVERLAY,
        change: |call| call.conf(&with("/egres", json!("none"))),
        codes: &[Spec(7)],
        says: &["egres", "did you mean egress?"],
    },
    Case {
        what: "a key of the way out that nearly is one",
        plugins: OVERLAY,
        change: |call| {
            let egress = json!({ "mode": "gwbridge", "subnt": "172.20.0.0/16" });
            call.conf(&with("/egress", egress))
        },
        codes: &[Spec(7)],
        says: &["egress.subnt", "did you mean subnet?"],
    },
    Case {
        what: "a key of the node that nearly is one",
        plugins: OVERLAY,
        change: |call| call.conf(&with("/node", json!({ "vtpe": "192.168.1.11" }))),
        codes: &[Spec(7)],
        says: &["node.vtpe", "did you mean vtep?"],
    },
    Case {
        what: "a key of the store that nearly is one",
        plugins: BOTH,
        change: |call| call.conf(&with("/store", json!({ "Prefx": "other" }))),
        codes: &[Spec(7)],
        says: &["store.Prefx", "did you mean prefix?"],
    },
    Case {
        what: "a key of the pools that nearly is one",
        plugins: BOTH,
        change: |call| call.conf(&with("/ipam/rangs", json!([[{ "subnet": "10.7.0.0/24" }]]))),
        codes: &[Spec(7)],
        says: &["ipam.rangs", "did you mean ranges?"],
    },
    Case {
        what: "a key of a range that nearly is one",
        plugins: BOTH,
        change: |call| {
            let range = json!([[{ "subnet": SUBNET, "rangeEndd": "10.0.0.9" }]]);
            call.conf(&with("/ipam/ranges", range))
        },
        codes: &[Spec(7)],
        says: &["ipam.ranges[0][0].rangeEndd", "did you mean rangeEnd?"],
    },
    Case {
        what: "an IPAM plugin that knows nothing of other hosts",
        plugins: OVERLAY,
        change: |call| call.conf(&with("/ipam/type", json!("host-local"))),
        codes: &[Spec(7)],
        says: &["ipam.type", "host-local", "ipamScope"],
    },
    Case {
        what: "a scope that is none",
        plugins: OVERLAY,
        change: |call| call.conf(&with("/ipamScope", json!("hosts"))),
        codes: &[Spec(7)],
        says: &["ipamScope", "hosts"],
    },
    Case {
        what: "a name after which no file can be named",
        plugins: BOTH,
        change: |call| call.conf(&with("/name", json!("n".repeat(248)))),
        codes: &[Spec(7)],
        says: &["network name", "247 bytes"],
    },
    Case {
        what: "the longest name that the specification has",
        plugins: BOTH,
        change: |call| call.conf(&with("/name", json!("n".repeat(255)))),
        codes: &[Spec(7)],
        says: &["network name", "247 bytes"],
    },
    Case {
        what: "a namespace of another kind",
        plugins: OVERLAY,
        change: |call| call.netns("/proc/self/ns/mnt"),
        codes: &[Spec(8)],
        says: &["/proc/self/ns/mnt"],
    },
    Case {
        what: "another namespace of another kind",
        plugins: OVERLAY,
        change: |call| call.netns("/proc/self/ns/pid"),
        codes: &[Spec(8)],
        says: &["/proc/self/ns/pid"],
    },
    Case {
        what: "an interface name that is taken",
        plugins: OVERLAY,
        change: |call| call.ifname("taken0"),
        codes: &[Spec(4), Own],
        says: &["taken0"],
    },
    Case {
        what: "an interface name that is too long",
        plugins: BOTH,
        change: |call| call.ifname("sixteen-letters-"),
        codes: &[Spec(4)],
        says: &["CNI_IFNAME", "sixteen-letters-"],
    },
    Case {
        what: "a container id with a slash",
        plugins: BOTH,
        change: |call| call.id("../../etc/passwd"),
        codes: &[Spec(4)],
        says: &["CNI_CONTAINERID", "../../etc/passwd"],
    },
    Case {
        what: "no container id",
        plugins: BOTH,
        change: |call| call.id(""),
        codes: &[Spec(4)],
        says: &["CNI_CONTAINERID"],
    },
    Case {
        what: "an unknown verb",
        plugins: BOTH,
        change: |call| call.env("CNI_COMMAND", "FOO"),
        codes: &[Spec(4)],
        says: &["CNI_COMMAND", "FOO"],
    },
    Case {
        what: "10 MB of standard input",
        plugins: BOTH,
        change: |call| call.conf(&with("/padding", json!("x".repeat(10_000_000)))),
        codes: &[Spec(5), Spec(6), Spec(7)],
        says: &[],
    },
];

#[test]
fn is_answered_by_a_cni_error_and_changes_nothing() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    bench.container.run("ip link add taken0 type bridge").ok();
    let mut wrong = Vec::new();
    for case in CASES {
        for plugin in case.plugins {
            let before = bench.state();
            let said = (case.change)(bench.add(plugin)).run();
            let mut faults = faults(&said, case.codes, case.says);
            if said.took > Duration::from_secs(2) {
                faults.push(format!("took {:?}", said.took));
            }
            faults.extend(bench.changed_since(&before));
            if !faults.is_empty() {
                wrong.push(format!(
                    "{plugin}, {}: {}\n  {said}",
                    case.what,
                    faults.join("; ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The bench itself is sound: unchanged input attaches.
    bench.add("overlay").run().ok();
}

#[test]
fn the_longest_network_name_works_from_its_creation_to_its_removal() {
    let lab = Lab::new(1, Backend::Dir);
    let (host, name) = (lab.host(1), "n".repeat(247));
    let container = host.container("t1");
    let before = host.footprint();
    let (too_long, subnet) = (format!("{name}n"), ["--subnet", "10.1.0.0/24"]);
    let refused = host.crosshost(&["network", "create", &too_long, subnet[0], subnet[1]]);
    assert!(refused.failed().stderr.contains("247 bytes"));
    assert_eq!(host.listed("network ls"), json!([]));
    host.crosshost(&["network", "create", &name, subnet[0], subnet[1]])
        .ok();
    let mut conf = with("/name", json!(name));
    conf["cniVersion"] = "1.1.0".into();
    conf["ipam"] = json!({ "type": "ipam-kv" });
    let call = |verb: &str, conf: &Value| {
        let call = host.call("overlay", verb).id("c1").conf(conf);
        call.netns(&container.netns()).run().ok()
    };
    call("STATUS", &conf);
    conf["prevResult"] = call("ADD", &conf).json();
    call("CHECK", &conf);
    host.sync();
    conf["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    call("GC", &conf);
    call("CHECK", &conf);
    call("DEL", &conf);
    host.crosshost(&["network", "rm", &name]).ok();
    host.footprint()
        .assert_same_as(&before, "after its removal");
    // What can never have been made is removed without a word.
    conf["name"] = too_long.into();
    for verb in ["DEL", "GC"] {
        call(verb, &conf);
    }
}

#[test]
fn portmap_refuses_a_key_that_nearly_is_one_of_its_own_and_lets_others_pass() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let container = host.container("t1");
    let conf = json!({
        "cniVersion": "1.0.0", "name": "n", "type": "portmap", "mode": "theirs", "vlan": 7,
        "prevResult": { "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.2/24" }] },
    });
    let add = |conf: &Value| {
        let call = host.call("portmap", "ADD").id("c1").conf(conf);
        call.netns(&container.netns()).run()
    };
    add(&conf).ok();
    for (key, meant) in [
        ("snatt", "snat"),
        ("masqall", ""),
        ("conditionV4", "conditionsV4"),
    ] {
        let mut conf = conf.clone();
        conf[key] = Value::Null;
        let said = add(&conf);
        match meant {
            "" => drop(said.ok()),
            meant => drop(said.refused(7, &[key, meant])),
        }
    }
    let mut long = conf.clone();
    long["name"] = "n".repeat(248).into();
    add(&long).refused(7, &["247 bytes"]);
}

/// What this host keeps for itself is no container, though it is a network namespace.
#[test]
fn a_sandbox_is_no_container() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    bench.add("overlay").run().ok();
    let host = lab.host(1);
    let sandbox = "/run/crosshost/netns/ov_net1";
    host.script(&format!(
        "touch /run/copy; mount --bind {sandbox} /run/copy"
    ));
    let egress = "/run/crosshost/egress-netns/ch-egress";
    let before = bench.state();
    for path in [sandbox, "/run/copy", egress] {
        let add = bench.add("overlay").id("c2").netns(path).run();
        add.refused(8, &[path, "no container"]);
        assert_eq!(bench.changed_since(&before), [""; 0], "{path}");
    }
    host.script("umount /run/copy");
}

/// Copies and links of a plugin under another name that ends in the plugin's are the plugin itself.
#[test]
fn a_plugin_that_is_its_own_ipam_plugin_is_refused_at_once() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    let (host, own) = (lab.host(1), Programs::product("overlay"));
    host.script(&format!(
        "mkdir /run/again; cp {0} /run/again/copied-overlay; ln -s {0} /run/again/linked-overlay",
        own.display()
    ));
    let path = format!("/run/again:{}", Programs::cni_path());
    for again in ["copied-overlay", "linked-overlay"] {
        let conf = with("/ipam/type", json!(again));
        let before = bench.state();
        let add = bench
            .add("overlay")
            .env("CNI_PATH", &path)
            .conf(&conf)
            .run();
        add.refused(7, &["IPAM plugin"]);
        assert_eq!(bench.changed_since(&before), [""; 0], "{again}");
        let mut conf = conf;
        conf["cniVersion"] = "1.1.0".into();
        let status = host
            .call("overlay", "STATUS")
            .env("CNI_PATH", &path)
            .conf(&conf);
        status.run().refused(7, &["IPAM plugin"]);
    }
}

#[test]
fn an_ipam_plugin_that_gives_thousands_of_addresses_is_refused() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    let host = lab.host(1);
    host.write(
        "/run/many/many",
        r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
printf '{"cniVersion":"1.0.0","ips":['
awk 'BEGIN { for (n = 0; n < 20000; n++) printf "{\"address\":\"10.1.%d.%d/32\"},", n / 200, n % 200 }'
printf '{"address":"10.0.0.2/24"}]}'
"#,
    );
    host.script("chmod +x /run/many/many");
    let path = format!("/run/many:{}", Programs::cni_path());
    let before = bench.state();
    let add = bench
        .add("overlay")
        .env("CNI_PATH", path)
        .conf(&with("/ipam/type", json!("many")));
    add.run().refused(6, &["many", "20001 addresses", "64"]);
    assert_eq!(bench.changed_since(&before), [""; 0]);
}
