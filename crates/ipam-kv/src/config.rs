//! The configuration: `host-local`'s schema and our own keys, checked as a whole before anything is done.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use cluster::{Conflist, NetworkSpec, Resolved};
use cni::{Call, Command, Dns, Route, Version};
use ipam::{Mac, Range, RangeSet};
use ipnetwork::IpNetwork;
use plugin::Error;
use serde::Deserialize;
use serde_json::Value;

/// What the stdin of an IPAM plugin holds for us beside [`Conflist`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    ipam: Option<WireIpam>,
    #[serde(default)]
    runtime_config: Option<WireIps>,
    #[serde(default)]
    args: Option<WireArgs>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireIpam {
    #[serde(default)]
    routes: Option<Vec<Route>>,
    #[serde(default)]
    resolv_conf: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireIps {
    #[serde(default)]
    ips: Option<Vec<String>>,
    #[serde(default)]
    ip_ranges: Option<Value>,
}

#[derive(Default, Deserialize)]
struct WireArgs {
    #[serde(default)]
    cni: Option<WireIps>,
}

/// A checked configuration.
pub struct Conf {
    /// Store and node.
    pub settings: Resolved,
    /// The network as this configuration describes it.
    pub spec: NetworkSpec,
    /// Addresses that the runtime asks for.
    pub requested: Vec<IpAddr>,
    /// The MAC that the runtime asks for.
    pub mac: Option<Mac>,
    /// Ranges to which the runtime narrows the choice.
    pub narrow: Vec<RangeSet>,
    /// Routes for the result.
    pub routes: Vec<Route>,
    /// Resolver settings for the result.
    pub dns: Dns,
}

impl Conf {
    /// Reads and checks the configuration of a call. Codes 4 and 7, naming key and value.
    pub fn read(call: &Call) -> Result<Self, Error> {
        // What exists is not judged by what only its next ADD may say.
        if matches!(call.command, Command::Add | Command::Status) {
            refuse_slips(call)?;
        }
        let mut conflist = Self::conflist(call)?;
        let mut wire: Wire = call.conf.decode()?;
        let ipam = wire
            .ipam
            .ok_or_else(|| Error::config("ipam: missing: an IPAM plugin needs its section"))?;
        let asked = wire
            .runtime_config
            .as_mut()
            .and_then(|runtime| runtime.ip_ranges.take());
        let narrow = with_ranges(&mut conflist, asked)?;
        let ours = conflist.segment.is_some();
        let spec = conflist.spec(call.conf.name.as_str())?;
        refuse_second_of_a_family(call, &spec)?;
        let settings = conflist.settings(&call.variables())?;
        Ok(Self {
            settings,
            spec,
            mac: match call.mac() {
                Ok(mac) => mac,
                Err(error) if ours => return Err(error.into()),
                // Under an interface plugin of others it is that one's business.
                Err(_) => None,
            },
            requested: requested(call, wire.runtime_config, wire.args)?,
            narrow,
            routes: ipam.routes.unwrap_or_default(),
            dns: ipam
                .resolv_conf
                // An empty text is none, as templates leave it.
                .filter(|path| !path.as_os_str().is_empty())
                .map(|path| resolver(&path))
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// The keys that our plugins share. Under an interface plugin of others its own keys are not looked at, nor is a
    /// `node` that is no object, as it may have one itself. A `store` is always ours: to overlook one that is written
    /// wrongly would leave this host alone with a store of its own.
    pub fn conflist(call: &Call) -> Result<Conflist, Error> {
        if call.conf.plugin_type == "overlay" {
            return Ok(Conflist {
                segment: Some(call.conf.decode()?),
                ..call.conf.decode()?
            });
        }
        let mut ours = call.conf.raw.clone();
        if let Some(keys) = ours.as_object_mut() {
            keys.retain(|key, value| !key.eq_ignore_ascii_case("node") || value.is_object());
        }
        Ok(cni::decode(&ours)?)
    }
}

/// Refuses keys that are a slip away from one of ours, in what is ours alone to read. Code 7.
fn refuse_slips(call: &Call) -> Result<(), Error> {
    const ROUTE: &[&str] = &["dst", "gw", "mtu", "advmss", "priority", "table", "scope"];
    let conf = &call.conf.raw;
    cni::refuse_slips(conf, "ipam", &cluster::keys::of_ipam(""))?;
    cni::refuse_slips(conf, "ipam.ranges", &cluster::keys::of_ipam("ranges"))?;
    cni::refuse_slips(conf, "ipam.routes", ROUTE)?;
    // A `node` may be of the interface plugin that this one is run by; `overlay` has looked at its own.
    Ok(cni::refuse_slips(
        conf,
        "store",
        &cluster::keys::of_overlay("store"),
    )?)
}

/// What `runtimeConfig.ipRanges` mean: ranges inside the configured pools narrow the choice of this one attachment; others
/// come before the configured ones, as in the reference, and are pools like them.
///
/// Sets of ranges as the convention has it, or ranges alone, as go-cni's type would send them.
fn with_ranges(conflist: &mut Conflist, asked: Option<Value>) -> Result<Vec<RangeSet>, Error> {
    // The decoder knows the place below the key: `[0]: ...`.
    let below =
        |error: cni::Error| Error::new(error.code, format!("runtimeConfig.ipRanges{error}"));
    let sets: Vec<RangeSet> = match asked {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(sets)) if sets.iter().all(Value::is_object) => {
            let ranges: Vec<Range> = cni::decode(&Value::Array(sets)).map_err(below)?;
            ranges.into_iter().map(|range| vec![range]).collect()
        }
        Some(sets) => cni::decode(&sets).map_err(below)?,
    };
    if sets.is_empty() {
        return Ok(Vec::new());
    }
    let key = |error: &dyn std::fmt::Display| {
        Error::config(format!("runtimeConfig.ipRanges: {error}").replace("ipam.ranges", "entry "))
    };
    let alone = ipam::Schema {
        ranges: Some(sets.clone()),
        ..ipam::Schema::default()
    };
    let checked = alone.bounds().map_err(|error| key(&error))?;
    let pools = conflist.ipam.get_or_insert_default();
    let own = pools
        .ranges()
        .map_err(|error| Error::config(error.to_string()))?;
    let inside = |range: &Range| own.iter().flatten().any(|whole| range.within(whole));
    if !own.is_empty() && checked.iter().flatten().all(inside) {
        for set in &checked {
            refuse_empty(set, &own)?;
        }
        return Ok(checked);
    }
    let mut ranges = sets;
    // The old single form comes before `ranges`; the runtime's come before both.
    let old = own
        .len()
        .saturating_sub(pools.ranges.as_ref().map_or(0, Vec::len));
    ranges.extend(own.into_iter().take(old));
    ranges.extend(pools.ranges.take().unwrap_or_default());
    pools.subnet = None;
    pools.ranges = Some(ranges);
    Ok(Vec::new())
}

/// Refuses ranges that leave nothing of the pools that they narrow.
fn refuse_empty(set: &RangeSet, pools: &[RangeSet]) -> Result<(), Error> {
    let leaves_nothing = |range: &Range| {
        let whole = pools.iter().flatten().find(|whole| range.within(whole));
        whole.is_none_or(|whole| {
            let narrowed = Range {
                gateway: whole.gateway,
                exclude: whole.exclude.clone(),
                ..range.clone()
            };
            narrowed.is_empty()
        })
    };
    if let Some(first) = set.first().filter(|_| set.iter().all(leaves_nothing)) {
        let (start, end) = (first.start(), first.end());
        let why = "no address is left beside the gateway and what is excluded";
        let msg = format!("runtimeConfig.ipRanges: {start} to {end}: {why}");
        return Err(Error::config(msg));
    }
    Ok(())
}

/// Results of spec versions before 0.3.0 hold one address of each family.
fn refuse_second_of_a_family(call: &Call, spec: &NetworkSpec) -> Result<(), Error> {
    let count = |v4: bool| {
        let of_family = |set: &&RangeSet| set.first().is_some_and(|r| r.subnet.is_ipv4() == v4);
        spec.ranges.iter().filter(of_family).count()
    };
    let version = call.conf.version;
    if version < Version::V0_3_0 && (count(true) > 1 || count(false) > 1) {
        let why = format!("cniVersion: {version}: has room for one address of each family only");
        return Err(Error::config(why));
    }
    Ok(())
}

/// All addresses asked for, each once: capability `ips`, `args.cni.ips` and `CNI_ARGS` `IP` together, as in the reference.
/// Runtimes mix them: nerdctl sends `--ip` by the last and `--ip6` by the first.
fn requested(
    call: &Call,
    runtime: Option<WireIps>,
    args: Option<WireArgs>,
) -> Result<Vec<IpAddr>, Error> {
    let from = |key: &str, ips: Option<Vec<String>>| {
        let parse = |text: &String| {
            let network: Result<IpNetwork, _> = text.parse();
            let bad = |_| Error::config(format!("{key}: {text:?} is not an IP address"));
            network.map(|network| network.ip()).map_err(bad)
        };
        let ips = ips.unwrap_or_default();
        ips.iter().map(parse).collect::<Result<Vec<_>, Error>>()
    };
    let mut asked = from("runtimeConfig.ips", runtime.and_then(|r| r.ips))?;
    asked.extend(from(
        "args.cni.ips",
        args.and_then(|a| a.cni).and_then(|c| c.ips),
    )?);
    asked.extend(call.args.ips()?);
    // One spelling: `::ffff:10.0.0.5` is 10.0.0.5.
    let asked: BTreeSet<_> = asked.iter().map(IpAddr::to_canonical).collect();
    Ok(asked.into_iter().collect())
}

/// `nameserver`, `domain`, `search` and `options` of a resolver file. Lines of `search` add up, as in the reference.
fn resolver(path: &std::path::Path) -> Result<Dns, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::config(format!("ipam.resolvConf: {}: {error}", path.display())))?;
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().or(dns.domain),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    Ok(dns)
}
