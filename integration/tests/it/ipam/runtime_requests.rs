//! What a runtime asks of `ipam-kv` beside the configuration: addresses, in each of the three places where runtimes put
//! them, and ranges. Each word is said in the form that CONVENTIONS.md of the CNI specification gives it, and in those
//! that nerdctl, podman, multus and go-cni send. Which host owns the asked address is another matter: here it is
//! a free one, or the host's own.

use std::collections::BTreeSet;

use crate::ipam::attached;
use crate::store_reader::leased;
use integration::{Backend, Direct, Lab, addresses_in, ipamconf};
use serde_json::{Value, json};

/// A pool of both families, of which a part is given without being asked for.
fn both_families() -> Value {
    let v4 =
        json!({ "subnet": "10.6.0.0/24", "rangeStart": "10.6.0.10", "rangeEnd": "10.6.0.200" });
    let v6 = json!({ "subnet": "fd00:6::/64", "exclude": ["fd00:6::fe"] });
    ipamconf("net1", json!({ "ranges": [[v4], [v6]] }))
}

/// A request: `runtimeConfig`, `args` and `CNI_ARGS`, each as a runtime fills it in.
struct Asked {
    runtime_config: Value,
    args: Value,
    cni_args: &'static str,
}

fn capability(ips: Value) -> Asked {
    let runtime_config = Value::from_iter([("ips", ips)]);
    Asked {
        runtime_config,
        args: Value::Null,
        cni_args: "",
    }
}

fn args(ips: Value) -> Asked {
    let args = json!({ "cni": Value::from_iter([("ips", ips)]) });
    Asked {
        runtime_config: Value::Null,
        args,
        cni_args: "",
    }
}

fn cni_args(cni_args: &'static str) -> Asked {
    Asked {
        runtime_config: Value::Null,
        args: Value::Null,
        cni_args,
    }
}

impl Asked {
    /// The configuration with the request; `CNI_ARGS` has to be set beside it.
    fn over(&self, mut conf: Value) -> Value {
        conf["runtimeConfig"] = self.runtime_config.clone();
        conf["args"] = self.args.clone();
        conf
    }
}

#[test]
fn an_address_is_asked_for_in_three_places_with_and_without_a_length() {
    let lab = Lab::new(1, Backend::Consul);
    let host = Direct::on(lab.host(1));
    let mixed = Asked {
        runtime_config: json!({ "ips": ["fd00:6::99"] }),
        args: json!({ "cni": { "ips": ["10.6.0.99/24"] } }),
        cni_args: "IP=10.6.0.99",
    };
    let nerdctl = Asked {
        cni_args: "IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=web;IP=10.6.0.98",
        ..capability(json!(["fd00:6::98"]))
    };
    let cases = [
        (capability(json!(["10.6.0.77"])), "10.6.0.77", ""),
        (capability(json!(["10.6.0.78/24"])), "10.6.0.78", ""),
        (capability(json!(["fd00:6::77"])), "", "fd00:6::77"),
        (
            capability(json!(["fd00:6::78/64", "10.6.0.11"])),
            "10.6.0.11",
            "fd00:6::78",
        ),
        (capability(json!(["10.6.0.9"])), "10.6.0.9", ""),
        (capability(json!(["10.6.0.254/24"])), "10.6.0.254", ""),
        (args(json!(["10.6.0.79"])), "10.6.0.79", ""),
        (
            args(json!(["FD00:6:0::79/64", "10.6.0.80/24"])),
            "10.6.0.80",
            "fd00:6::79",
        ),
        (cni_args("IP=10.6.0.81"), "10.6.0.81", ""),
        (
            cni_args("IgnoreUnknown=1;K8S_POD_NAME=a=b;IP=10.6.0.82/24;MAC="),
            "10.6.0.82",
            "",
        ),
        (cni_args("IP=fd00:6::81"), "", "fd00:6::81"),
        (
            cni_args("IP=10.6.0.83,fd00:6::83/64"),
            "10.6.0.83",
            "fd00:6::83",
        ),
        (nerdctl, "10.6.0.98", "fd00:6::98"),
        (mixed, "10.6.0.99", "fd00:6::99"),
    ];
    for (asked, v4, v6) in cases {
        let conf = asked.over(both_families());
        let what = format!("{conf} {}", asked.cni_args);
        let call = |verb| host.call(verb, "c1", &conf).env("CNI_ARGS", asked.cni_args);
        let result = call("ADD").run().ok().json();
        let [one, two] = &addresses_in(&result)[..] else {
            panic!("two addresses: {result:#}")
        };
        // The length is the pool's, and the family that is not asked for has an address too.
        assert!(
            one.starts_with("10.6.0.") && one.ends_with("/24"),
            "{one}: {what}"
        );
        assert!(
            two.starts_with("fd00:6::") && two.ends_with("/64"),
            "{two}: {what}"
        );
        assert!(v4.is_empty() || *one == format!("{v4}/24"), "{one}: {what}");
        assert!(v6.is_empty() || *two == format!("{v6}/64"), "{two}: {what}");
        let bare = [one, two].map(|text| text.split('/').next().expect("an address").to_owned());
        assert_eq!(leased(&lab, "net1"), bare.into(), "{what}");
        call("DEL").run().ok();
        assert_eq!(leased(&lab, "net1"), BTreeSet::new(), "{what}");
    }
}

#[test]
fn nothing_asked_for_is_no_request() {
    let lab = Lab::new(1, Backend::Dir);
    let host = Direct::on(lab.host(1));
    let nothing = Asked {
        runtime_config: json!({}),
        args: json!({ "cni": {} }),
        cni_args: "IP=",
    };
    let cases = [
        capability(json!([])),
        capability(Value::Null),
        args(json!([])),
        args(Value::Null),
        cni_args(";;"),
        nothing,
        Asked {
            runtime_config: json!({ "ipRanges": [] }),
            args: json!({}),
            cni_args: "A;B=",
        },
        Asked {
            runtime_config: json!({ "ipRanges": null }),
            args: json!({ "cni": null }),
            cni_args: "ip=10.6.0.5",
        },
    ];
    for (number, asked) in cases.into_iter().enumerate() {
        let mut conf = asked.over(both_families());
        conf["ipam"]["dataDir"] = format!("/srv/{number}").into();
        let call = host
            .call("ADD", "c1", &conf)
            .env("CNI_ARGS", asked.cni_args);
        let result = call.run().ok().json();
        assert_eq!(
            addresses_in(&result),
            ["10.6.0.10/24", "fd00:6::a/64"],
            "{conf}"
        );
    }
}

#[test]
fn what_cannot_be_given_is_refused_by_its_name_and_holds_nothing() {
    let lab = Lab::new(1, Backend::Consul);
    let host = Direct::on(lab.host(1));
    // The network is there, and one address is given away.
    let held = capability(json!(["10.6.0.50", "fd00:6::50"])).over(both_families());
    host.given("holder", &held);
    let before = leased(&lab, "net1");
    let cases: [(Asked, u32, &[&str]); 16] = [
        (
            capability(json!(["10.7.0.5"])),
            108,
            &["10.7.0.5", "10.6.0.10-10.6.0.200 of 10.6.0.0/24"],
        ),
        (
            capability(json!(["10.6.0.1"])),
            108,
            &["10.6.0.1:", "gateway"],
        ),
        (capability(json!(["10.6.0.0/24"])), 108, &["10.6.0.0:"]),
        (capability(json!(["10.6.0.255"])), 108, &["10.6.0.255:"]),
        (capability(json!(["fd00:6::"])), 108, &["fd00:6:::"]),
        (
            capability(json!(["fd00:6::fe"])),
            108,
            &["fd00:6::fe:", "excluded"],
        ),
        (capability(json!(["fd00:7::5"])), 108, &["fd00:7::5"]),
        (
            capability(json!(["10.6.0.20", "10.6.0.21"])),
            108,
            &["10.6.0.20", "10.6.0.21"],
        ),
        (args(json!(["10.6.0.1"])), 108, &["10.6.0.1:"]),
        (cni_args("IP=10.7.0.5"), 108, &["10.7.0.5"]),
        // Half of what is asked for is held: the other half stays free.
        (
            capability(json!(["10.6.0.22", "fd00:6::50"])),
            108,
            &["fd00:6::50", "holder", "docker01"],
        ),
        (
            capability(json!(["10.6.0.300"])),
            7,
            &["runtimeConfig.ips", "10.6.0.300"],
        ),
        (
            capability(json!("10.6.0.30")),
            7,
            &["runtimeConfig.ips", "10.6.0.30"],
        ),
        (
            args(json!(["10.6.0.31/33"])),
            7,
            &["args.cni.ips", "10.6.0.31/33"],
        ),
        (cni_args("IP=ten"), 4, &["CNI_ARGS", "IP", "ten"]),
        (
            cni_args("IP=10.6.0.32;IP=10.6.0"),
            4,
            &["CNI_ARGS", "IP", "10.6.0"],
        ),
    ];
    for (asked, code, words) in cases {
        let conf = asked.over(both_families());
        let call = host.call("ADD", "c1", &conf);
        call.env("CNI_ARGS", asked.cni_args)
            .run()
            .refused(code, words);
        assert_eq!(leased(&lab, "net1"), before, "{conf}");
    }
}

#[test]
fn what_is_asked_for_comes_through_bridge_to_the_container() {
    let lab = Lab::new(2, Backend::Consul);
    let places = [
        (
            1,
            "10.6.0.61",
            "fd00:6::61",
            Asked {
                cni_args: "IgnoreUnknown=1;IP=10.6.0.61",
                ..capability(json!(["fd00:6::61"]))
            },
        ),
        (
            2,
            "10.6.0.162",
            "fd00:6::162",
            capability(json!(["10.6.0.162/24", "fd00:6::162/64"])),
        ),
        (
            2,
            "10.6.0.163",
            "fd00:6::163",
            args(json!(["10.6.0.163", "fd00:6::163/64"])),
        ),
    ];
    for (number, v4, v6, asked) in places {
        let host = lab.host(number);
        let container = host.container(&format!("c{}", v4.replace('.', "-")));
        let mut conf = asked.over(both_families());
        conf["cniVersion"] = "1.0.0".into();
        let call = |verb| {
            let call = host
                .reference("bridge", verb)
                .id(container.name())
                .netns(&container.netns());
            call.env("CNI_ARGS", asked.cni_args).conf(&conf)
        };
        let result = call("ADD").run().ok().json();
        let wanted = [format!("{v4}/24"), format!("{v6}/64")];
        assert_eq!(addresses_in(&result), wanted);
        let inside = attached::addresses(&container, "eth0");
        let inside: Vec<_> = inside.iter().map(ToString::to_string).collect();
        assert_eq!(inside, [v4, v6]);
        call("DEL").run().ok();
        assert_eq!(leased(&lab, "net1"), BTreeSet::new());
    }
}

#[test]
fn ranges_of_the_runtime_inside_the_pools_narrow_the_choice() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let conf = |ranges: Value| {
        let pools = json!([[{ "subnet": "10.7.0.0/24", "exclude": ["10.7.0.51"] }], [{ "subnet": "10.8.0.0/24" }]]);
        let mut conf = ipamconf("net1", json!({ "ranges": pools }));
        conf["runtimeConfig"] = json!({ "ipRanges": ranges });
        conf
    };
    let few =
        json!({ "subnet": "10.7.0.0/24", "rangeStart": "10.7.0.50", "rangeEnd": "10.7.0.53" });
    // Sets, as the convention has it; ranges alone, as go-cni's type has it; a part of a pool as a subnet.
    let narrow = [
        json!([[few]]),
        json!([few]),
        json!([[{ "subnet": "10.7.0.52/30", "rangeEnd": "10.7.0.53" }]]),
    ];
    let mut got = BTreeSet::new();
    for (number, ranges) in narrow.into_iter().enumerate() {
        let given = hosts[0].given(&format!("c{number}"), &conf(ranges));
        assert!(given[1].starts_with("10.8.0."), "{given:?}");
        got.insert(given[0].clone());
    }
    assert_eq!(
        got,
        [50, 52, 53].map(|last| format!("10.7.0.{last}/24")).into()
    );
    // The part is full, the pools are not.
    let before = leased(&lab, "net1");
    for host in &hosts {
        host.add("more", &conf(json!([[few]])))
            .refused(102, &["net1", "exhausted"]);
    }
    assert_eq!(leased(&lab, "net1"), before);
    for host in &hosts {
        host.given("more", &conf(Value::Null));
    }
    let other = json!([[{ "subnet": "10.8.0.0/24", "rangeStart": "10.8.0.200", "rangeEnd": "10.8.0.200" }]]);
    let given = hosts[1].given("c1", &conf(other));
    assert!(
        given[0].starts_with("10.7.0.") && given[1] == "10.8.0.200/24",
        "{given:?}"
    );
    let backwards =
        json!([[{ "subnet": "10.7.0.0/24", "rangeStart": "10.7.0.9", "rangeEnd": "10.7.0.8" }]]);
    hosts[0]
        .add("bad", &conf(backwards))
        .refused(7, &["runtimeConfig.ipRanges", "rangeEnd", "10.7.0.8"]);
    for nothing in ["10.7.0.1", "10.7.0.51"] {
        let nothing =
            json!({ "subnet": "10.7.0.0/24", "rangeStart": nothing, "rangeEnd": nothing });
        let words = ["runtimeConfig.ipRanges", "10.7.0.", "no address is left"];
        hosts[0]
            .add("bad", &conf(json!([[nothing]])))
            .refused(7, &words);
    }
}

#[test]
fn ranges_of_the_runtime_that_are_no_part_of_a_pool_are_pools_before_the_others() {
    let lab = Lab::new(1, Backend::Dir);
    let host = Direct::on(lab.host(1));
    let own = [
        json!({}),
        json!({ "ranges": [[{ "subnet": "10.7.0.0/24" }]] }),
        json!({ "subnet": "10.9.0.0/24", "ranges": [[{ "subnet": "10.7.0.0/24" }]] }),
    ];
    let wanted: [&[&str]; 3] = [
        &["10.6.0.2/24"],
        &["10.6.0.2/24", "10.7.0.2/24"],
        &["10.6.0.2/24", "10.9.0.2/24", "10.7.0.2/24"],
    ];
    for (number, (own, wanted)) in own.into_iter().zip(wanted).enumerate() {
        let mut conf = ipamconf("net1", own);
        conf["ipam"]["dataDir"] = format!("/srv/{number}").into();
        conf["runtimeConfig"] = json!({ "ipRanges": [[{ "subnet": "10.6.0.0/24" }]] });
        assert_eq!(host.given("c1", &conf), wanted);
        // They are the network's from now on: one attachment cannot have it otherwise than the others.
        conf["runtimeConfig"] = json!({ "ipRanges": [[{ "subnet": "10.10.0.0/24" }]] });
        host.add("c2", &conf)
            .refused(103, &["net1", "10.10.0.0/24", "10.6.0.0/24"]);
    }
}
