//! A network that is created where there are more hosts than one transaction has room for: all get a block, by few requests,
//! also if the creation was killed.

use std::collections::BTreeSet;

use crate::store_reader;
use integration::{Backend, Direct, Lab, ipamconf};
use serde_json::{Value, json};

/// Registered nodes beside the laboratory's own.
const MANY: usize = 300;
/// The requests of a first ADD of such a cluster: 10 of any first ADD, one for each 63 nodes, and what a claim of its own
/// and the end of the creation cost.
const FEW: usize = 25;

/// So many nodes that are copies of this host's record.
fn register_many(lab: &Lab) {
    let host = lab.host(1);
    host.sync();
    let own = format!("nodes/{}", host.name());
    let mut record: Value =
        serde_json::from_str(&store_reader::records(lab)[&own]).expect("a node");
    for number in 0..MANY {
        let name = format!("a{number:03}");
        record["name"] = json!(name);
        let key = format!("/v1/kv/crosshost/v1/nodes/{name}");
        let (status, _) = lab.consul().request("PUT", &key, &record.to_string());
        assert_eq!(status, 200);
    }
}

/// The nodes that own a block of a network.
fn owners(host: &integration::Host, network: &str) -> (BTreeSet<String>, Value) {
    let shown = host.listed(&["network", "inspect", network]);
    let blocks = shown["blocks"].as_array().into_iter().flatten();
    let owner = |block: &Value| block["node"].as_str().expect("a node").to_owned();
    (blocks.map(owner).collect(), shown["state"].clone())
}

#[test]
fn each_of_many_hosts_has_a_block_when_a_network_is_created_by_few_requests() {
    let lab = Lab::new(1, Backend::Consul);
    register_many(&lab);
    let host = Direct::on(lab.host(1));
    let proxy = lab.consul().proxy();
    host.host().configure(&proxy.url());
    let conf = ipamconf("net1", json!({ "subnet": "10.64.0.0/16" }));
    host.given("c1", &conf);
    let asked = proxy.take().len();
    assert!(asked <= FEW, "{asked}");
    let (all, state) = owners(host.host(), "net1");
    assert_eq!((all.len(), state), (MANY + 1, json!("ready")));
    proxy.take();
    host.given("c2", &conf);
    let usual = proxy.take().len();
    assert!(usual <= 2, "{usual}");

    let words = "network create net2 --subnet 10.65.0.0/16";
    host.host().crosshost(words).ok();
    let asked = proxy.take().len();
    assert!(asked <= FEW, "{asked}");
    assert_eq!(owners(host.host(), "net2").0.len(), MANY + 1);
}

#[test]
fn a_creation_that_was_killed_is_finished_by_the_same_command_by_a_sync_and_by_a_verb() {
    let lab = Lab::new(1, Backend::Consul);
    register_many(&lab);
    let host = Direct::on(lab.host(1));
    let names = ["net1", "net2", "net3"];
    let subnet = |at: usize| format!("10.{}.0.0/16", 64 + at);
    let create = |at: usize| {
        let words = ["network", "create", names[at], "--subnet", &subnet(at)];
        host.host().crosshost(&words)
    };
    for (at, name) in names.iter().enumerate() {
        create(at).ok();
        // As if it had been killed before it made its gifts.
        let record = &store_reader::records(&lab)[&format!("networks/{name}")];
        let mut record: Value = serde_json::from_str(record).expect("a network");
        record["state"] = json!("creating");
        let below = "/v1/kv/crosshost/v1";
        for (method, key, body) in [
            ("PUT", format!("networks/{name}"), record.to_string()),
            ("DELETE", format!("blocks/{name}/?recurse"), String::new()),
        ] {
            let (status, _) = lab
                .consul()
                .request(method, &format!("{below}/{key}"), &body);
            assert_eq!(status, 200);
        }
        host.host().crosshost("network ls").ok().says(&["creating"]);
        match *name {
            "net1" => drop(create(at).ok()),
            "net2" => drop(host.host().sync()),
            _ => {
                let conf = ipamconf(name, json!({ "subnet": subnet(at) }));
                host.given("c1", &conf);
            }
        }
        let (all, state) = owners(host.host(), name);
        assert_eq!((all.len(), state), (MANY + 1, json!("ready")), "{name}");
        create(at).failed().warns(&["exists already"]);
    }
}
