//! A checked configuration written again in one form: to be read once more, and to be compared.

use cni::{Answer, Call, CniResult, Version};
use ipam_kv::config::Conf;
use serde_json::{Map, Value, json};

/// All that a configuration says, but for the network's word that is used once.
pub fn text(conf: &Conf) -> String {
    let Conf {
        settings,
        spec,
        requested,
        mac,
        narrow,
        routes,
        dns,
    } = conf;
    let spec = cluster::NetworkSpec {
        id: None,
        ..spec.clone()
    };
    let store = (
        &settings.store.url,
        &settings.store.token_file,
        &settings.store.ca_file,
    );
    let keys = (
        &settings.store.cert_file,
        &settings.store.key_file,
        prefix(conf),
    );
    let node = (&settings.node, &settings.underlay, settings.vtep);
    format!(
        "{spec:?}\n{requested:?}\n{mac:?}\n{narrow:?}\n{routes:?}\n{dns:?}\n{store:?}\n{keys:?}\n{node:?}"
    )
}

/// The configuration that means the same, with nothing left to default, merge or sort. What kept its records apart is now
/// part of the prefix.
pub fn configuration(call: &Call, conf: &Conf) -> Value {
    let Conf {
        settings,
        spec,
        requested,
        mac,
        narrow,
        routes,
        ..
    } = conf;
    let result = CniResult {
        routes: routes.clone(),
        ..CniResult::default()
    };
    let routes = result.to_value(Version::LATEST).expect("1.1.0 can say all")["routes"].take();
    let mut runtime = json!({ "ips": requested, "mac": mac });
    if !narrow.is_empty() {
        runtime["ipRanges"] = json!(narrow);
    }
    without_null(json!({
        "cniVersion": call.conf.version.as_str(),
        "name": spec.name,
        "type": call.conf.plugin_type,
        "vni": spec.vni,
        "mtu": spec.mtu,
        "vxlanPort": spec.vxlan_port,
        "egress": spec.egress,
        "store": {
            "url": settings.store.url,
            "prefix": prefix(conf),
            "tokenFile": settings.store.token_file,
            "caFile": settings.store.ca_file,
            "certFile": settings.store.cert_file,
            "keyFile": settings.store.key_file,
        },
        "node": { "name": settings.node, "underlay": settings.underlay, "vtep": settings.vtep },
        "ipam": {
            "type": "ipam-kv",
            "ranges": spec.ranges,
            "blockPrefix": spec.block_prefix,
            "reclaimAfter": spec.reclaim_after,
            "routes": routes,
        },
        "runtimeConfig": runtime,
    }))
}

/// The same with all keys in capitals that are ours, as far as they are matched in any case: routes carry the keys of others,
/// and `egress` has two forms.
pub fn in_capitals(configuration: &Value) -> Value {
    match configuration {
        Value::Object(map) => {
            let spell = |(key, value): (&String, &Value)| {
                let inner = match key.as_str() {
                    "routes" | "egress" => value.clone(),
                    _ => in_capitals(value),
                };
                (key.to_ascii_uppercase(), inner)
            };
            map.iter().map(spell).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(in_capitals).collect(),
        other => other.clone(),
    }
}

/// Where the records lie.
fn prefix(conf: &Conf) -> String {
    let nodes = conf.settings.layout.nodes().expect("a key").to_string();
    nodes
        .strip_suffix("/v1/nodes")
        .expect("the layout")
        .to_owned()
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let said = map.into_iter().filter(|(_, value)| !value.is_null());
            said.map(|(key, value)| (key, without_null(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        other => other,
    }
}
