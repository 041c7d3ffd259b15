//! `crosshost endpoint`: who has which address, as the store or as this host knows it.

use std::net::IpAddr;

use cluster::{Held, Lease, Shelf, Stage};
use ipam_kv::shelf::Files;
use serde_json::{Value, json};

use crate::{
    command::{Result, Session, Words},
    table::{json, table},
};

/// The columns of an endpoint.
pub const HEADINGS: [&str; 5] = ["ADDRESS", "NODE", "CONTAINER", "INTERFACE", "MAC"];

/// An endpoint as a row.
pub fn row(address: IpAddr, lease: &Lease) -> [String; 5] {
    let mac = overlay::forwarding::mac_of(address).to_string();
    [
        address.to_string(),
        lease.node.clone(),
        lease.container.clone(),
        lease.ifname.clone(),
        mac,
    ]
}

/// An endpoint as JSON.
pub fn described(network: Option<&str>, address: IpAddr, lease: &Lease) -> Value {
    let mac = overlay::forwarding::mac_of(address).to_string();
    let mut value = json!({
        "address": address, "node": lease.node, "containerID": lease.container, "ifname": lease.ifname, "mac": mac,
        "since": lease.since,
    });
    if let Some(network) = network {
        value["network"] = json!(network);
    }
    value
}

/// All endpoints of all networks.
pub async fn list(session: &Session, words: &Words) -> Result<String> {
    let cluster = session.cluster();
    let mut all = Vec::new();
    for network in cluster.networks().await? {
        for (address, lease) in cluster.leases(&network.record.name).await? {
            all.push((network.record.name.clone(), address, lease.record));
        }
    }
    if words.json {
        return Ok(json(
            &all.iter()
                .map(|(network, address, lease)| described(Some(network), *address, lease))
                .collect(),
        ));
    }
    let rows: Vec<_> = all
        .iter()
        .map(|(network, address, lease)| {
            let [address, node, container, ifname, mac] = row(*address, lease);
            [network.clone(), address, node, container, ifname, mac]
        })
        .collect();
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
pub fn local(words: &Words) -> Result<String> {
    let mut all = Vec::new();
    for (_, files) in Files::all()? {
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
                    all.push((network.clone(), address, holding.lease.clone(), state));
                }
            }
        }
    }
    all.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    if words.json {
        let described = |(network, address, lease, state): &(String, IpAddr, Lease, &str)| {
            let mut value = described(Some(network), *address, lease);
            value["state"] = json!(state);
            value
        };
        return Ok(json(&all.iter().map(described).collect()));
    }
    let rows: Vec<_> = all
        .iter()
        .map(|(network, address, lease, state)| {
            let [address, _, container, ifname, mac] = row(*address, lease);
            [
                network.clone(),
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
