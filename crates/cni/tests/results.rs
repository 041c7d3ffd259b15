//! Results in all versions: what goes through unchanged, and what a version cannot say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cni::{Answer, CniResult, Dns, Interface, Ip, Route, Version};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// Reads `value` and writes it again in its own version.
fn passed(value: &Value, version: Version) -> Value {
    let result = CniResult::from_value(value, version).unwrap();
    result.to_value(version).unwrap()
}

#[test]
fn a_chained_plugin_passes_on_what_it_got() {
    let newest = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "br0", "mac": "02:00:00:00:00:01", "mtu": 1450},
            {"name": "eth0", "mac": "02:42:0a:00:00:02", "sandbox": "/proc/7/ns/net", "socketPath": "/s", "pciID": "1", "vlan": 7}
        ],
        "ips": [
            {"interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1", "x-label": "a"},
            {"interface": 1, "address": "fd00::2/128"}
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1400, "advmss": 1360, "priority": 100, "table": 50, "scope": 0, "x": {}}],
        "dns": {"nameservers": ["10.0.0.53"], "domain": "a", "search": ["a"], "options": ["ndots:1"], "x": [1]},
        "x-unknown": {"deep": [1, null]}
    });
    assert_eq!(passed(&newest, Version::V1_1_0), newest);
    let mut older = newest;
    for version in [
        Version::V1_0_0,
        Version::V0_4_0,
        Version::V0_3_1,
        Version::V0_3_0,
    ] {
        older["cniVersion"] = version.as_str().into();
        if version < Version::V1_0_0 {
            older["ips"][0]["version"] = "4".into();
            older["ips"][1]["version"] = "6".into();
        }
        assert_eq!(passed(&older, version), older);
    }
    let oldest = json!({
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.1.0.0/16", "gw": "10.0.0.9"}], "x": 1},
        "ip6": {"ip": "fd00::2/64"},
        "dns": {"domain": "a"},
        "x": true
    });
    assert_eq!(passed(&oldest, Version::V0_2_0), oldest);
}

/// Found by fuzzing: an old result's unknown key `interface` made a new one that could not be read.
#[test]
fn an_unknown_key_means_nothing_in_another_form() {
    let oldest = json!({"ip4": {"ip": "10.0.0.2/24", "interface": "x"}, "IPs": 5, "x": 1});
    let result = CniResult::from_value(&oldest, Version::V0_2_0).unwrap();
    assert_eq!(
        result.to_value(Version::V1_0_0).unwrap(),
        json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}], "x": 1})
    );
    let newest = json!({"ips": [{"address": "10.0.0.2/24", "routes": 1}], "IP6": 2});
    let result = CniResult::from_value(&newest, Version::V1_1_0).unwrap();
    assert_eq!(
        result.to_value(Version::V0_1_0).unwrap(),
        json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.0.0.2/24"}})
    );
}

#[test]
fn the_form_of_each_version() {
    let result = CniResult {
        interfaces: vec![Interface {
            name: "eth0".into(),
            mtu: Some(1450),
            sandbox: Some("/n".into()),
            ..Interface::default()
        }],
        ips: vec![
            Ip {
                interface: Some(0),
                ..Ip::new("10.0.0.2/24".parse().unwrap())
            },
            Ip {
                interface: Some(0),
                ..Ip::new("fd00::2/64".parse().unwrap())
            },
        ],
        routes: vec![Route {
            mtu: Some(1400),
            ..Route::to("::/0".parse().unwrap())
        }],
        ..CniResult::default()
    };
    let in_version = |version| result.to_value(version).unwrap();
    let routes = json!([{"dst": "::/0", "mtu": 1400}]);
    assert_eq!(
        in_version(Version::V1_1_0),
        json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "mtu": 1450, "sandbox": "/n"}], "routes": routes,
            "ips": [{"interface": 0, "address": "10.0.0.2/24"}, {"interface": 0, "address": "fd00::2/64"}]})
    );
    assert_eq!(
        in_version(Version::V0_4_0),
        json!({"cniVersion": "0.4.0", "interfaces": [{"name": "eth0", "sandbox": "/n"}], "routes": routes,
            "ips": [{"version": "4", "interface": 0, "address": "10.0.0.2/24"}, {"version": "6", "interface": 0, "address": "fd00::2/64"}]})
    );
    assert_eq!(
        in_version(Version::V0_1_0),
        json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.0.0.2/24"}, "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0"}]}})
    );
}

#[test]
fn the_oldest_versions_need_an_address() {
    for version in Version::ALL {
        let written = CniResult::default().to_value(version);
        if version < Version::V0_3_0 {
            assert_eq!(written.unwrap_err().code, 7);
        } else {
            assert_eq!(written.unwrap(), json!({"cniVersion": version.as_str()}));
        }
    }
}

#[test]
fn what_foreign_plugins_print() {
    let empty = CniResult::default();
    for value in [
        json!(null),
        json!({}),
        json!({"cniVersion": "", "dns": {}, "routes": null, "ips": null, "interfaces": []}),
        json!({"CNIVersion": "1.0.0"}),
    ] {
        let result = CniResult::from_value(&value, Version::V1_0_0).unwrap();
        assert_eq!(result, empty, "{value}");
    }
    let value = json!({"ips": [{"version": "4", "address": "10.0.0.2/24", "gateway": ""}], "interfaces": [{"name": "a", "sandbox": ""}]});
    let result = CniResult::from_value(&value, Version::V0_4_0).unwrap();
    assert_eq!(result.ips, [Ip::new("10.0.0.2/24".parse().unwrap())]);
    assert_eq!(result.interfaces[0].sandbox, None);
}

#[test]
fn its_own_version_goes_before_the_default() {
    let old = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}});
    let result = CniResult::from_value(&old, Version::V1_1_0).unwrap();
    assert_eq!(result.ips, [Ip::new("10.0.0.2/24".parse().unwrap())]);
}

#[test]
fn addresses_stay_as_they_are() {
    for (sent, kept) in [
        ("10.0.0.2/32", "10.0.0.2/32"),
        ("10.0.0.200/8", "10.0.0.200/8"),
        ("FD00::A/128", "fd00::a/128"),
        ("::ffff:10.0.0.1/120", "::ffff:10.0.0.1/120"),
    ] {
        let value = json!({"ips": [{"address": sent}]});
        let written = passed(&value, Version::V1_1_0);
        assert_eq!(written["ips"][0]["address"], kept);
    }
}

#[test]
fn what_is_not_understood_is_code_6_with_path_and_value() {
    for (value, message) in [
        (
            json!({"ips": [{"address": "10.0.0.2"}]}),
            r#"ips[0].address: "10.0.0.2" has no prefix length"#,
        ),
        (
            json!({"ips": [{"address": "10.0.0.2/33"}]}),
            r#"ips[0].address: "10.0.0.2/33" is not an address with prefix length"#,
        ),
        (
            json!({"ips": [{"gateway": "10.0.0.1"}]}),
            "ips[0]: missing field `address`",
        ),
        (
            json!({"routes": [{"dst": "::/0", "gw": "fd00::g"}]}),
            r#"routes[0].gw: "fd00::g" is not an address"#,
        ),
        (
            json!({"interfaces": "eth0"}),
            r#"interfaces: invalid type: string "eth0", expected a sequence"#,
        ),
        (
            json!({"cniVersion": "9.0.0"}),
            r#"cniVersion: "9.0.0" is not supported"#,
        ),
        (
            json!({"cniVersion": "0.2.0", "ip4": {"ip": 7}}),
            "ip4.ip: invalid type: integer `7`, expected a string",
        ),
        (json!([]), "invalid type: sequence, expected an object"),
    ] {
        let error = CniResult::from_value(&value, Version::LATEST).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (6, message), "{value}");
    }
}

fn extra() -> impl Strategy<Value = Map<String, Value>> {
    vec(("x-[a-z]{1,3}", any::<u8>()), 0..2)
        .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k, v.into())).collect())
}

fn network() -> impl Strategy<Value = ipnetwork::IpNetwork> {
    (any::<IpAddr>(), any::<u8>()).prop_map(|(ip, prefix)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        ipnetwork::IpNetwork::new(ip, prefix % (longest + 1)).unwrap()
    })
}

fn interface() -> impl Strategy<Value = Interface> {
    let text = || of("[!-~]{1,6}");
    (
        text(),
        text(),
        of(any::<u32>()),
        text(),
        text(),
        text(),
        extra(),
    )
        .prop_map(
            |(name, mac, mtu, sandbox, socket_path, pci_id, extra)| Interface {
                name: name.unwrap_or_default(),
                mac,
                mtu,
                sandbox,
                socket_path,
                pci_id,
                extra,
            },
        )
}

fn ip() -> impl Strategy<Value = Ip> {
    (network(), of(any::<IpAddr>()), of(0_usize..9), extra()).prop_map(
        |(address, gateway, interface, extra)| Ip {
            address,
            gateway,
            interface,
            extra,
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let number = || of(any::<u32>());
    (
        network(),
        of(any::<IpAddr>()),
        number(),
        number(),
        number(),
        number(),
        of(any::<u8>()),
        extra(),
    )
        .prop_map(
            |(dst, gw, mtu, advmss, priority, table, scope, extra)| Route {
                dst,
                gw,
                mtu,
                advmss,
                priority,
                table,
                scope,
                extra,
            },
        )
}

fn dns() -> impl Strategy<Value = Dns> {
    let texts = || vec("[a-z.:0-9]{1,6}", 0..3);
    (texts(), of("[a-z.]{1,6}"), texts(), texts(), extra()).prop_map(
        |(nameservers, domain, search, options, extra)| Dns {
            nameservers,
            domain,
            search,
            options,
            extra,
        },
    )
}

fn result() -> impl Strategy<Value = CniResult> {
    (
        vec(interface(), 0..3),
        vec(ip(), 0..4),
        vec(route(), 0..3),
        dns(),
        extra(),
    )
        .prop_map(|(interfaces, ips, routes, dns, extra)| CniResult {
            interfaces,
            ips,
            routes,
            dns,
            extra,
        })
}

/// What is left of `result` after it was written in `version`, by the specification's list of changes.
fn remains(mut result: CniResult, version: Version) -> CniResult {
    if version < Version::V1_1_0 {
        for interface in &mut result.interfaces {
            (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
        }
    }
    if version < Version::V0_3_0 {
        result.interfaces.clear();
        let first = |v4| result.ips.iter().find(|ip| ip.address.is_ipv4() == v4);
        let ips: Vec<Ip> = [first(true), first(false)]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let plain = |route: &Route| Route {
            gw: route.gw,
            extra: route.extra.clone(),
            ..Route::to(route.dst)
        };
        let of_family = |ip: &Ip| {
            let v4 = ip.address.is_ipv4();
            let routes = result.routes.iter().filter(move |r| r.dst.is_ipv4() == v4);
            routes.map(plain).collect::<Vec<_>>()
        };
        result.routes = ips.iter().flat_map(of_family).collect();
        result.ips = ips;
        for ip in &mut result.ips {
            ip.interface = None;
        }
    }
    result
}

proptest! {
    #[test]
    fn a_version_loses_only_what_it_cannot_say(result in result()) {
        for version in Version::ALL {
            if version < Version::V0_3_0 && result.ips.is_empty() {
                continue;
            }
            let there = result.to_value(version).unwrap();
            let back = CniResult::from_value(&there, Version::LATEST).unwrap();
            prop_assert_eq!(&back, &remains(result.clone(), version), "{}", version);
            prop_assert_eq!(back.to_value(version).unwrap(), there, "{}", version);
        }
    }
}

#[test]
fn a_list_of_absurd_length_is_refused() {
    let many = |n: usize, entry: Value| Value::from(vec![entry; n]);
    let address = json!({"address": "10.0.0.2/24"});
    for (list, value) in [
        ("ips", json!({"ips": many(4097, address.clone())})),
        (
            "routes",
            json!({"routes": many(4097, json!({"dst": "10.0.0.0/8"}))}),
        ),
        (
            "interfaces",
            json!({"interfaces": many(4097, json!({"name": "e"}))}),
        ),
        ("search", json!({"dns": {"search": many(4097, "a".into())}})),
        (
            "options",
            json!({"dns": {"options": many(4097, "a".into())}}),
        ),
        (
            "nameservers",
            json!({"dns": {"nameservers": many(4097, "a".into())}}),
        ),
    ] {
        let error = CniResult::from_value(&value, Version::V1_1_0).unwrap_err();
        assert_eq!(error.code, 6);
        assert_eq!(
            error.msg,
            format!("{list}: 4097 entries; 4096 are the most")
        );
    }
    let old = json!({"cniVersion": "0.2.0", "IP4": {"ip": "10.0.0.2/24", "routes": many(4097, json!({"dst": "10.0.0.0/8"}))}});
    assert!(CniResult::from_value(&old, Version::V1_1_0).is_err());
    let most = json!({"x": many(5000, json!(1)), "ips": many(4096, address)});
    assert!(CniResult::from_value(&most, Version::V1_1_0).is_ok());
}
