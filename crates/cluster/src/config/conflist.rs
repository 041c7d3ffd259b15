//! The keys of a conflist that describe a network. `overlay` and `ipam-kv` read them in the same way; `portmap` reads none of them.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use crate::{
    DataDir, Egress, EgressMode, Error, NetworkSpec, NodeSettings, Resolved, Settings,
    StoreSettings,
};

/// The size of packet that every IPv4 host must accept (RFC 791). IPv6 needs links that carry 1280 bytes (RFC 8200).
const LEAST_MTU: u32 = 576;
/// The largest IP packet.
const MOST_MTU: u32 = 65_535;
/// Shortest `reclaimAfter`, in seconds: a node must be able to write its contact several times in it.
const LEAST_RECLAIM: u64 = 10;

/// A plugin's configuration. The caller decodes it, without regard to the case of its keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflist {
    /// The shared store.
    #[serde(default)]
    pub store: StoreSettings,
    /// This host.
    #[serde(default)]
    pub node: NodeSettings,
    /// The pools.
    #[serde(default)]
    pub ipam: Option<ipam::Schema>,
    /// The keys of the VXLAN segment, if this is a configuration of the plugin `overlay`. Under another interface plugin
    /// such keys belong to that plugin, and are not decoded.
    #[serde(skip)]
    pub segment: Option<Segment>,
}

/// The keys of the plugin `overlay`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// VXLAN network identifier, 1 to 2^24 - 1.
    #[serde(default)]
    pub vni: Option<u32>,
    /// MTU of the containers' interfaces in bytes.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// UDP port of the tunnels.
    #[serde(default)]
    pub vxlan_port: Option<u16>,
    /// How containers reach the outside.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// The networks that it may meet.
    #[serde(default)]
    pub reaches: Option<BTreeSet<String>>,
}

impl Conflist {
    /// The network that the configuration describes, checked; errors name key and value.
    pub fn spec(&self, name: &str) -> Result<NetworkSpec, Error> {
        let ranges = self.ipam.as_ref().map(ipam::Schema::ranges).transpose();
        let ranges = ranges
            .map_err(|error| bad(error.to_string()))?
            .unwrap_or_default();
        let reclaim_after = self.ipam.as_ref().and_then(|ipam| ipam.reclaim_after);
        if let Some(seconds) = reclaim_after.filter(|seconds| *seconds < LEAST_RECLAIM) {
            let why = format!("ipam.reclaimAfter: {seconds}: want {LEAST_RECLAIM} seconds or more");
            return Err(bad(why));
        }
        let spec = NetworkSpec {
            name: name.to_owned(),
            id: Some(unique()),
            reclaim_after,
            segment: self.segment.is_some(),
            ranges,
            block_prefix: self.ipam.as_ref().and_then(|ipam| ipam.block_prefix),
            ..NetworkSpec::default()
        };
        let Some(segment) = self.segment.clone() else {
            return Ok(spec);
        };
        let Segment {
            vni,
            mtu,
            vxlan_port,
            egress,
            reaches,
        } = segment;
        NetworkSpec {
            vni,
            mtu,
            vxlan_port,
            egress,
            reaches,
            ..spec
        }
        .check()
    }

    /// Store and node, with file and environment folded in.
    pub fn settings(&self, env: &HashMap<String, String>) -> Result<Resolved, Error> {
        let settings = Settings {
            store: self.store.clone(),
            node: self.node.clone(),
            ..Settings::default()
        };
        let data_dir = self.data_dir();
        let named = data_dir.directory().unwrap_or_default();
        let within = settings.resolve(env)?.within(&data_dir);
        within.map_err(|error| bad(format!("ipam.dataDir: {named}: {error}")))
    }

    /// The data directory, which is known without settings.
    pub fn data_dir(&self) -> DataDir {
        let ipam = self.ipam.as_ref();
        let directory = ipam.and_then(|ipam| ipam.data_dir.as_deref());
        DataDir::new(directory.unwrap_or_default())
    }
}

impl NetworkSpec {
    /// The spec, if its numbers are in range; errors name key and value.
    pub fn check(self) -> Result<Self, Error> {
        match &self {
            Self { vni: Some(vni), .. } if *vni == 0 || *vni >= 1 << 24 => {
                Err(bad(format!("vni: {vni}: want 1 to {}", (1 << 24) - 1)))
            }
            Self { mtu: Some(mtu), .. } if !(LEAST_MTU..=MOST_MTU).contains(mtu) => {
                Err(bad(format!("mtu: {mtu}: want {LEAST_MTU} to {MOST_MTU}")))
            }
            Self {
                vxlan_port: Some(0),
                ..
            } => Err(bad("vxlanPort: 0: want 1 to 65535".to_owned())),
            Self {
                egress:
                    Some(Egress {
                        subnet: Some(subnet),
                        ..
                    }),
                ..
            } if !ipam::is_network(*subnet)
                || !subnet.is_ipv4()
                || ipam::host_bits(*subnet) < 2 =>
            {
                Err(bad(format!(
                    "egress.subnet: {subnet}: want an IPv4 network without host bits, /30 or larger"
                )))
            }
            Self {
                egress:
                    Some(Egress {
                        mode: EgressMode::Gateway,
                        subnet: Some(subnet),
                    }),
                ..
            } => Err(bad(format!(
                "egress.subnet: {subnet}: there is no egress bridge with mode gateway"
            ))),
            Self {
                reaches: Some(reaches),
                egress,
                ..
            } if !reaches.is_empty() => match (refused(&self.name, reaches), egress) {
                (Some((name, why)), _) => Err(bad(format!("reaches: {name:?}: {why}"))),
                (
                    None,
                    Some(Egress {
                        mode: EgressMode::Gateway,
                        ..
                    }),
                ) => Ok(self),
                _ => Err(bad(
                    "reaches: needs egress gateway: by the egress bridge containers of all networks look alike"
                        .to_owned(),
                )),
            },
            _ => Ok(self),
        }
    }
}

/// The first of these that the network `own` cannot meet, and why.
fn refused<'n>(own: &str, reaches: &'n BTreeSet<String>) -> Option<(&'n str, &'static str)> {
    let mut names = reaches.iter().map(String::as_str);
    names.find_map(|name| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let begins = name.starts_with(|first: char| first.is_ascii_alphanumeric());
        if name == own {
            Some((name, "is the network itself"))
        } else if !begins || !name.bytes().all(plain) {
            Some((name, "is no name of a network"))
        } else {
            None
        }
    })
}

/// A UUID from the kernel. A clock or a boot id would not do, because networks outlive both.
pub fn unique() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| String::new(), |word| word.trim().to_owned())
}

fn bad(text: String) -> Error {
    match text.split_once(": ") {
        Some((key, why)) => Error::Setting {
            key: key.to_owned(),
            why: why.to_owned(),
        },
        None => Error::Setting {
            key: text,
            why: String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Result<NetworkSpec, String> {
        let conflist = Conflist {
            segment: serde_json::from_str(json).unwrap(),
            ..serde_json::from_str(json).unwrap()
        };
        conflist.spec("n").map_err(|error| error.to_string())
    }

    #[test]
    fn a_foreign_plugins_keys_are_not_ours() {
        let foreign: Conflist =
            serde_json::from_str(r#"{"mtu": "large", "vni": 0, "egress": true}"#).unwrap();
        let spec = foreign.spec("n").unwrap();
        assert_eq!((spec.mtu, spec.segment), (None, false));
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_key_and_value() {
        for (json, key, value) in [
            (r#"{"vni": 0}"#, "vni", "0"),
            (r#"{"vni": 16777216}"#, "vni", "16777216"),
            (r#"{"mtu": 20}"#, "mtu", "20"),
            (r#"{"vxlanPort": 0}"#, "vxlanPort", "0"),
            (
                r#"{"egress": {"mode": "gwbridge", "subnet": "172.18.0.9/16"}}"#,
                "egress.subnet",
                "172.18.0.9/16",
            ),
            (
                r#"{"egress": {"mode": "gateway", "subnet": "172.18.0.0/16"}}"#,
                "egress.subnet",
                "172.18.0.0/16",
            ),
            (
                r#"{"egress": "gateway", "reaches": ["two", "a/b"]}"#,
                "reaches",
                "\"a/b\"",
            ),
            (
                r#"{"egress": "gateway", "reaches": ["n"]}"#,
                "reaches",
                "\"n\"",
            ),
            (
                r#"{"ipam": {"subnet": "10.0.0.7/24"}}"#,
                "ipam.subnet",
                "10.0.0.7/24",
            ),
        ] {
            let message = spec(json).unwrap_err();
            assert!(
                message.starts_with(&format!("{key}: {value}: ")),
                "{message}"
            );
        }
    }
}
