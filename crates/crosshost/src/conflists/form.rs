//! The conflist of a network, and the mark by which a file is known as ours.
//!
//! It says what the runtime must know, and nothing that the store has: subnets, MTU and the way out follow from the network's
//! record, so that a change there needs no change here. It has the version of the specification that Debian 12's reference plugins
//! know.

use cluster::Network;
use serde_json::{Map, Value, json};

/// The key of the mark. libcni, podman and nerdctl ignore keys that they do not know.
const MARK: &str = "crosshost";

/// Whether hosts write a conflist for a network: one that was created by command, for which there is none by hand.
pub fn is_wanted(network: &Network) -> bool {
    network.conflist && network.id.is_some() && network.is_ready()
}

/// The same as a value.
pub fn written(network: &Network) -> serde_json::Result<Value> {
    serde_json::from_slice(&text(network))
}

/// The text of a network's conflist.
pub fn text(network: &Network) -> Vec<u8> {
    let mut labels: Map<String, Value> = Map::new();
    for (key, value) in &network.labels {
        labels.insert(key.clone(), json!(value));
    }
    // podman prunes what has no container, unless a label says otherwise.
    labels.insert(MARK.to_owned(), json!(network.name));
    let ipam = json!({ "type": "ipam-kv" });
    let plugin = match &network.macvlan {
        None => json!({
            "type": "overlay",
            "capabilities": { "ips": true, "mac": true, "ipRanges": true, "bandwidth": true },
            "ipam": ipam,
        }),
        Some(macvlan) => {
            let mut plugin = json!({
                "type": "macvlan",
                "master": macvlan.parent,
                "mode": macvlan.mode.as_deref().unwrap_or("bridge"),
                "capabilities": { "ips": true, "mac": true },
                "ipam": { "type": "ipam-kv", "routes": routes(network) },
            });
            if let Some(mtu) = network.mtu {
                plugin["mtu"] = json!(mtu);
            }
            plugin
        }
    };
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    let plugins = match network.macvlan {
        None => vec![plugin, portmap],
        // A neighbour of the host has its own address on the host's segment, and no ports to publish.
        Some(_) => vec![plugin],
    };
    let conflist = json!({
        "cniVersion": "1.0.0",
        "name": network.name,
        "args": { "podman_labels": labels },
        "plugins": plugins,
    });
    marked(conflist, network.id.as_deref().unwrap_or_default())
}

/// The default routes by the gateways of a network on the hosts' own segment.
fn routes(network: &Network) -> Vec<Value> {
    let subnets = network.subnets();
    let has = |is_v6| subnets.iter().any(|subnet| subnet.is_ipv6() == is_v6);
    let all = [(false, "0.0.0.0/0"), (true, "::/0")].into_iter();
    let wanted = all.filter(|(is_v6, _)| has(*is_v6));
    wanted.map(|(_, dst)| json!({ "dst": dst })).collect()
}

/// The text with the mark: the network's id, and a digest of the rest.
fn marked(mut conflist: Value, id: &str) -> Vec<u8> {
    let digest = digest(&conflist);
    conflist[MARK] = json!({ "network": id, "digest": digest });
    format!("{conflist:#}\n").into_bytes()
}

fn digest(conflist: &Value) -> String {
    journal::digest(&[&conflist.to_string()])
}

/// Whose a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// As crosshost wrote it for the network with this id.
    Ours(String),
    /// Crosshost wrote it, and somebody changed it.
    Changed,
    /// Somebody else's.
    Others,
}

/// Whose this file is, and of which network; no name if it is no configuration of a network.
pub fn owner(text: &[u8]) -> (Option<String>, Owner) {
    let Ok(mut conflist) = serde_json::from_slice::<Value>(text) else {
        return (None, Owner::Others);
    };
    let name = conflist["name"].as_str().map(str::to_owned);
    let mark = conflist.as_object_mut().and_then(|keys| keys.remove(MARK));
    let Some(mark) = mark else {
        return (name, Owner::Others);
    };
    match (mark["network"].as_str(), mark["digest"].as_str()) {
        (Some(id), Some(found)) if found == digest(&conflist) => (name, Owner::Ours(id.to_owned())),
        _ => (name, Owner::Changed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(extra: &Value) -> Network {
        let mut record = json!({
            "name": "n", "id": "one", "vni": 4097, "conflist": true,
            "ranges": [[{"subnet": "10.0.0.0/24"}]],
        });
        for (key, value) in extra.as_object().unwrap() {
            record[key] = value.clone();
        }
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn a_file_is_ours_until_somebody_changes_it() {
        let text = text(&network(&json!({})));
        assert_eq!(owner(&text), (Some("n".into()), Owner::Ours("one".into())));
        let changed = String::from_utf8(text.clone()).unwrap();
        // Only its meaning counts.
        let compact = serde_json::from_str::<Value>(&changed).unwrap().to_string();
        assert_eq!(owner(compact.as_bytes()).1, Owner::Ours("one".into()));
        let changed = changed.replace("overlay", "bridge");
        assert_eq!(
            owner(changed.as_bytes()),
            (Some("n".into()), Owner::Changed)
        );
        let other = br#"{"name": "n", "plugins": []}"#;
        assert_eq!(owner(other), (Some("n".into()), Owner::Others));
        for none in ["", "[]", "{", "7"] {
            assert_eq!(owner(none.as_bytes()), (None, Owner::Others), "{none}");
        }
    }

    #[test]
    fn our_plugins_know_every_key() {
        let labels = json!({"labels": {"a": "b"}});
        let conflist: Value = serde_json::from_slice(&text(&network(&labels))).unwrap();
        for plugin in conflist["plugins"].as_array().unwrap() {
            assert!(cluster::keys::unread(plugin).is_empty(), "{plugin}");
        }
        let wanted = json!({"a": "b", "crosshost": "n"});
        assert_eq!(conflist["args"]["podman_labels"], wanted);
    }

    #[test]
    fn a_network_of_macvlan_names_its_interface_and_the_way_out() {
        let macvlan = network(&json!({"macvlan": {"parent": "ens3"}, "mtu": 1400}));
        let conflist: Value = serde_json::from_slice(&text(&macvlan)).unwrap();
        let plugin = &conflist["plugins"][0];
        let keys = ["type", "master", "mode", "mtu"].map(|key| plugin[key].clone());
        assert_eq!(json!(keys), json!(["macvlan", "ens3", "bridge", 1400]));
        assert_eq!(plugin["ipam"]["routes"], json!([{"dst": "0.0.0.0/0"}]));
        assert!(cluster::keys::unread(plugin).is_empty());
    }

    #[test]
    fn only_a_network_that_a_command_made_and_that_is_ready_has_a_file() {
        assert!(is_wanted(&network(&json!({}))));
        for other in [
            json!({"conflist": false}),
            json!({"state": "creating"}),
            json!({"state": "removing"}),
            json!({"id": null}),
        ] {
            assert!(!is_wanted(&network(&other)), "{other}");
        }
    }
}
