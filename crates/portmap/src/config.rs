//! The configuration. It has the keys of the reference plugin, some of which need no work here.

use cni::{Call, Command};
use nft::ports::{Condition, conditions};
use plugin::Error;
use serde::Deserialize;
use serde_json::Value;

use crate::mapping::{self, Mapping};

/// The key under which runtimes pass the ports.
const KEY: &str = "runtimeConfig.portMappings";

/// The keys that this plugin reads, or that the specification defines.
const KEYS: &[&str] = &[
    "args",
    "backend",
    "capabilities",
    "cniVersion",
    "conditionsV4",
    "conditionsV6",
    "dns",
    "externalSetMarkChain",
    "ipam",
    "listeners",
    "markMasqBit",
    "masqAll",
    "name",
    "prevResult",
    "runtimeConfig",
    "snat",
    "type",
];

/// A verb's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// The ports asked for.
    pub mappings: Vec<Mapping>,
    /// `snat`: whether the container itself, its neighbours and 127.0.0.1 reach it by the host's ports.
    pub snat: bool,
    /// `masqAll`: whether all packets that come by the host's ports get the host's address.
    pub masq_all: bool,
    /// `conditionsV4` and `conditionsV6` as they were given.
    pub words: [Vec<String>; 2],
    /// `listeners`: what to do if a program of this host listens on a port.
    pub listeners: Listeners,
}

/// What to do if a program of this host listens on a requested port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listeners {
    /// Refuse the ADD.
    Refuse,
    /// Warn on standard error and publish the port: the program then receives no packets to it.
    Warn,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    backend: String,
    snat: bool,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    listeners: Option<String>,
    conditions_v4: Option<Vec<String>>,
    conditions_v6: Option<Vec<String>>,
    runtime_config: Runtime,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            backend: String::new(),
            snat: true,
            masq_all: false,
            mark_masq_bit: None,
            external_set_mark_chain: None,
            listeners: None,
            conditions_v4: None,
            conditions_v6: None,
            runtime_config: Runtime::default(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Runtime {
    port_mappings: Vec<Value>,
}

impl Conf {
    /// Reads it. Code 7 on errors.
    pub fn read(call: &Call) -> Result<Self, Error> {
        // Attachments that exist are not judged by rules for a new ADD.
        if matches!(call.command, Command::Add | Command::Status) {
            cni::refuse_slips(&call.conf.raw, "", KEYS)?;
        }
        let raw: Raw = call.conf.decode()?;
        if !["", "nftables", "iptables"].contains(&raw.backend.as_str()) {
            return Err(Error::config(format!(
                "backend: {:?} is not nftables or iptables",
                raw.backend
            )));
        }
        if raw.mark_masq_bit.is_some_and(|bit| !(0..32).contains(&bit)) {
            let bit = raw.mark_masq_bit.unwrap_or_default();
            return Err(Error::config(format!(
                "markMasqBit: {bit} is no bit of a mark, which are 0 to 31"
            )));
        }
        let both = raw.mark_masq_bit.is_some() && raw.external_set_mark_chain.is_some();
        if let Some(chain) = raw.external_set_mark_chain.filter(|_| both) {
            return Err(Error::config(format!(
                "externalSetMarkChain: {chain:?} excludes markMasqBit"
            )));
        }
        let listeners = match raw.listeners.as_deref() {
            None | Some("" | "refuse") => Listeners::Refuse,
            Some("warn") => Listeners::Warn,
            Some(other) => {
                let why = format!("listeners: {other:?} is not one of refuse, warn");
                return Err(Error::config(why));
            }
        };
        let conf = Self {
            mappings: mapping::read(&raw.runtime_config.port_mappings, KEY)?,
            snat: raw.snat,
            masq_all: raw.masq_all,
            words: [
                raw.conditions_v4.unwrap_or_default(),
                raw.conditions_v6.unwrap_or_default(),
            ],
            listeners,
        };
        for v6 in [false, true] {
            conditions_of(&conf.words, v6)?;
        }
        Ok(conf)
    }
}

/// Whether a call may concern ports: its configuration names some, or cannot be read.
pub fn may_name_ports(call: &Call) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Asked {
        runtime_config: Option<Ports>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ports {
        port_mappings: Option<Vec<Value>>,
    }
    let asked: Result<Asked, _> = call.conf.decode();
    asked.map_or(true, |asked| {
        let ports = asked.runtime_config.and_then(|it| it.port_mappings);
        ports.is_some_and(|ports| !ports.is_empty())
    })
}

/// The conditions for one version of IP.
pub fn conditions_of(words: &[Vec<String>; 2], v6: bool) -> Result<Vec<Condition>, Error> {
    let key = ["conditionsV4", "conditionsV6"][usize::from(v6)];
    let words = &words[usize::from(v6)];
    conditions(words, v6).map_err(|why| Error::config(format!("{key}: {why}: {}", words.join(" "))))
}
