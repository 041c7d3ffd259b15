//! The configuration: `host-local`'s schema and our own keys, checked as a whole before anything is done.

use std::{net::IpAddr, path::PathBuf};

use cluster::{Conflist, NetworkSpec, Resolved};
use cni::{Call, Dns, Error, Route};
use journal::Attachment;
use serde::Deserialize;

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
struct WireIps {
    #[serde(default)]
    ips: Option<Vec<String>>,
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
    /// Routes for the result.
    pub routes: Vec<Route>,
    /// Resolver settings for the result.
    pub dns: Dns,
}

impl Conf {
    /// Reads and checks the configuration of a call. Codes 4 and 7, naming key and value.
    pub fn read(call: &Call) -> Result<Self, Error> {
        let conflist: Conflist = call.conf.decode()?;
        let wire: Wire = call.conf.decode()?;
        let ipam = wire
            .ipam
            .ok_or_else(|| Error::config("ipam: missing: an IPAM plugin needs its section"))?;
        let spec = conflist.spec(call.conf.name.as_str()).map_err(failed)?;
        let settings = conflist.settings(&call.variables()).map_err(failed)?;
        Ok(Self {
            settings,
            spec,
            requested: requested(call, wire.runtime_config, wire.args)?,
            routes: ipam.routes.unwrap_or_default(),
            dns: ipam
                .resolv_conf
                .map(|path| resolver(&path))
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// The attachment that a call is about.
    pub fn attachment(call: &Call) -> Result<Attachment, Error> {
        let (container, ifname) = call.attachment()?;
        let network = call.conf.name.to_string();
        Ok(Attachment {
            network,
            container: container.to_string(),
            ifname: ifname.to_string(),
        })
    }
}

/// All addresses asked for: capability `ips`, `args.cni.ips`, `CNI_ARGS` `IP`, each once. The later twins count only
/// where the earlier are absent (CNI conventions).
fn requested(
    call: &Call,
    runtime: Option<WireIps>,
    args: Option<WireArgs>,
) -> Result<Vec<IpAddr>, Error> {
    let from = |key: &str, ips: Option<Vec<String>>| {
        let parse = |text: &String| {
            let address = text
                .split_once('/')
                .map_or(text.as_str(), |(address, _)| address);
            address
                .parse()
                .map_err(|_| Error::config(format!("{key}: {text:?} is not an IP address")))
        };
        ips.unwrap_or_default()
            .iter()
            .map(parse)
            .collect::<Result<Vec<IpAddr>, Error>>()
    };
    let mut asked = from("runtimeConfig.ips", runtime.and_then(|r| r.ips))?;
    if asked.is_empty() {
        asked = from("args.cni.ips", args.and_then(|a| a.cni).and_then(|c| c.ips))?;
    }
    if asked.is_empty() {
        asked = call.args.ips()?;
    }
    asked.dedup();
    Ok(asked)
}

/// `nameserver`, `domain`, `search` and `options` of a resolver file.
fn resolver(path: &std::path::Path) -> Result<Dns, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::config(format!("ipam.resolvConf: {}: {error}", path.display())))?;
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next(),
            Some("search") => dns.search = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    Ok(dns)
}

/// An error of the shared records as a CNI error.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
pub fn failed(error: cluster::Error) -> Error {
    Error::new(error.code(), error.to_string())
}
