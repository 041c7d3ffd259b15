//! `crosshost network inspect`: one network with its blocks and endpoints.

use std::net::IpAddr;

use cluster::{
    BlockRecord, BlockState, Cluster, DataDir, EgressMode, Lease, Network, NetworkSnapshot, Records,
};
use overlay::segment::path_mtu::Carried;
use serde_json::json;

use super::{described, driver, state, summary};
use crate::{
    cli::Output,
    commands::{endpoint, node::ago},
    output::{json, table},
    session::{Result, Session},
};

/// What is shown of a network.
struct Seen<'a> {
    session: &'a Session,
    called: &'a str,
    data_dir: &'a DataDir,
    network: &'a Network,
    snapshot: &'a NetworkSnapshot,
    leases: Records<IpAddr, Lease>,
    paths: Option<Carried>,
    reaches: Vec<(String, bool)>,
}

/// One network with its blocks and endpoints.
pub async fn inspect(
    session: &Session,
    called: &str,
    no_trunc: bool,
    output: Output,
) -> Result<String> {
    let (cluster, name) = session.cluster_of(called)?;
    let snapshot = cluster.snapshot(name).await?;
    let network = &snapshot
        .network
        .as_ref()
        .ok_or_else(|| cluster::Error::NoNetwork(called.to_owned()))?
        .record;
    let seen = Seen {
        session,
        called,
        data_dir: cluster.data_dir(),
        network,
        snapshot: &snapshot,
        leases: cluster.leases(name).await?,
        paths: overlay::segment::path_mtu::known(&snapshot, &session.settings.node)?,
        reaches: reaches(&cluster, network).await?,
    };
    Ok(if output.json {
        json("network", seen.described())
    } else {
        seen.shown(no_trunc)
    })
}

impl Seen<'_> {
    fn gateways(&self) -> Vec<IpAddr> {
        let ranges = self.network.ranges.iter().flatten();
        ranges.filter_map(|range| range.gateway).collect()
    }

    /// How many addresses of a block have a lease.
    fn used(&self, block: &ipam::Block) -> usize {
        let blocks = self.leases.keys();
        let blocks = blocks.filter_map(|at| self.snapshot.block_of(*at));
        blocks.filter(|(of, _)| of == block).count()
    }

    fn described(&self) -> serde_json::Value {
        let (network, snapshot) = (self.network, self.snapshot);
        let mut described = described(network, self.session.scope(), self.data_dir);
        let unreadable = snapshot
            .blocks
            .unreadable()
            .map(|(block, it)| json!({ "block": spelled(block), "unreadable": it.why }));
        let blocks = snapshot.blocks.readable().map(|(block, owner)| {
            let BlockRecord {
                node,
                state,
                exclusions,
                ..
            } = &owner.record;
            let exclusions = exclusions.iter().map(|(address, exclusion)| {
                json!({ "address": address, "node": exclusion.node, "state": exclusion.state })
            });
            json!({
                "block": spelled(block), "node": node, "state": state, "used": self.used(block),
                "exclusions": exclusions.collect::<Vec<_>>(),
            })
        });
        described["gateway"] = json!(self.gateways().first());
        described["ranges"] = json!(network.ranges);
        described["blockPrefix"] = json!(network.block_prefix);
        described["reclaimAfter"] = json!(network.reclaim_after);
        described["mtu"] = json!(network.mtu);
        if let Some(paths) = &self.paths {
            let narrow = paths.narrow.iter();
            let narrow = narrow.map(|way| json!({ "vtep": way.vtep, "packet": way.packet }));
            described["carried"] =
                json!({ "mtu": paths.mtu, "narrow": narrow.collect::<Vec<_>>() });
        }
        described["vxlanPort"] = json!(network.vxlan_port.unwrap_or(cluster::VXLAN_PORT));
        described["egress"] = json!(egress(network));
        described["egressSubnet"] = json!(network.egress.as_ref().and_then(|it| it.subnet));
        described["macvlan"] = json!(network.macvlan);
        described["conflist"] = json!(network.conflist);
        let met = |(name, meets): &(String, bool)| json!({ "network": name, "meets": meets });
        described["reaches"] = self.reaches.iter().map(met).collect();
        described["blocks"] = blocks.chain(unreadable).collect();
        let endpoints = self.leases.iter();
        let endpoints = endpoints.map(|(address, lease)| endpoint::described(*address, lease));
        described["endpoints"] = endpoints.collect();
        described
    }

    fn shown(&self, whole: bool) -> String {
        let (network, snapshot) = (self.network, self.snapshot);
        let [_, vni, subnets, scope] = summary(network, self.session.scope());
        let state = match state(network) {
            "" => String::new(),
            state => format!(", {state}"),
        };
        let gateways = self.gateways();
        let gateways: Vec<_> = gateways.iter().map(ToString::to_string).collect();
        let mut head = vec![format!(
            "network {}: vni {vni}, subnets {subnets}, gateway {}, scope {scope}{state}",
            cni::plain(self.called),
            gateways.join(","),
        )];
        head.push(made_by(network));
        head.extend(network.ranges.iter().flatten().map(range));
        head.extend(options(network));
        if let Some(paths) = &self.paths {
            let carried = format!("packets of {} bytes pass this host's tunnels", paths.mtu);
            head.push(carried);
            head.extend(paths.narrow.iter().map(|way| {
                let (vtep, packet) = (way.vtep, way.packet);
                let then = "new containers on this host get a smaller MTU";
                format!("path MTU to {vtep} is {packet} bytes: {then}")
            }));
        }
        head.extend(self.reaches.iter().map(met));
        let blocks: Vec<_> = snapshot
            .blocks
            .iter()
            .map(|(block, present)| {
                let owner = present.readable().map(|present| owner(&present.record));
                let owner = owner.unwrap_or_else(|| "(unreadable)".to_owned());
                [spelled(block), owner, self.used(block).to_string()]
            })
            .collect();
        let blocks = table(["BLOCK", "NODE", "USED"], &blocks);
        let (head, exclusions) = (head.join("\n"), exclusions(snapshot));
        format!("{head}\n\n{blocks}{exclusions}\n{}", self.endpoints(whole))
    }

    fn endpoints(&self, whole: bool) -> String {
        let now = journal::clock::unix();
        let rows = self.leases.iter().map(|(address, lease)| {
            let row = endpoint::row(*address, lease, whole);
            let [address, node, container, name, ifname, mac] = row;
            let since = lease.readable().map(|lease| lease.record.since);
            let since = since.map_or_else(|| "-".to_owned(), |at| ago(now.saturating_sub(at)));
            [address, node, container, name, ifname, mac, since]
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return "no endpoints\n".to_owned();
        }
        let [address, node, container, name, ifname, mac] = endpoint::HEADINGS;
        let headings = [address, node, container, name, ifname, mac, "SINCE"];
        table(headings, &rows)
    }
}

fn spelled(block: &ipam::Block) -> String {
    format!("{}/{}", block.first(), block.prefix())
}

/// What makes the containers' interfaces, and the way out.
fn made_by(network: &Network) -> String {
    let mut parts = vec![format!("driver {}", driver(network))];
    if let Some(macvlan) = &network.macvlan {
        let mode = macvlan.mode.as_deref().unwrap_or("bridge");
        parts.push(format!("parent {}", cni::plain(&macvlan.parent)));
        parts.push(format!("mode {mode}"));
    }
    let mtu = network.mtu.map(|mtu| mtu.to_string());
    let mtu = mtu.unwrap_or_else(|| "that of the underlay".to_owned());
    parts.push(format!("mtu {mtu}"));
    if network.vni.is_some() {
        let port = network.vxlan_port.unwrap_or(cluster::VXLAN_PORT);
        parts.push(format!("UDP port {port}"));
        let mode = match egress(network) {
            EgressMode::GwBridge => "gwbridge",
            EgressMode::Gateway => "gateway",
            EgressMode::None => "none",
        };
        let subnet = network.egress.as_ref().and_then(|egress| egress.subnet);
        let subnet = subnet.map(|subnet| format!(" with subnet {subnet}"));
        parts.push(format!("egress {mode}{}", subnet.unwrap_or_default()));
    }
    parts.join(", ")
}

/// The addresses of a range in words.
fn range(range: &ipam::Range) -> String {
    let (start, end, subnet) = (range.start(), range.end(), range.subnet);
    let mut parts = vec![format!("addresses {start} to {end} of {subnet}")];
    parts.extend(range.gateway.map(|gateway| format!("gateway {gateway}")));
    let excluded: Vec<_> = range.exclude.iter().map(ToString::to_string).collect();
    if !excluded.is_empty() {
        parts.push(format!("without {}", excluded.join(", ")));
    }
    parts.join(", ")
}

/// What else was asked for when the network was created, one line each.
fn options(network: &Network) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(prefix) = network.block_prefix {
        lines.push(format!("blocks of /{prefix}"));
    }
    if let Some(seconds) = network.reclaim_after {
        lines.push(format!(
            "a host without contact for {seconds} s loses its blocks"
        ));
    }
    let labels = network.labels.iter();
    let labels: Vec<_> = labels
        .map(|(key, value)| format!("{}={}", cni::plain(key), cni::plain(value)))
        .collect();
    if !labels.is_empty() {
        lines.push(format!("labels {}", labels.join(", ")));
    }
    lines.push(
        if network.conflist {
            "conflist: written by each host that has network.conflistDirs"
        } else {
            "conflist: by hand"
        }
        .to_owned(),
    );
    lines
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
        format!("meets network {name}")
    } else {
        format!("reaches {name}, which does not name it: they do not meet")
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
