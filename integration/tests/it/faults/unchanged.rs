//! The frame of every test of bad input: a host on which good input works, what must not move there, and
//! what an answer must be like.

use std::collections::BTreeMap;

use integration::{Call, Container, Finished, Footprint, Lab, netconf};
use serde_json::Value;

use crate::store_reader;

pub(crate) const SUBNET: &str = "10.0.0.0/24";
pub(crate) const BOTH: &[&str] = &["overlay", "ipam-kv"];

/// A host on which an ADD of unchanged input succeeds.
pub(crate) struct Bench<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) container: Container<'lab>,
}

pub(crate) struct State {
    footprint: Footprint,
    inside: String,
    records: BTreeMap<String, String>,
}

impl<'lab> Bench<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        let host = lab.host(1);
        host.sync();
        host.create_network("ov_net1", SUBNET);
        Bench {
            lab,
            container: host.container("t1"),
        }
    }

    pub(crate) fn add(&self, plugin: &str) -> Call<'lab> {
        let call = self.lab.host(1).call(plugin, "ADD").id("c1");
        call.netns(&self.container.netns()).conf(&good())
    }

    pub(crate) fn state(&self) -> State {
        State {
            footprint: self.lab.host(1).footprint(),
            inside: self.container.run("ip -brief address").ok().stdout,
            records: store_reader::records_but_nodes(self.lab),
        }
    }

    pub(crate) fn changed_since(&self, before: &State) -> Vec<String> {
        let now = self.state();
        let mut changed = now.footprint.since(&before.footprint);
        if now.inside != before.inside {
            changed.push(format!("in the container: {}", now.inside));
        }
        if now.records != before.records {
            changed.push(format!("in the store: {:?}", now.records));
        }
        changed
    }
}

/// What is wrong with an answer; empty if it is as it should be. `codes` are those that are right: of the specification, or `own`
/// for any of ours from 100, but never the reference's catch-all 999.
pub(crate) fn faults(said: &Finished, codes: &str, says: &[impl AsRef<str>]) -> Vec<String> {
    let mut faults = Vec::new();
    if said.status.success() {
        faults.push("succeeded".to_owned());
    }
    let Ok(error) = serde_json::from_str::<Value>(&said.stdout) else {
        faults.push("no error object on standard output".to_owned());
        return faults;
    };
    let code = error["code"].as_u64().unwrap_or_default();
    let right = codes.split(' ').any(|one| match one {
        "own" => (100..999).contains(&code),
        number => code.to_string() == number,
    });
    if !right {
        faults.push(format!("code {code} is none of {codes}"));
    }
    for key in ["cniVersion", "msg"] {
        if error[key].as_str().is_none_or(str::is_empty) {
            faults.push(format!("no {key}"));
        }
    }
    let text = format!("{} {}", error["msg"], error["details"]);
    let says = says.iter().map(AsRef::as_ref);
    for word in says.filter(|word| !text.contains(word)) {
        faults.push(format!("does not say {word}"));
    }
    faults
}

pub(crate) fn good() -> Value {
    netconf("ov_net1", SUBNET, "1.0.0")
}

/// The good configuration with the value at `pointer` set; objects on the way exist.
pub(crate) fn with(pointer: &str, value: Value) -> Value {
    let mut conf = good();
    let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
    let parent = conf
        .pointer_mut(parent)
        .expect("a place in the configuration");
    parent[key] = value;
    conf
}

pub(crate) fn without(key: &str) -> Value {
    let mut conf = good();
    conf.as_object_mut().expect("an object").remove(key);
    conf
}
