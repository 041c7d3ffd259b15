//! The keys of a plugin's configuration that our plugins read. The specification allows any other key in a configuration, so
//! `"egres": "none"` is no error; with this table a misspelt key can be reported.

use serde_json::Value;

/// Keys of the specification, whose values are the runtime's or another plugin's.
const SPECIFICATION: [&str; 14] = [
    "cniVersion",
    "name",
    "type",
    "capabilities",
    "args",
    "runtimeConfig",
    "dns",
    "dns.nameservers",
    "dns.domain",
    "dns.search",
    "dns.options",
    "prevResult",
    "cni.dev/attachments",
    "cni.dev/valid-attachments",
];
/// Where the store is and which host this is, in an entry of `overlay` and in one with `ipam-kv` below it.
const SHARED: [&str; 13] = [
    "store",
    "store.url",
    "store.prefix",
    "store.tokenFile",
    "store.caFile",
    "store.caPath",
    "store.certFile",
    "store.keyFile",
    "store.serverName",
    "node",
    "node.name",
    "node.underlay",
    "node.vtep",
];
/// Keys of `overlay`.
const OVERLAY: [&str; 17] = [
    "vni",
    "mtu",
    "vxlanPort",
    "egress",
    "egress.mode",
    "egress.subnet",
    "hostAccess",
    "reaches",
    "spoofchk",
    "groupRate",
    "ipam",
    "ipamScope",
    "bandwidth",
    "bandwidth.ingressRate",
    "bandwidth.ingressBurst",
    "bandwidth.egressRate",
    "bandwidth.egressBurst",
];
/// Keys of `ipam-kv`, below `ipam`.
const IPAM: [&str; 17] = [
    "type",
    "ranges",
    "ranges.subnet",
    "ranges.rangeStart",
    "ranges.rangeEnd",
    "ranges.gateway",
    "ranges.exclude",
    "subnet",
    "rangeStart",
    "rangeEnd",
    "gateway",
    "exclude",
    "blockPrefix",
    "reclaimAfter",
    "dataDir",
    "routes",
    "resolvConf",
];
/// Keys of `portmap`.
const PORTMAP: [&str; 8] = [
    "snat",
    "masqAll",
    "conditionsV4",
    "conditionsV6",
    "markMasqBit",
    "externalSetMarkChain",
    "backend",
    "listeners",
];

/// The keys that `overlay` reads in the object at this path of its configuration: `""`, `"egress"`, `"store"`, `"node"`,
/// `"dns"`.
pub fn of_overlay(path: &str) -> Vec<&'static str> {
    at(path, &[&OVERLAY[..], &SHARED, &SPECIFICATION].concat())
}

/// The keys that `ipam-kv` reads in the object at this path below `ipam`: `""`, `"ranges"`.
pub fn of_ipam(path: &str) -> Vec<&'static str> {
    at(path, &IPAM)
}

fn at(path: &str, known: &[&'static str]) -> Vec<&'static str> {
    let below = |key: &&'static str| match path {
        "" => Some(*key),
        _ => key.strip_prefix(path)?.strip_prefix('.'),
    };
    let keys = known.iter().filter_map(below);
    keys.filter(|key| !key.contains('.') || key.starts_with("cni.dev/"))
        .collect()
}

/// The keys of one entry of `plugins` that nobody reads, each as a path: `egres`, `ipam.rangs`. In an entry of another plugin only the
/// section for `ipam-kv` can be judged. Keys are compared as they are decoded, without regard to case.
pub fn unread(entry: &Value) -> Vec<String> {
    let is = |value: &Value, plugin: &str| value["type"].as_str() == Some(plugin);
    let mut found = Vec::new();
    if is(entry, "overlay") || is(entry, "portmap") {
        let own: &[&str] = if is(entry, "portmap") {
            &PORTMAP
        } else {
            &OVERLAY
        };
        let shared: &[&str] = if is(entry, "portmap") {
            &["ipam"]
        } else {
            &SHARED
        };
        let known = [own, shared, &SPECIFICATION].concat();
        collect(entry, "", &known, &mut found);
    }
    if is(&entry["ipam"], "ipam-kv") {
        let below = |key: String| format!("ipam.{key}");
        let mut of_ipam = Vec::new();
        collect(&entry["ipam"], "", &IPAM, &mut of_ipam);
        found.extend(of_ipam.into_iter().map(below));
    }
    found
}

fn collect(value: &Value, path: &str, known: &[&str], found: &mut Vec<String>) {
    match value {
        // The entries of a list are at the list's own path.
        Value::Array(entries) => {
            for entry in entries {
                collect(entry, path, known, found);
            }
        }
        Value::Object(fields) => {
            for (key, below) in fields {
                let key = match path {
                    "" => key.clone(),
                    _ => format!("{path}.{key}"),
                };
                let is_known = known.iter().any(|it| it.eq_ignore_ascii_case(&key));
                let prefix = format!("{key}.");
                let has_fields = known.iter().any(|it| {
                    it.get(..prefix.len())
                        .is_some_and(|start| start.eq_ignore_ascii_case(&prefix))
                });
                if !is_known {
                    if !found.contains(&key) {
                        found.push(key);
                    }
                } else if has_fields {
                    collect(below, &key, known, found);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_that_nobody_reads_are_named_by_their_path() {
        let entry = json!({
            "type": "overlay", "VNI": 7, "egres": "none", "egress": {"mode": "none", "mod": 1}, "cniVersion": "1.0.0",
            "store": {"URL": "dir:///x", "tokn": ""}, "runtimeConfig": {"anything": 1}, "prevResult": {"x": 1},
            "ipam": {"type": "ipam-kv", "rangs": [], "ranges": [[{"subnet": "10.0.0.0/24", "rangeStrt": ""}]],
                     "routes": [{"dst": "0.0.0.0/0"}]},
        });
        assert_eq!(
            unread(&entry),
            [
                "egres",
                "egress.mod",
                "store.tokn",
                "ipam.rangs",
                "ipam.ranges.rangeStrt"
            ]
        );
        let portmap =
            json!({"type": "portmap", "snat": true, "masqall": true, "snatt": true, "vni": 7});
        assert_eq!(unread(&portmap), ["snatt", "vni"]);
    }

    #[test]
    fn the_keys_of_an_object_are_told_by_its_path() {
        assert_eq!(of_overlay("egress"), ["mode", "subnet"]);
        let dns = of_overlay("dns");
        assert_eq!(dns, ["nameservers", "domain", "search", "options"]);
        assert_eq!(of_overlay("node"), ["name", "underlay", "vtep"]);
        let top = of_overlay("");
        assert!(
            ["vni", "store", "dns", "ipamScope"]
                .iter()
                .all(|key| top.contains(key))
        );
        assert!(!top.iter().any(|key| key.starts_with("egress.")));
        assert!(of_ipam("").contains(&"ranges") && of_ipam("ranges").contains(&"rangeEnd"));
    }

    #[test]
    fn of_others_only_what_ours_is_given_is_judged() {
        let bridge =
            json!({"type": "bridge", "isGateway": true, "ipam": {"type": "ipam-kv", "rangs": []}});
        assert_eq!(unread(&bridge), ["ipam.rangs"]);
        let other = json!({"type": "bridge", "ipam": {"type": "host-local", "rangs": []}});
        assert!(unread(&other).is_empty());
        assert!(
            unread(&json!({"type": "overlay", "ipam": {"type": "static", "addresses": []}}))
                .is_empty()
        );
    }
}
