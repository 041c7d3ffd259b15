//! Input that is wrong, each kind once: the answer is one CNI error object with the right code that
//! names the key and the value, it comes in bounded time, and nothing on the host or in the store moved.

mod reader;
mod untouched;

use std::time::Duration;

use integration::{Backend, Call, Lab};
use serde_json::json;
use untouched::{BOTH, Bench, Code, SUBNET, faults, with, without};

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
    bench
        .container
        .run(&["ip", "link", "add", "taken0", "type", "bridge"])
        .ok();
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
