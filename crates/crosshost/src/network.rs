//! `crosshost network`: create, ls, inspect, rm.

use std::net::IpAddr;

use cluster::{
    BlockRecord, BlockState, Egress, EgressMode, Network, NetworkSpec, NetworkState, News,
};
use ipam::{Range, Schema};
use ipnetwork::IpNetwork;
use serde_json::json;

use crate::{
    command::{Result, Session, Words},
    endpoint,
    realms::{self, Realm},
    table::{json, table},
};

/// Makes a network from the options.
pub async fn create(session: &Session, words: &Words) -> Result<String> {
    let spec = spec(words)?;
    let network = session.cluster().create_network(&spec).await?;
    Ok(format!("{}\n", summary(&network).join("  ")))
}

fn spec(words: &Words) -> Result<NetworkSpec> {
    let name =
        cni::NetworkName::new(words.name()?).map_err(|error| format!("network name: {error}"))?;
    let (gateway, bounds) = (
        words.option::<IpAddr>("gateway")?,
        words.option::<String>("range")?,
    );
    let (range_start, range_end) = bounds
        .map(|bounds| parse_bounds(&bounds))
        .transpose()?
        .unzip();
    let mut ranges = Vec::new();
    for (_, value) in words
        .options
        .iter()
        .filter(|(option, _)| option == "subnet")
    {
        let subnet: IpNetwork = value
            .parse()
            .map_err(|error| format!("--subnet {value}: {error}"))?;
        ranges.push(vec![Range {
            subnet,
            range_start,
            range_end,
            gateway,
            exclude: Vec::new(),
        }]);
    }
    if ranges.is_empty() {
        return Err("--subnet: missing: a network needs one, such as --subnet 10.0.0.0/24".into());
    }
    if ranges.len() > 1 && (gateway.is_some() || range_start.is_some()) {
        let why = "with one --subnet only; for several write the ranges into the conflist";
        return Err(format!("--gateway, --range: {why}").into());
    }
    let block_prefix = words.option("block-prefix")?;
    let exclude = (words.options.iter())
        .filter(|(option, _)| option == "exclude")
        .map(|(_, value)| {
            value
                .parse()
                .map_err(|error| format!("--exclude {value}: {error}"))
        })
        .collect::<std::result::Result<Vec<IpNetwork>, _>>()?;
    let ranges = Schema {
        ranges: Some(ranges),
        exclude: Some(exclude),
        block_prefix,
        ..Schema::default()
    }
    .ranges()?;
    let egress_subnet = words.option("egress-subnet")?;
    let egress = match (words.option::<String>("egress")?.as_deref(), egress_subnet) {
        (None, None) => None,
        (None | Some("gwbridge"), subnet) => Some(Egress {
            mode: EgressMode::GwBridge,
            subnet,
        }),
        (Some("none"), None) => Some(Egress {
            mode: EgressMode::None,
            subnet: None,
        }),
        (Some("gateway"), None) => Some(Egress {
            mode: EgressMode::Gateway,
            subnet: None,
        }),
        (Some(mode @ ("gateway" | "none")), Some(subnet)) => {
            let why = format!("there is no egress bridge with --egress {mode}");
            return Err(format!("--egress-subnet {subnet}: {why}").into());
        }
        (Some(other), _) => {
            return Err(format!("--egress {other}: want gwbridge, gateway or none").into());
        }
    };
    Ok(NetworkSpec {
        name: name.to_string(),
        id: Some(cluster::unique()),
        reclaim_after: words.option("reclaim-after")?,
        segment: true,
        ranges,
        vni: words.option("vni")?,
        block_prefix,
        mtu: words.option("mtu")?,
        vxlan_port: words.option("vxlan-port")?,
        egress,
    }
    .check()?)
}

fn parse_bounds(text: &str) -> Result<(IpAddr, IpAddr)> {
    let ends = text.split_once('-');
    let (start, end) = ends.ok_or_else(|| format!("--range {text}: want START-END"))?;
    let parse = |part: &str| {
        part.parse()
            .map_err(|error| format!("--range {text}: {part}: {error}"))
    };
    Ok((parse(start)?, parse(end)?))
}

fn subnets(network: &Network) -> Vec<String> {
    network.subnets().iter().map(ToString::to_string).collect()
}

/// Name, VNI, subnets, scope.
fn summary(network: &Network) -> [String; 4] {
    let vni = network
        .vni
        .map_or_else(|| "-".to_owned(), |vni| vni.to_string());
    [
        network.name.clone(),
        vni,
        subnets(network).join(","),
        "global".to_owned(),
    ]
}

fn described(network: &Network, realm: &Realm<'_>) -> serde_json::Value {
    let state = network.state;
    let mut value = json!({
        "name": network.name, "vni": network.vni, "subnets": subnets(network), "scope": "global", "state": state,
    });
    if let Some(directory) = realm.directory() {
        value["dataDir"] = json!(directory);
    }
    value
}

/// All networks.
pub async fn list(session: &Session, words: &Words) -> Result<String> {
    let (mut values, mut listed) = (Vec::new(), Vec::new());
    for realm in realms::all(session).await? {
        for network in realm.cluster.networks().await? {
            let network = network.record;
            values.push(described(&network, &realm));
            listed.push((realm.called(&network.name), network));
        }
    }
    if words.json {
        return Ok(json(&values.into()));
    }
    Ok(shown(&listed))
}

/// The networks with what they are called, as a table; their state only where one is not as it should be.
fn shown(networks: &[(String, Network)]) -> String {
    let rows: Vec<_> = networks
        .iter()
        .map(|(called, network)| {
            let [_, vni, subnets, scope] = summary(network);
            [called.clone(), vni, subnets, scope]
        })
        .collect();
    if networks
        .iter()
        .all(|(_, network)| state(network).is_empty())
    {
        return table(["NAME", "VNI", "SUBNETS", "SCOPE"], &rows);
    }
    let rows: Vec<_> = rows
        .into_iter()
        .zip(networks)
        .map(|([name, vni, subnets, scope], (_, network))| {
            [name, vni, subnets, scope, state(network).to_owned()]
        })
        .collect();
    table(["NAME", "VNI", "SUBNETS", "SCOPE", "STATE"], &rows)
}

/// What is to be said of a network's state: nothing while it is as it should be.
fn state(network: &Network) -> &'static str {
    match network.state {
        NetworkState::Ready => "",
        NetworkState::Creating => "creating",
        NetworkState::Removing => "removing",
    }
}

/// One network with its blocks and endpoints.
pub async fn inspect(session: &Session, words: &Words) -> Result<String> {
    let called = words.name()?;
    let (realm, name) = realms::of(session, called)?;
    let cluster = &realm.cluster;
    let news = cluster.news(name).await?;
    let network = &news
        .network
        .as_ref()
        .ok_or_else(|| cluster::Error::NoNetwork(called.to_owned()))?
        .record;
    let leases = cluster.leases(name).await?;
    let ways = overlay::path::known(&news, &session.settings.node)?;
    let gateways: Vec<IpAddr> = network
        .ranges
        .iter()
        .flatten()
        .filter_map(|range| range.gateway)
        .collect();
    let used = |block: &ipam::Block| {
        leases
            .iter()
            .filter(|(address, _)| news.block_of(*address).is_some_and(|(of, _)| of == *block))
            .count()
    };
    let owner = |record: &BlockRecord| match record.state {
        BlockState::Owned => record.node.clone(),
        BlockState::Returned => format!("- (was {}'s)", record.node),
        BlockState::Reclaiming => format!("- (being taken from {})", record.node),
    };
    if words.json {
        let mut described = described(network, &realm);
        let blocks = news.blocks.iter().map(|(block, owner)| {
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
        described["vxlanPort"] = json!(network.vxlan_port.unwrap_or(4789));
        described["egress"] = json!(
            network
                .egress
                .as_ref()
                .map_or(EgressMode::GwBridge, |egress| egress.mode)
        );
        described["blocks"] = blocks.collect();
        let endpoints = leases
            .iter()
            .map(|(address, lease)| endpoint::described(*address, &lease.record));
        described["endpoints"] = endpoints.collect();
        return Ok(json(&described));
    }
    let [_, vni, subnets, scope] = summary(network);
    let state = match state(network) {
        "" => String::new(),
        state => format!(", {state}"),
    };
    let gateways: Vec<_> = gateways.iter().map(ToString::to_string).collect();
    let narrow = ways.iter().flat_map(|ways| &ways.narrow).map(|way| {
        let (vtep, packet) = (way.vtep, way.packet);
        format!("the way to {vtep} carries packets of {packet} bytes: containers that are made on this host get less MTU\n")
    });
    let head = format!(
        "network {called}: vni {vni}, subnets {subnets}, gateway {}, scope {scope}{state}\n{}\n",
        gateways.join(","),
        narrow.collect::<String>()
    );
    let blocks: Vec<_> = news
        .blocks
        .iter()
        .map(|(block, present)| {
            [
                format!("{}/{}", block.first(), block.prefix()),
                owner(&present.record),
                used(block).to_string(),
            ]
        })
        .collect();
    let exclusions = exclusions(&news);
    let endpoints: Vec<_> = leases
        .iter()
        .map(|(address, lease)| endpoint::row(*address, &lease.record))
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

/// The single addresses that are not their block's owner's, as a table; nothing if there are none.
fn exclusions(news: &News) -> String {
    let rows: Vec<_> = (news.blocks.values())
        .flat_map(|block| &block.record.exclusions)
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
pub async fn remove(session: &Session, words: &Words) -> Result<String> {
    let called = words.name()?;
    let (realm, name) = realms::of(session, called)?;
    realm.cluster.remove_network(name).await?;
    Ok(format!("{called}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_of(options: &[(&str, &str)]) -> Result<NetworkSpec> {
        let options = options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        spec(&Words {
            plain: ["network", "create", "n"].map(String::from).to_vec(),
            options,
            ..Words::default()
        })
    }

    #[test]
    fn a_network_needs_a_subnet_and_takes_the_rest_by_option() {
        assert!(spec_of(&[]).unwrap_err().to_string().contains("--subnet"));
        let spec = spec_of(&[
            ("subnet", "10.0.0.0/24"),
            ("range", "10.0.0.16-10.0.0.31"),
            ("egress", "none"),
        ])
        .unwrap();
        assert_eq!(spec.ranges[0][0].start().to_string(), "10.0.0.16");
        assert_eq!(spec.egress.unwrap().mode, EgressMode::None);
        let gateway = [("subnet", "10.0.0.0/24"), ("egress", "gateway")];
        let spec = spec_of(&gateway).unwrap();
        assert_eq!(spec.egress.unwrap().mode, EgressMode::Gateway);
    }

    #[test]
    fn a_state_is_shown_only_where_a_network_is_not_as_it_should_be() {
        let network = |state: &str| -> Network {
            serde_json::from_value(json!({"name": "n", "vni": 4097, "ranges": [], "state": state}))
                .unwrap()
        };
        let [ready, removing] = ["ready", "removing"].map(|state| ("n".to_owned(), network(state)));
        assert_eq!(
            shown(std::slice::from_ref(&ready)),
            "NAME  VNI   SUBNETS  SCOPE\nn     4097           global\n"
        );
        assert_eq!(
            shown(&[ready, removing]),
            "NAME  VNI   SUBNETS  SCOPE   STATE\nn     4097           global\n\
             n     4097           global  removing\n"
        );
    }

    #[test]
    fn bad_options_are_named_with_their_value() {
        for (options, value) in [
            (vec![("subnet", "10.0.0.0/33")], "10.0.0.0/33"),
            (vec![("subnet", "10.0.0.5/24")], "10.0.0.5/24"),
            (vec![("subnet", "10.0.0.0/24"), ("vni", "0")], "vni: 0"),
            (
                vec![("subnet", "10.0.0.0/24"), ("egress", "bridge")],
                "--egress bridge",
            ),
            (
                vec![("subnet", "10.0.0.0/24"), ("range", "10.0.0.5")],
                "--range 10.0.0.5",
            ),
        ] {
            let message = format!("{:#}", spec_of(&options).unwrap_err());
            assert!(message.contains(value), "{message}");
        }
    }
}
