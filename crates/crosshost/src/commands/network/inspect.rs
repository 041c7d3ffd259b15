//! `crosshost network inspect`: one network with its blocks and endpoints.

use std::net::IpAddr;

use cluster::{BlockRecord, BlockState, Cluster, EgressMode, Network, NetworkSnapshot};
use serde_json::json;

use super::{described, state, summary};
use crate::{
    cli::Output,
    commands::endpoint,
    output::{json, table},
    session::{Result, Session},
};

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
