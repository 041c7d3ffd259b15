//! Decoding as Go's clients expect it, and errors that say where and what.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cni::decode;
use ipnetwork::IpNetwork;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Conf {
    mtu: Option<u32>,
    vxlan_port: u16,
    is_gateway: bool,
    ipam: Option<Ipam>,
    runtime_config: Runtime,
    aliases: BTreeMap<String, Vec<String>>,
    egress: Egress,
    token: String,
    any: Value,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ipam {
    ranges: Vec<Vec<Range>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    subnet: IpNetwork,
    range_start: Option<IpAddr>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Runtime {
    port_mappings: Vec<PortMapping>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortMapping {
    host_port: Port,
    container_port: Port,
    #[serde(rename = "hostIP", default)]
    host_ip: String,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Port(u16);

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Egress {
    #[default]
    None,
    Bridge(Bridge),
}

#[derive(Debug, PartialEq, Deserialize)]
struct Bridge {
    subnet: IpNetwork,
}

fn conf(value: &Value) -> Conf {
    decode(value).unwrap()
}

/// The message of a refusal, which is always code 7.
fn refused(value: &Value) -> String {
    let error = decode::<Conf>(value).unwrap_err();
    assert_eq!(error.code, 7);
    error.msg
}

#[test]
fn both_spellings_of_a_port_mapping() {
    let go = json!({"HostPort": 18080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""});
    let spec = json!({"hostPort": 18080, "containerPort": 80, "protocol": "tcp", "hostIP": ""});
    let of = |m: Value| conf(&json!({"runtimeConfig": {"portMappings": [m]}})).runtime_config;
    assert_eq!(of(go.clone()), of(spec));
    assert_eq!(of(go).port_mappings[0].host_port, Port(18080));
}

#[test]
fn keys_in_any_case_at_every_level() {
    let value = json!({"MTU": 1450, "VXLANPORT": 4789, "IPAM": {"Ranges": [[{"SubNet": "10.0.0.0/24"}]]},
        "EGRESS": {"bridge": {"SUBNET": "172.18.0.0/16"}}});
    let conf = conf(&value);
    assert_eq!((conf.mtu, conf.vxlan_port), (Some(1450), 4789));
    let range = &conf.ipam.unwrap().ranges[0][0];
    assert_eq!(range.subnet, "10.0.0.0/24".parse().unwrap());
    assert!(matches!(conf.egress, Egress::Bridge(b) if b.subnet.prefix() == 16));
}

#[test]
fn the_exact_spelling_is_preferred() {
    for value in [
        json!({"MTU": 1, "mtu": 2, "Mtu": 3}),
        json!({"mtu": 2, "MTU": 1}),
    ] {
        assert_eq!(conf(&value).mtu, Some(2), "{value}");
    }
    assert_eq!(conf(&json!({"Mtu": 3, "MTU": 1})).mtu, Some(3));
}

#[test]
fn map_keys_are_data() {
    let aliases = conf(&json!({"aliases": {"Web": ["A"], "web": []}})).aliases;
    assert_eq!(aliases.keys().collect::<Vec<_>>(), ["Web", "web"]);
}

#[test]
fn unknown_keys_and_null_are_nothing() {
    let value = json!({"unknown": {"x": 1}, "mtu": null, "vxlanPort": null, "ipam": null,
        "runtimeConfig": {"portMappings": null}, "aliases": null, "egress": null});
    assert_eq!(conf(&value), Conf::default());
}

#[test]
fn errors_name_path_and_value() {
    for (value, message) in [
        (
            json!({"ipam": {"ranges": [[{"subnet": "10.0.0.0/33"}]]}}),
            "ipam.ranges[0][0].subnet: invalid address: 10.0.0.0/33",
        ),
        (
            json!({"IPAM": {"Ranges": [[{"subnet": "10.0.0.0/8", "rangeStart": "10.0.0.256"}]]}}),
            r#"IPAM.Ranges[0][0].rangeStart: invalid IP address syntax: "10.0.0.256""#,
        ),
        (
            json!({"mtu": "abc"}),
            r#"mtu: invalid type: string "abc", expected u32"#,
        ),
        (
            json!({"vxlanPort": 70000}),
            "vxlanPort: invalid value: integer `70000`, expected u16",
        ),
        (
            json!({"mtu": -1}),
            "mtu: invalid value: integer `-1`, expected u32",
        ),
        (
            json!({"mtu": 1.5}),
            "mtu: invalid type: floating point `1.5`, expected u32",
        ),
        (
            json!({"isGateway": "yes"}),
            r#"isGateway: invalid type: string "yes", expected a boolean"#,
        ),
        (
            json!({"ipam": "host-local"}),
            r#"ipam: invalid type: string "host-local", expected an object"#,
        ),
        (
            json!({"ipam": [[]]}),
            "ipam: invalid type: sequence, expected an object",
        ),
        (
            json!({"ipam": {"ranges": [[{}]]}}),
            "ipam.ranges[0][0]: missing field `subnet`",
        ),
        (
            json!({"ipam": {"ranges": {}}}),
            "ipam.ranges: invalid type: map, expected a sequence",
        ),
        (
            json!({"aliases": {"web": "x"}}),
            r#"aliases.web: invalid type: string "x", expected a sequence"#,
        ),
        (
            json!({"egress": {"bridge": {"subnet": "x"}}}),
            "egress.bridge.subnet: invalid address: x",
        ),
        (
            json!({"egress": "wide"}),
            "egress: unknown variant `wide`, expected `none` or `bridge`",
        ),
        (
            json!({"runtimeConfig": {"portMappings": [{"HostPort": 1, "ContainerPort": "80"}]}}),
            r#"runtimeConfig.portMappings[0].ContainerPort: invalid type: string "80", expected u16"#,
        ),
        (json!([1]), "invalid type: sequence, expected an object"),
    ] {
        assert_eq!(refused(&value), message, "{value}");
    }
}

#[test]
fn a_secret_is_not_shown() {
    let message = refused(&json!({"Token": 271_828}));
    assert!(
        message.starts_with("Token: ") && !message.contains("271828"),
        "{message}"
    );
}

#[test]
fn a_huge_value_is_cut() {
    let message = refused(&json!({"mtu": "\u{e9}".repeat(1 << 20)}));
    assert!(message.len() < 400, "{}", message.len());
}

fn any_json() -> impl Strategy<Value = Value> {
    let keys = "mtu|MTU|ipam|Ranges|subnet|runtimeConfig|portMappings|hostPort|aliases|egress|bridge|[a-z]{1,3}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("10.0.0.0/24")),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((keys, inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn never_panics(value in any_json()) {
        let _ = decode::<Conf>(&value);
        let _ = cni::CniResult::from_value(&value, cni::Version::LATEST);
        let _ = cni::CniResult::from_value(&value, cni::Version::V0_2_0);
    }

    /// With exact keys and no null it agrees with plain serde.
    #[test]
    fn agrees_with_serde(ports in proptest::collection::vec((any::<u16>(), any::<u16>(), ".{0,5}"), 0..4), mtu: u32) {
        let mapping = |(h, c, i)| json!({"hostPort": h, "containerPort": c, "hostIP": i});
        let mappings: Vec<Value> = ports.into_iter().map(mapping).collect();
        let value = json!({"mtu": mtu, "runtimeConfig": {"portMappings": mappings}, "any": {"k": [1, null]}});
        prop_assert_eq!(conf(&value), serde_json::from_value::<Conf>(value).unwrap());
    }
}
