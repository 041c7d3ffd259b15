//! With the store away a host goes on from its own blocks; when it is back, the store hears of all that happened.

use std::collections::BTreeSet;

use crate::store_reader;
use integration::{Attachment, Backend, Lab, conflist};
use serde_json::Value;

/// No program listens there.
const NO_STORE: &str = "consul://192.168.1.5:1";

#[test]
fn a_host_goes_on_alone_and_makes_it_known_later() {
    let lab = two_hosts();
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", "ov_net1");
    let far = Attachment::new(lab.host(2), "far", "ov_net1");

    host.configure(NO_STORE);
    let t2 = Attachment::new(host, "t2", "ov_net1");
    assert!(
        t2.container.pings(far.address, &[]),
        "from the last snapshot"
    );
    assert!(
        far.container.pings(t2.address, &[]),
        "its block was known before"
    );
    t1.detach().ok();
    let states = || {
        let listed = host.listed("endpoint ls --local");
        let state = |one: &Value| (one["address"].to_string(), one["state"].to_string());
        listed
            .as_array()
            .into_iter()
            .flatten()
            .map(state)
            .collect::<BTreeSet<_>>()
    };
    let quoted =
        |address: std::net::IpAddr, state: &str| (format!("\"{address}\""), format!("\"{state}\""));
    let away = [
        quoted(t1.address, "freed, not yet in the store"),
        quoted(t2.address, "not yet in the store"),
    ];
    assert_eq!(states(), away.into());

    host.configure(&lab.store_url());
    host.sync();
    assert_eq!(states(), [quoted(t2.address, "published")].into());
    let held = [t2.address, far.address].map(|address| format!("leases/ov_net1/{address}"));
    assert_eq!(leases(&lab), held.into());
}

#[test]
fn a_release_that_could_not_be_noted_is_made_up_for() {
    let lab = two_hosts();
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", "ov_net1");
    host.configure(NO_STORE);
    host.script("rm -rf /run/crosshost/ledger");
    t1.detach().ok();
    host.configure(&lab.store_url());
    host.sync();
    assert_eq!(leases(&lab), BTreeSet::new());
}

fn two_hosts() -> Lab {
    let lab = Lab::with_network(2, Backend::Consul, &conflist("ov_net1", "10.0.0.0/24"));
    lab.host(1).create_network("ov_net1", "10.0.0.0/24");
    lab
}

fn leases(lab: &Lab) -> BTreeSet<String> {
    store_reader::keys_below(&store_reader::records(lab), "leases/")
        .into_iter()
        .collect()
}
