//! `crosshost endpoint`: which container has which address, according to the store or to this host.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use cluster::{DataDir, Lease, LeasedAddress, LocalStore, Stage, Stored};
use ipam::Mac;
use ipam_kv::local_store::FsLocalStore;
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::{
    cli::{self, Listing},
    containers,
    output::{json, lines, table},
    session::{Result, Session},
};

/// A condition on endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Of this network.
    Network(String),
    /// On this host.
    Node(String),
    /// Of the container with this name, or whose id begins so.
    Container(String),
    /// With this address, or one in this subnet.
    Address(IpNetwork),
}

impl cli::Filter for Filter {
    const HELP: &'static str = "Only endpoints with network=NAME, node=NAME, container=NAME or the beginning of its id, or \
                                address=ADDRESS or CIDR; may be repeated, and all must hold";
    const QUIET: &'static str = "Print the addresses alone";
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some(("network", name)) => Ok(Self::Network(name.to_owned())),
            Some(("node", name)) => Ok(Self::Node(name.to_owned())),
            Some(("container", name)) => Ok(Self::Container(name.to_owned())),
            Some(("address", address)) => {
                let address = address
                    .parse()
                    .map_err(|error| format!("{address}: {error}"));
                Ok(Self::Address(address?))
            }
            _ => Err("want network=, node=, container= or address=".to_owned()),
        }
    }
}

impl Filter {
    /// Whether an endpoint of `network`, by its full name, fulfils it. Of a lease that cannot be read only network and address are
    /// known.
    fn admits(&self, network: &str, address: IpAddr, lease: Option<&Lease>) -> bool {
        match self {
            Self::Network(name) => network == name,
            Self::Node(name) => lease.is_some_and(|lease| lease.node == *name),
            Self::Container(typed) => lease.is_some_and(|lease| {
                containers::is_called(typed, &lease.container, lease.container_name.as_deref())
            }),
            Self::Address(subnet) => subnet.contains(address),
        }
    }
}

/// The columns of an endpoint.
pub const HEADINGS: [&str; 6] = ["ADDRESS", "NODE", "CONTAINER", "NAME", "INTERFACE", "MAC"];

/// An endpoint as a row, with the whole container id or its beginning.
pub fn row(address: IpAddr, lease: &Stored<Lease>, whole: bool) -> [String; 6] {
    match lease {
        Stored::Readable(lease) => row_of(address, &lease.record, whole),
        Stored::Unreadable(_) => {
            let address = address.to_string();
            [&address, "(unreadable)", "-", "-", "-", "-"].map(str::to_owned)
        }
    }
}

fn row_of(address: IpAddr, lease: &Lease, whole: bool) -> [String; 6] {
    [
        address.to_string(),
        lease.node.clone(),
        containers::shown(&lease.container, whole),
        lease
            .container_name
            .clone()
            .unwrap_or_else(|| "-".to_owned()),
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
        "address": address, "node": lease.node, "containerID": lease.container, "containerName": lease.container_name,
        "ifname": lease.ifname, "mac": mac(address, lease), "since": lease.since,
    })
}

/// An endpoint as JSON among those of other networks.
fn among_others(network: &str, data_dir: &DataDir, mut value: Value) -> Value {
    value["network"] = json!(network);
    value["dataDir"] = json!(data_dir.directory());
    value
}

/// The names of this host's containers by their ids, as far as runtimes told them.
pub fn names() -> Result<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    for files in FsLocalStore::all()? {
        for network in files.networks()? {
            let leases = files.leases(&network)?.readable.into_iter();
            names.extend(
                leases.filter_map(|it| Some((it.lease.container, it.lease.container_name?))),
            );
        }
    }
    Ok(names)
}

/// All endpoints of all networks.
pub async fn list(session: &Session, listing: &Listing<Filter>, whole: bool) -> Result<String> {
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    for cluster in session.clusters().await? {
        for name in cluster.networks().await?.keys() {
            let called = cluster.full_name(name);
            for (address, lease) in &cluster.leases(name).await? {
                let known = lease.readable().map(|lease| &lease.record);
                let mut filters = listing.filter.iter();
                if !filters.all(|filter| filter.admits(&called, *address, known)) {
                    continue;
                }
                let value = described(*address, lease);
                values.push(among_others(name, cluster.data_dir(), value));
                let [address, node, container, named, ifname, mac] = row(*address, lease, whole);
                let network = called.clone();
                rows.push([network, address, node, container, named, ifname, mac]);
            }
        }
    }
    if listing.quiet {
        return Ok(lines(rows.iter().map(|row| &row[1])));
    }
    if listing.output.json {
        return Ok(json("endpoints", values.into()));
    }
    let [address, node, container, named, ifname, mac] = HEADINGS;
    let headings = ["NETWORK", address, node, container, named, ifname, mac];
    Ok(table(headings, &rows))
}

/// What this host holds, from its own documents. Works while the store is away, and shows what the store does not know yet.
pub fn local(listing: &Listing<Filter>, whole: bool) -> Result<String> {
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
    all.retain(|((data_dir, network), address, lease, _)| {
        let called = data_dir.full_name(network);
        let mut filters = listing.filter.iter();
        filters.all(|filter| filter.admits(&called, *address, Some(lease)))
    });
    if !listing.filter.is_empty() {
        // Nothing is known of these but the network.
        skipped.clear();
    }
    all.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    if listing.quiet {
        return Ok(lines(all.iter().map(|(_, address, ..)| address)));
    }
    if listing.output.json {
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
        return Ok(json("endpoints", value.chain(unreadable).collect()));
    }
    let rows: Vec<_> = all
        .iter()
        .map(|((data_dir, network), address, lease, state)| {
            let network = data_dir.full_name(network);
            let [address, _, container, named, ifname, mac] = row_of(*address, lease, whole);
            let state = (*state).to_owned();
            [network, address, container, named, ifname, mac, state]
        })
        .chain(skipped.iter().map(|(network, why)| {
            [network, "-", why, "-", "-", "-", "unreadable"].map(str::to_owned)
        }))
        .collect();
    let [address, _, container, named, ifname, mac] = HEADINGS;
    let headings = ["NETWORK", address, container, named, ifname, mac, "STATE"];
    Ok(table(headings, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_knows_an_endpoint_by_what_is_typed() {
        let lease: Lease = serde_json::from_value(json!({
            "node": "docker01", "bootID": "b", "containerID": "cnitool-77383ca0a0715733ca6f", "containerName": "web",
            "ifname": "eth0", "since": 1,
        }))
        .unwrap();
        let address = "10.0.0.2".parse().unwrap();
        for (text, admits, unreadable) in [
            ("network=ov_net1", true, true),
            ("network=ov", false, false),
            ("node=docker01", true, false),
            ("node=docker02", false, false),
            ("container=web", true, false),
            ("container=7738", true, false),
            ("container=x", false, false),
            ("address=10.0.0.2", true, true),
            ("address=10.0.0.0/29", true, true),
            ("address=fd00::/64", false, false),
        ] {
            let filter: Filter = text.parse().unwrap();
            let is = |lease| filter.admits("ov_net1", address, lease);
            assert_eq!((is(Some(&lease)), is(None)), (admits, unreadable), "{text}");
        }
        for bad in ["network", "id=x", "address=x", ""] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
