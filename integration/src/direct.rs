//! `ipam-kv` by itself, called as an interface plugin of others calls it: environment, configuration, and no container
//! that would get the address. An IPAM plugin is told of a namespace and does not enter it, so that one namespace on
//! each host does for all containers that a scenario speaks of.

use serde_json::{Value, json};

use crate::call::Call;
use crate::container::Container;
use crate::host::Host;
use crate::lab::Lab;
use crate::run::Finished;

/// The configuration at spec 1.1.0 that such a plugin hands on, with this `ipam` section.
pub fn ipamconf(name: &str, mut ipam: Value) -> Value {
    ipam["type"] = "ipam-kv".into();
    json!({ "cniVersion": "1.1.0", "name": name, "type": "bridge", "ipam": ipam })
}

/// `ipam-kv` on one host.
pub struct Direct<'host>(Container<'host>);

impl<'host> Direct<'host> {
    /// On this host.
    #[track_caller]
    pub fn on(host: &'host Host) -> Self {
        Direct(host.container("t1"))
    }

    /// On each host of the laboratory.
    #[track_caller]
    pub fn on_all(lab: &'host Lab) -> Vec<Self> {
        lab.hosts().iter().map(Self::on).collect()
    }

    /// The host it is on.
    pub fn host(&self) -> &'host Host {
        self.0.host()
    }

    /// A call for `eth0` of the container `id`.
    #[track_caller]
    pub fn call(&self, verb: &str, id: &str, conf: &Value) -> Call<'host> {
        let call = self.host().call("ipam-kv", verb).id(id);
        call.netns(&self.0.netns()).conf(conf)
    }

    /// ADD, to its end.
    #[track_caller]
    pub fn add(&self, id: &str, conf: &Value) -> Finished {
        self.call("ADD", id, conf).run()
    }

    /// What an ADD gives that succeeds: its addresses with their lengths.
    #[track_caller]
    pub fn given(&self, id: &str, conf: &Value) -> Vec<String> {
        addresses_in(&self.add(id, conf).ok().json())
    }
}

/// The addresses of a result of spec 0.3.0 or later, with their lengths.
#[track_caller]
pub fn addresses_in(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let text = |ip: &Value| ip["address"].as_str().expect("an address").to_owned();
    ips.map(text).collect()
}
