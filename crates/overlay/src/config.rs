//! The configuration, which is checked as a whole before anything is done.

use std::num::NonZeroU32;

use cluster::{Conflist, EgressMode, Network, NetworkSpec, Resolved};
use cni::{Call, Command, Dns};
use ipam::Mac;
use plugin::Error;
use serde::Deserialize;

use crate::{
    endpoint::{bandwidth::Bandwidth, source_guard::GROUP_RATE},
    host_link::HostLinkSpec,
};

/// A checked configuration.
pub struct Conf {
    /// Store and node.
    pub settings: Resolved,
    /// The network as this configuration describes it.
    pub spec: NetworkSpec,
    /// The MAC that the runtime requests.
    pub mac: Option<Mac>,
    /// `dns`: in the result it replaces that of the IPAM plugin.
    pub dns: Dns,
    /// `ipam.type`: the plugin that hands out addresses.
    pub ipam: String,
    /// `hostAccess`: whether the host has an address of its own on the segment.
    pub host_access: bool,
    /// `spoofchk`: whether a new container may send as itself only.
    pub spoofchk: bool,
    /// `groupRate`: how many frames a second a new container may send to groups of receivers, or to all.
    pub group_rate: u32,
    /// The rates of a new container. Those of existing containers are in their records.
    pub bandwidth: Bandwidth,
}

/// IPAM plugins that give out addresses without regard to other hosts.
const LOCAL: [&str; 2] = ["host-local", "static"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOfScope {
    #[serde(default)]
    ipam_scope: Option<String>,
}

#[derive(Deserialize)]
struct WireOfNames {
    #[serde(default)]
    dns: Dns,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOfHost {
    #[serde(default)]
    host_access: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOfPort {
    #[serde(default)]
    spoofchk: Option<bool>,
    #[serde(default)]
    group_rate: Option<NonZeroU32>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    ipam: Option<WireIpam>,
}

#[derive(Deserialize)]
struct WireIpam {
    #[serde(rename = "type", default)]
    plugin: Option<String>,
}

impl Conf {
    /// Reads and checks the configuration of a call. Code 7, naming key and value.
    pub fn read(call: &Call) -> Result<Self, Error> {
        let ipam = ipam(call)?;
        // Rules of ADD do not apply to attachments that exist.
        let bandwidth = if matches!(call.command, Command::Add | Command::Status) {
            refuse_slips(call)?;
            refuse_local(call, &ipam)?;
            Bandwidth::read(call)?
        } else {
            Bandwidth::default()
        };
        let host: WireOfHost = call.conf.decode()?;
        let WireOfPort {
            spoofchk,
            group_rate,
        } = call.conf.decode()?;
        let WireOfNames { dns } = call.conf.decode()?;
        // This plugin may be installed under another name: nerdctl has some options only for well-known types.
        let conflist = Conflist {
            segment: Some(call.conf.decode()?),
            ..call.conf.decode()?
        };
        let spec = conflist.spec(call.conf.name.as_str())?;
        let settings = conflist.settings(&call.variables())?;
        Ok(Self {
            settings,
            spec,
            mac: call.mac()?,
            dns,
            ipam,
            host_access: host.host_access.unwrap_or_default(),
            spoofchk: spoofchk.unwrap_or(true),
            group_rate: group_rate.map_or(GROUP_RATE, NonZeroU32::get),
            bandwidth,
        })
    }

    /// What an attachment to the network needs of the host's own link.
    pub(crate) fn host_link(&self, network: &Network) -> HostLinkSpec {
        let egress = self.spec.egress.as_ref().or(network.egress.as_ref());
        HostLinkSpec {
            gateway: egress.is_some_and(|egress| egress.mode == EgressMode::Gateway),
            access: self.host_access,
        }
    }
}

/// Refuses keys that look like misspelled ones of ours. Code 7. The IPAM plugin judges those of `ipam`.
fn refuse_slips(call: &Call) -> Result<(), Error> {
    let mut paths = ["", "egress", "store", "node", "dns"].into_iter();
    paths.try_for_each(|path| {
        Ok(cni::refuse_slips(
            &call.conf.raw,
            path,
            &cluster::keys::of_overlay(path),
        )?)
    })
}

/// Refuses an IPAM plugin that gives out the same addresses on each host, unless the configuration says that its addresses
/// belong to this host alone. Code 7.
fn refuse_local(call: &Call, ipam: &str) -> Result<(), Error> {
    let WireOfScope { ipam_scope: scope } = call.conf.decode()?;
    match scope.as_deref().unwrap_or_default() {
        "" | "cluster" if LOCAL.contains(&ipam) => {
            let why = "knows nothing of other hosts, which would give the same addresses to others on this network; want ipam-kv, or \
                       \"ipamScope\": \"host\" where each host has ranges of its own";
            Err(Error::config(format!("ipam.type: {ipam}: {why}")))
        }
        "" | "cluster" | "host" => Ok(()),
        other => Err(Error::config(format!(
            "ipamScope: {other:?} is neither \"cluster\" nor \"host\""
        ))),
    }
}

/// Store and node: a removal uses them if they can be read. Code 7.
pub fn settings(call: &Call) -> Result<Resolved, Error> {
    let conflist: Conflist = call.conf.decode()?;
    conflist.settings(&call.variables()).map_err(Error::from)
}

/// `hostAccess`, for a removal: false if it cannot be read.
pub fn host_access(call: &Call) -> bool {
    let host: Result<WireOfHost, _> = call.conf.decode();
    host.is_ok_and(|host| host.host_access == Some(true))
}

/// `ipam.type`: a removal needs nothing else of the configuration. Code 7.
pub fn ipam(call: &Call) -> Result<String, Error> {
    let wire: Wire = call.conf.decode()?;
    let ipam = wire
        .ipam
        .ok_or_else(|| Error::config("ipam: missing: want {\"type\": \"ipam-kv\", ...}"))?;
    let ipam = ipam.plugin.filter(|plugin| !plugin.is_empty());
    ipam.ok_or_else(|| {
        Error::config("ipam.type: missing: want the name of an IPAM plugin, such as ipam-kv")
    })
}
