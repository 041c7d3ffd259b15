//! Two hosts on a pool of four blocks, small enough to be given out to its last address, and what a scenario asks of them
//! when one of the two is dead, or is taken for dead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use integration::{Backend, Direct, Finished, Host, Lab, addresses_in, ipamconf};
use serde_json::{Value, json};

use crate::ownership::ip;
use crate::store_reader;

pub(crate) const NETWORK: &str = "net1";
/// A host that need not wait for another is done well before it would give up on one, after two seconds.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// A pool of four whole blocks of eight, 10.1.0.8 to 10.1.0.39; hosts in their order have one from the beginning.
pub(crate) fn four_blocks(reclaim_after: Option<u64>) -> Value {
    let range =
        json!({ "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.8", "rangeEnd": "10.1.0.39" });
    let mut ipam = json!({ "ranges": [[range]], "blockPrefix": 29 });
    if let Some(seconds) = reclaim_after {
        ipam["reclaimAfter"] = seconds.into();
    }
    ipamconf(NETWORK, ipam)
}

/// All addresses of that pool.
pub(crate) fn all_of_the_pool() -> BTreeSet<IpAddr> {
    (8..40).map(|last| IpAddr::from([10, 1, 0, last])).collect()
}

/// Two hosts that know each other.
pub(crate) fn two_hosts() -> Lab {
    Lab::registered(2, Backend::Consul)
}

/// ADDs until the host has no more, each done at once; what they were given by container.
#[track_caller]
pub(crate) fn fill_at_once(host: &Direct, conf: &Value, prefix: &str) -> BTreeMap<String, IpAddr> {
    let mut given = BTreeMap::new();
    loop {
        let id = format!("{prefix}{}", given.len());
        let said = host.add(&id, conf);
        if !said.status.success() {
            said.refused(102, &[NETWORK, "exhausted"]);
            return given;
        }
        assert!(said.took < AT_ONCE, "{said}");
        given.insert(id, ip(&addresses_in(&said.json())[0]));
    }
}

/// CHECK of a container as its ADD left it.
#[track_caller]
pub(crate) fn check(host: &Direct, id: &str, address: IpAddr, conf: &Value) -> Finished {
    let mut conf = conf.clone();
    let ip = json!({ "address": format!("{address}/24"), "gateway": "10.1.0.1" });
    conf["prevResult"] = json!({ "cniVersion": "1.1.0", "ips": [ip] });
    host.call("CHECK", id, &conf).run()
}

/// DEL of a container.
pub(crate) fn del(host: &Direct, id: &str, conf: &Value) {
    host.call("DEL", id, conf).run().ok();
}

/// Who holds which address by the leases: node and container.
pub(crate) fn holders(lab: &Lab) -> BTreeMap<IpAddr, (String, String)> {
    let lease = |(key, text): (String, String)| {
        let address = key.strip_prefix("leases/net1/")?.parse().ok()?;
        let lease: Value = serde_json::from_str(&text).expect("a lease");
        let word = |key: &str| lease[key].as_str().expect("a word").to_owned();
        Some((address, (word("node"), word("containerID"))))
    };
    store_reader::records(lab)
        .into_iter()
        .filter_map(lease)
        .collect()
}

/// A node's own record.
pub(crate) fn node_record(lab: &Lab, host: &Host) -> Option<String> {
    let key = format!("nodes/{}", host.name());
    store_reader::records(lab).remove(&key)
}
