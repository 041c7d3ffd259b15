//! `crosshost endpoint`: which container has which address, according to the store or to this host.

use std::net::IpAddr;

use cluster::{DataDir, Lease, LeasedAddress, LocalStore, Stage, Stored};
use ipam::Mac;
use ipam_kv::local_store::FsLocalStore;
use serde_json::{Value, json};

use crate::{
    cli::Output,
    output::{json, table},
    session::{Result, Session},
};

/// The columns of an endpoint.
pub const HEADINGS: [&str; 5] = ["ADDRESS", "NODE", "CONTAINER", "INTERFACE", "MAC"];

/// An endpoint as a row.
pub fn row(address: IpAddr, lease: &Stored<Lease>) -> [String; 5] {
    match lease {
        Stored::Readable(lease) => row_of(address, &lease.record),
        Stored::Unreadable(_) => {
            let address = address.to_string();
            [&address, "(unreadable)", "-", "-", "-"].map(str::to_owned)
        }
    }
}

fn row_of(address: IpAddr, lease: &Lease) -> [String; 5] {
    [
        address.to_string(),
        lease.node.clone(),
        lease.container.clone(),
        lease.ifname.clone(),
        mac(address, lease).to_string(),
    ]
}

/// The MAC of an endpoint: the requested one, or the one computed from its address.
fn mac(address: IpAddr, lease: &Lease) -> Mac {
    lease.mac.unwrap_or(Mac::of(address))
}

/// An endpoint as JSON.
pub fn described(address: IpAddr, lease: &Stored<Lease>) -> Value {
    match lease {
        Stored::Readable(lease) => described_lease(address, &lease.record),
        Stored::Unreadable(it) => json!({"address": address, "unreadable": it.why}),
    }
}

fn described_lease(address: IpAddr, lease: &Lease) -> Value {
    json!({
        "address": address, "node": lease.node, "containerID": lease.container, "ifname": lease.ifname,
        "mac": mac(address, lease), "since": lease.since,
    })
}

/// An endpoint as JSON among those of other networks.
fn among_others(network: &str, data_dir: &DataDir, mut value: Value) -> Value {
    value["network"] = json!(network);
    if let Some(directory) = data_dir.directory() {
        value["dataDir"] = json!(directory);
    }
    value
}

/// All endpoints of all networks.
pub async fn list(session: &Session, output: Output) -> Result<String> {
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    for cluster in session.clusters().await? {
        for name in cluster.networks().await?.keys() {
            for (address, lease) in &cluster.leases(name).await? {
                let value = described(*address, lease);
                values.push(among_others(name, cluster.data_dir(), value));
                let [address, node, container, ifname, mac] = row(*address, lease);
                rows.push([
                    cluster.full_name(name),
                    address,
                    node,
                    container,
                    ifname,
                    mac,
                ]);
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

/// What this host holds, from its own documents. Works while the store is away, and shows what the store does not know yet.
pub fn local(output: Output) -> Result<String> {
    let (mut all, mut skipped) = (Vec::new(), Vec::new());
    for files in FsLocalStore::all()? {
        for network in files.networks()? {
            let local_leases = files.leases(&network)?;
            let called = files.data_dir().full_name(&network);
            let unreadable = local_leases.unreadable.into_iter();
            skipped.extend(unreadable.map(|why| (called.clone(), why)));
            for local_lease in local_leases.readable {
                let state = |held: &LeasedAddress| match (local_lease.stage, held.revision) {
                    (Stage::Chosen, _) => "being made",
                    (_, Some(_)) => "published",
                    (_, None) => "not yet in the store",
                };
                let held = local_lease
                    .addresses
                    .iter()
                    .map(|held| (held.address, state(held)));
                let left = local_lease.given_back.iter();
                let left = left.map(|held| (held.address, "freed, not yet in the store"));
                for (address, state) in held.chain(left) {
                    let of = (files.data_dir().clone(), network.clone());
                    all.push((of, address, local_lease.lease.clone(), state));
                }
            }
        }
    }
    all.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    if output.json {
        let value = all
            .iter()
            .map(|((data_dir, network), address, lease, state)| {
                let value = described_lease(*address, lease);
                let mut value = among_others(network, data_dir, value);
                value["state"] = json!(state);
                value
            });
        let unreadable = skipped.iter().map(
            |(network, why)| json!({"network": network, "state": "unreadable", "unreadable": why}),
        );
        return Ok(json(&value.chain(unreadable).collect()));
    }
    let rows: Vec<_> =
        all.iter()
            .map(|((data_dir, network), address, lease, state)| {
                let [address, _, container, ifname, mac] = row_of(*address, lease);
                let network = data_dir.full_name(network);
                [
                    network,
                    address,
                    container,
                    ifname,
                    mac,
                    (*state).to_owned(),
                ]
            })
            .chain(skipped.iter().map(|(network, why)| {
                [network, "-", why, "-", "-", "unreadable"].map(str::to_owned)
            }))
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
