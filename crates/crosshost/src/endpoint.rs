//! `crosshost endpoint`: who has which address, as the store or as this host knows it.

use std::net::IpAddr;

use cluster::{Held, Lease, Shelf, Stage};
use ipam::Mac;
use ipam_kv::shelf::Files;
use serde_json::{Value, json};

use crate::{
    arguments::Output,
    command::{Result, Session},
    realms,
    table::{json, table},
};

/// The columns of an endpoint.
pub const HEADINGS: [&str; 5] = ["ADDRESS", "NODE", "CONTAINER", "INTERFACE", "MAC"];

/// An endpoint as a row.
pub fn row(address: IpAddr, lease: &Lease) -> [String; 5] {
    [
        address.to_string(),
        lease.node.clone(),
        lease.container.clone(),
        lease.ifname.clone(),
        mac(address, lease).to_string(),
    ]
}

/// The MAC of an endpoint: asked for, or the one of its address.
fn mac(address: IpAddr, lease: &Lease) -> Mac {
    lease.mac.unwrap_or(Mac::of(address))
}

/// An endpoint as JSON.
pub fn described(address: IpAddr, lease: &Lease) -> Value {
    json!({
        "address": address, "node": lease.node, "containerID": lease.container, "ifname": lease.ifname,
        "mac": mac(address, lease), "since": lease.since,
    })
}

/// An endpoint as JSON among those of other networks.
fn described_of(network: &str, realm: Option<&str>, address: IpAddr, lease: &Lease) -> Value {
    let mut value = described(address, lease);
    value["network"] = json!(network);
    if let Some(realm) = realm {
        value["dataDir"] = json!(cluster::directory_of(realm));
    }
    value
}

/// All endpoints of all networks.
pub async fn list(session: &Session, output: Output) -> Result<String> {
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    for realm in realms::all(session).await? {
        for network in realm.cluster.networks().await? {
            let name = &network.record.name;
            for (address, lease) in realm.cluster.leases(name).await? {
                let lease = lease.record;
                values.push(described_of(name, realm.name.as_deref(), address, &lease));
                let [address, node, container, ifname, mac] = row(address, &lease);
                rows.push([realm.called(name), address, node, container, ifname, mac]);
            }
        }
    }
    if output.json {
        return Ok(json(&values.into()));
    }
    Ok(table(
        [
            "NETWORK",
            "ADDRESS",
            "NODE",
            "CONTAINER",
            "INTERFACE",
            "MAC",
        ],
        &rows,
    ))
}

/// What this host holds, from its own documents: works with the store away, and shows what that does not know yet.
pub fn local(output: Output) -> Result<String> {
    let mut all = Vec::new();
    for (realm, files) in Files::all()? {
        for network in files.networks()? {
            for holding in files.holdings(&network)? {
                let state = |held: &Held| match (holding.stage, held.revision) {
                    (Stage::Chosen, _) => "being made",
                    (_, Some(_)) => "published",
                    (_, None) => "not yet in the store",
                };
                let held = holding
                    .addresses
                    .iter()
                    .map(|held| (held.address, state(held)));
                let left = holding.left.iter();
                let left = left.map(|held| (held.address, "freed, not yet in the store"));
                for (address, state) in held.chain(left) {
                    let of = (realm.clone(), network.clone());
                    all.push((of, address, holding.lease.clone(), state));
                }
            }
        }
    }
    all.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    if output.json {
        let value = all.iter().map(|((realm, network), address, lease, state)| {
            let mut value = described_of(network, realm.as_deref(), *address, lease);
            value["state"] = json!(state);
            value
        });
        return Ok(json(&value.collect()));
    }
    let rows: Vec<_> = all
        .iter()
        .map(|((realm, network), address, lease, state)| {
            let [address, _, container, ifname, mac] = row(*address, lease);
            let network = cluster::full_name(network, realm.as_deref());
            [
                network,
                address,
                container,
                ifname,
                mac,
                (*state).to_owned(),
            ]
        })
        .collect();
    Ok(table(
        [
            "NETWORK",
            "ADDRESS",
            "CONTAINER",
            "INTERFACE",
            "MAC",
            "STATE",
        ],
        &rows,
    ))
}
