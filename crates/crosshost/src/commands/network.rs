//! `crosshost network`: create, ls, inspect, rm.

use std::{collections::BTreeSet, net::IpAddr};

use cluster::{
    BlockRecord, BlockState, Cluster, DataDir, Egress, EgressMode, LocalStore as _, Network,
    NetworkSnapshot, NetworkSpec, NetworkState,
};
use ipam::{Range, Schema};
use ipam_kv::local_store::FsLocalStore;
use serde_json::json;

use crate::{
    cli::{self, Create, Output},
    commands::endpoint,
    output::{Usage, json, table},
    session::{Result, Session},
};

/// Creates a network.
pub async fn create(session: &Session, spec: &NetworkSpec) -> Result<String> {
    let host = overlay::state::host::Host::open().map_err(|error| error.to_string())?;
    let spec = NetworkSpec {
        in_use: host.vnis().map_err(|error| error.to_string())?,
        ..spec.clone()
    };
    let network = session.cluster().create_network(&spec).await?;
    let line = summary(&network, session.scope()).join("  ");
    Ok(format!("{}\n", cni::line(line)))
}

/// The network that the options describe, checked.
pub fn spec(options: Create) -> Result<NetworkSpec> {
    let usage = |why: String| Err(Usage(why).into());
    let (range_start, range_end) = options.range.unzip();
    if options.subnet.len() > 1 && (options.gateway.is_some() || range_start.is_some()) {
        let why = "with one --subnet only; for several write the ranges into the conflist";
        return usage(format!("--gateway, --range: {why}"));
    }
    let ranges = options.subnet.into_iter().map(|subnet| {
        vec![Range {
            subnet,
            range_start,
            range_end,
            gateway: options.gateway,
            exclude: Vec::new(),
        }]
    });
    let ranges = Schema {
        ranges: Some(ranges.collect()),
        exclude: Some(options.exclude),
        block_prefix: options.block_prefix,
        ..Schema::default()
    }
    .ranges()
    .map_err(|error| Usage(error.to_string()))?;
    let mode = match options.egress {
        None => options.egress_subnet.map(|_| EgressMode::GwBridge),
        Some(cli::Egress::Gwbridge) => Some(EgressMode::GwBridge),
        Some(cli::Egress::Gateway) => Some(EgressMode::Gateway),
        Some(cli::Egress::None) => Some(EgressMode::None),
    };
    if let (Some(mode), Some(subnet)) = (mode, options.egress_subnet)
        && mode != EgressMode::GwBridge
    {
        let why = "only --egress gwbridge has an egress bridge";
        return usage(format!("--egress-subnet {subnet}: {why}"));
    }
    let subnet = options.egress_subnet;
    let spec = NetworkSpec {
        name: options.name.into(),
        id: Some(cluster::unique()),
        reclaim_after: options.reclaim_after,
        segment: true,
        ranges,
        vni: options.vni,
        block_prefix: options.block_prefix,
        mtu: options.mtu,
        vxlan_port: options.vxlan_port,
        egress: mode.map(|mode| Egress { mode, subnet }),
        reaches: (!options.reaches.is_empty()).then(|| options.reaches.into_iter().collect()),
        in_use: BTreeSet::new(),
    };
    Ok(spec.check().map_err(|error| Usage(error.to_string()))?)
}

fn subnets(network: &Network) -> Vec<String> {
    network.subnets().iter().map(ToString::to_string).collect()
}

/// Name, VNI, subnets, scope.
fn summary(network: &Network, scope: &str) -> [String; 4] {
    let vni = network
        .vni
        .map_or_else(|| "-".to_owned(), |vni| vni.to_string());
    [
        network.name.clone(),
        vni,
        subnets(network).join(","),
        scope.to_owned(),
    ]
}

fn described(network: &Network, scope: &str, data_dir: &DataDir) -> serde_json::Value {
    let state = network.state;
    let mut value = json!({
        "name": network.name, "vni": network.vni, "subnets": subnets(network), "scope": scope, "state": state,
    });
    if let Some(directory) = data_dir.directory() {
        value["dataDir"] = json!(directory);
    }
    value
}

/// All networks.
pub async fn list(session: &Session, output: Output) -> Result<String> {
    let (mut values, mut listed, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for cluster in session.clusters().await? {
        let networks = cluster.networks().await?;
        for (name, network) in networks.readable() {
            let network = network.record.clone();
            values.push(described(&network, session.scope(), cluster.data_dir()));
            listed.push((cluster.full_name(name), network));
        }
        for (name, it) in networks.unreadable() {
            let called = cluster.full_name(name);
            values.push(json!({"name": called, "state": "unreadable", "unreadable": it.why}));
            unreadable.push(called);
        }
    }
    if output.json {
        return Ok(json(&values.into()));
    }
    Ok(shown(&listed, &unreadable, session.scope()))
}

/// The networks and their names as a table, with a column for the state if one of them is not ready. Networks whose records cannot
/// be read have only a name.
fn shown(networks: &[(String, Network)], unreadable: &[String], scope: &str) -> String {
    let rows: Vec<_> = networks
        .iter()
        .map(|(called, network)| {
            let [_, vni, subnets, scope] = summary(network, scope);
            [called.clone(), vni, subnets, scope]
        })
        .collect();
    let is_well = |(_, network): &(String, Network)| state(network).is_empty();
    if unreadable.is_empty() && networks.iter().all(is_well) {
        return table(["NAME", "VNI", "SUBNETS", "SCOPE"], &rows);
    }
    let rows: Vec<_> = rows
        .into_iter()
        .zip(networks)
        .map(|([name, vni, subnets, scope], (_, network))| {
            [name, vni, subnets, scope, state(network).to_owned()]
        })
        .chain(
            unreadable
                .iter()
                .map(|name| [name.as_str(), "-", "-", scope, "unreadable"].map(str::to_owned)),
        )
        .collect();
    table(["NAME", "VNI", "SUBNETS", "SCOPE", "STATE"], &rows)
}

/// The state of a network in words; empty if it is ready.
fn state(network: &Network) -> &'static str {
    match network.state {
        _ if network.restoring.is_some() => "restoring",
        NetworkState::Ready => "",
        NetworkState::Creating => "creating",
        NetworkState::Removing => "removing",
    }
}

/// One network with its blocks and endpoints.
pub async fn inspect(session: &Session, called: &str, output: Output) -> Result<String> {
    let (cluster, name) = session.cluster_of(called)?;
    let snapshot = cluster.snapshot(name).await?;
    let network = &snapshot
        .network
        .as_ref()
        .ok_or_else(|| cluster::Error::NoNetwork(called.to_owned()))?
        .record;
    let leases = cluster.leases(name).await?;
    let ways = overlay::segment::path_mtu::known(&snapshot, &session.settings.node)?;
    let gateways: Vec<IpAddr> = network
        .ranges
        .iter()
        .flatten()
        .filter_map(|range| range.gateway)
        .collect();
    let reaches = reaches(&cluster, network).await?;
    let used = |block: &ipam::Block| {
        let blocks = leases.keys().filter_map(|at| snapshot.block_of(*at));
        blocks.filter(|(of, _)| of == block).count()
    };
    if output.json {
        let mut described = described(network, session.scope(), cluster.data_dir());
        let unreadable = snapshot.blocks.unreadable().map(|(block, it)| {
            let block = format!("{}/{}", block.first(), block.prefix());
            json!({"block": block, "unreadable": it.why})
        });
        let blocks = snapshot.blocks.readable().map(|(block, owner)| {
            let mut value = json!(owner.record);
            value["block"] = json!(format!("{}/{}", block.first(), block.prefix()));
            value["used"] = json!(used(block));
            value
        });
        described["gateway"] = json!(gateways.first());
        described["ranges"] = json!(network.ranges);
        described["mtu"] = json!(network.mtu);
        if let Some(ways) = &ways {
            let narrow = ways.narrow.iter();
            let narrow = narrow.map(|way| json!({ "vtep": way.vtep, "packet": way.packet }));
            described["carried"] = json!({ "mtu": ways.mtu, "narrow": narrow.collect::<Vec<_>>() });
        }
        described["vxlanPort"] = json!(network.vxlan_port.unwrap_or(cluster::VXLAN_PORT));
        described["egress"] = json!(egress(network));
        let met = |(name, meets): &(String, bool)| json!({ "network": name, "meets": meets });
        described["reaches"] = reaches.iter().map(met).collect();
        described["blocks"] = blocks.chain(unreadable).collect();
        let endpoints = leases
            .iter()
            .map(|(address, lease)| endpoint::described(*address, lease));
        described["endpoints"] = endpoints.collect();
        return Ok(json(&described));
    }
    let [_, vni, subnets, scope] = summary(network, session.scope());
    let state = match state(network) {
        "" => String::new(),
        state => format!(", {state}"),
    };
    let gateways: Vec<_> = gateways.iter().map(ToString::to_string).collect();
    let narrow = ways.iter().flat_map(|ways| &ways.narrow).map(|way| {
        let (vtep, packet) = (way.vtep, way.packet);
        format!(
            "path MTU to {vtep} is {packet} bytes: new containers on this host get a smaller MTU\n"
        )
    });
    let head = format!(
        "network {}: vni {vni}, subnets {subnets}, gateway {}, scope {scope}{state}\n{}{}\n",
        cni::plain(called),
        gateways.join(","),
        narrow.collect::<String>(),
        reaches.iter().map(met).collect::<String>()
    );
    let blocks: Vec<_> = snapshot
        .blocks
        .iter()
        .map(|(block, present)| {
            let owner = present.readable().map(|present| owner(&present.record));
            [
                format!("{}/{}", block.first(), block.prefix()),
                owner.unwrap_or_else(|| "(unreadable)".to_owned()),
                used(block).to_string(),
            ]
        })
        .collect();
    let exclusions = exclusions(&snapshot);
    let endpoints: Vec<_> = leases
        .iter()
        .map(|(address, lease)| endpoint::row(*address, lease))
        .collect();
    let endpoints = if endpoints.is_empty() {
        "no endpoints\n".to_owned()
    } else {
        table(endpoint::HEADINGS, &endpoints)
    };
    Ok(format!(
        "{head}{}{exclusions}\n{endpoints}",
        table(["BLOCK", "NODE", "USED"], &blocks)
    ))
}

/// How its containers reach the outside.
fn egress(network: &Network) -> EgressMode {
    let egress = network.egress.as_ref();
    egress.map_or(EgressMode::GwBridge, |egress| egress.mode)
}

/// The networks that a network names, each with whether they meet: it names this one as well.
async fn reaches(cluster: &Cluster<'_>, network: &Network) -> Result<Vec<(String, bool)>> {
    let name = &network.name;
    let mut named = network.reaches.clone().unwrap_or_default();
    let host = overlay::state::host::Host::open().map_err(|error| error.to_string())?;
    let noted = |name: &str| {
        let noted = overlay::firewall::table::reaches(&host, name);
        noted.map_err(|error| error.to_string())
    };
    named.extend(noted(name)?);
    let mut reaches = Vec::new();
    for other in named {
        let record = cluster.network(&other).await?;
        let record = record.and_then(|record| record.record.reaches);
        let meets =
            record.is_some_and(|names| names.contains(name)) || noted(&other)?.contains(name);
        reaches.push((other, meets));
    }
    Ok(reaches)
}

/// A network that another one names, in words.
fn met((name, meets): &(String, bool)) -> String {
    let name = cni::plain(name);
    if *meets {
        format!("meets network {name}\n")
    } else {
        format!("reaches {name}, which does not name it: they do not meet\n")
    }
}

/// The owner of a block, in words.
fn owner(record: &BlockRecord) -> String {
    match record.state {
        BlockState::Owned => record.node.clone(),
        BlockState::Returned => format!("- (was {}'s)", record.node),
        BlockState::Reclaiming => format!("- (being taken from {})", record.node),
    }
}

/// The single addresses that do not belong to the owner of their block, as a table; empty if there are none.
fn exclusions(snapshot: &NetworkSnapshot) -> String {
    let rows: Vec<_> = (snapshot.blocks.readable())
        .flat_map(|(_, block)| &block.record.exclusions)
        .map(|(address, exclusion)| {
            let state = format!("{:?}", exclusion.state).to_lowercase();
            [address.to_string(), exclusion.node.clone(), state]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "\n{}",
        table(["ADDRESS OF ANOTHER'S BLOCK", "NODE", "STATE"], &rows)
    )
}

/// Removes a network without endpoints.
pub async fn remove(session: &Session, called: &str) -> Result<String> {
    let (cluster, name) = session.cluster_of(called)?;
    // If this host has no snapshot of the network, a restore that it began has ended.
    let memory = FsLocalStore::new(cluster.data_dir()).memory(name)?;
    if memory.snapshot.network.is_none() {
        let (boot, node) = (journal::clock::boot_id()?, &session.settings.node);
        let snapshot = cluster.snapshot(name).await?;
        let ended = cluster.end_restore(name, &snapshot, node, &boot);
        ended.await?;
    }
    let now = journal::clock::unix();
    cluster.remove_network(name, now).await?;
    Ok(format!("{called}\n"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Arguments, Command};

    fn spec_of(options: &str) -> Result<NetworkSpec> {
        let line = format!("crosshost network create n {options}");
        let Some(Command::Network(cli::Network::Create(create))) =
            Arguments::try_parse_from(line.split_whitespace())?.command
        else {
            panic!("another command")
        };
        spec(*create)
    }

    #[test]
    fn a_network_needs_a_subnet_and_takes_the_rest_by_option() {
        assert!(spec_of("").unwrap_err().to_string().contains("--subnet"));
        let range = "--subnet 10.0.0.0/24 --range 10.0.0.16-10.0.0.31 --egress none";
        let spec = spec_of(range).unwrap();
        assert_eq!(spec.ranges[0][0].start().to_string(), "10.0.0.16");
        assert_eq!(spec.egress.unwrap().mode, EgressMode::None);
        let spec = spec_of("--subnet 10.0.0.0/24 --egress gateway --reaches two").unwrap();
        assert_eq!(spec.egress.unwrap().mode, EgressMode::Gateway);
        assert_eq!(spec.reaches.unwrap(), ["two".to_owned()].into());
        let spec = spec_of("--subnet 10.0.0.0/24 --egress-subnet 172.19.0.0/16").unwrap();
        assert_eq!(spec.egress.unwrap().mode, EgressMode::GwBridge);
    }

    #[test]
    fn a_state_is_shown_only_where_a_network_is_not_as_it_should_be() {
        let network = |state: &str| -> Network {
            serde_json::from_value(json!({"name": "n", "vni": 4097, "ranges": [], "state": state}))
                .unwrap()
        };
        let [ready, removing] = ["ready", "removing"].map(|state| ("n".to_owned(), network(state)));
        assert_eq!(
            shown(std::slice::from_ref(&ready), &[], "global"),
            "NAME  VNI   SUBNETS  SCOPE\nn     4097           global\n"
        );
        assert_eq!(
            shown(&[ready, removing], &[], "local"),
            "NAME  VNI   SUBNETS  SCOPE  STATE\nn     4097           local\n\
             n     4097           local  removing\n"
        );
    }

    #[test]
    fn bad_options_are_named_with_their_value_and_are_a_matter_of_usage() {
        for (options, value) in [
            ("--subnet 10.0.0.5/24", "10.0.0.5/24"),
            ("--subnet 10.0.0.0/24 --vni 0", "vni: 0"),
            (
                "--subnet 10.0.0.0/24 --subnet fd00::/64 --gateway 10.0.0.1",
                "--gateway",
            ),
            (
                "--subnet 10.0.0.0/24 --reaches two",
                "reaches: needs egress gateway",
            ),
            (
                "--subnet 10.0.0.0/24 --egress gateway --reaches two --reaches n",
                "reaches: \"n\": is the network itself",
            ),
            (
                "--subnet 10.0.0.0/24 --egress none --egress-subnet 172.19.0.0/16",
                "--egress-subnet 172.19.0.0/16",
            ),
        ] {
            let error = spec_of(options).unwrap_err();
            let Usage(message) = error.downcast_ref().unwrap();
            assert!(message.contains(value), "{message}");
        }
    }
}
