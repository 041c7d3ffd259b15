//! The configuration, checked as a whole before anything is done.

use cluster::{Conflist, NetworkSpec, Resolved};
use cni::{Call, Error};
use ipam::Mac;
use journal::Attachment;
use serde::Deserialize;

use crate::failed;

/// A checked configuration.
pub struct Conf {
    /// Store and node.
    pub settings: Resolved,
    /// The network as this configuration describes it.
    pub spec: NetworkSpec,
    /// The MAC that the runtime asks for.
    pub mac: Option<Mac>,
    /// `ipam.type`: the plugin that hands out addresses.
    pub ipam: String,
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
        // Whatever the name under which this plugin is installed (nerdctl gives some options only to well-known types).
        let conflist = Conflist {
            segment: Some(call.conf.decode()?),
            ..call.conf.decode()?
        };
        let spec = conflist.spec(call.conf.name.as_str()).map_err(failed)?;
        let settings = conflist.settings(&call.variables()).map_err(failed)?;
        Ok(Self {
            settings,
            spec,
            mac: call.mac()?,
            ipam,
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

/// Store and node: what a removal uses of the configuration, if it can. Code 7.
pub fn settings(call: &Call) -> Result<Resolved, Error> {
    let conflist: Conflist = call.conf.decode()?;
    conflist.settings(&call.variables()).map_err(failed)
}

/// `ipam.type`: all that a removal needs of the configuration. Code 7.
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
