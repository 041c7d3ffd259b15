//! The records: small JSON documents that an operator can read in Consul's own UI.
//!
//! Each carries `schema`. One of a newer schema cannot be read ([`crate::Stored`]) and is never rewritten, so an old binary
//! cannot damage what a new one wrote.

use std::{collections::BTreeMap, net::IpAddr};

use ipam::{Block, Mac, RangeSet};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::Entry;

use crate::{Error, Stored};

/// The schema that this version writes, and the newest that it reads.
pub(crate) const SCHEMA: u32 = 1;
/// The UDP port that IANA assigned to VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// How every record of this schema begins: only others need to be read twice.
const BEGINNING: &[u8] = br#"{"schema":1,"#;

/// A record and the revision of the store at which it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// The record.
    pub record: T,
    /// The store's revision of its key.
    pub revision: u64,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Its tunnel address; absent on a host that only allocates addresses (no `overlay` ran there yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep: Option<IpAddr>,
    /// `/proc/sys/kernel/random/boot_id`: what was before the last boot is void.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// `/etc/machine-id`: tells a host that was booted anew from another one of the same name; absent where unknown.
    #[serde(default, rename = "machineID", skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// When the host last registered, in seconds since 1970.
    pub last_contact: u64,
    /// The version of crosshost that registered it; absent in records of versions up to commit 86dc1f2, which also drop it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The commit of that build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// How containers of a network reach the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressMode {
    /// One more NIC on a host-local bridge, masqueraded (Docker: `docker_gwbridge`).
    GwBridge,
    /// Not at all: an internal network.
    None,
    /// Over the network itself: every host answers for its gateway addresses, and masquerades what leaves.
    Gateway,
}

/// Egress as a conflist or the operator asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "EgressForm", rename_all = "camelCase")]
pub struct Egress {
    /// The way out.
    pub mode: EgressMode,
    /// The egress bridge's subnet on each host; default: one that is free on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<IpNetwork>,
}

/// `"none"` for short, or the object.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "want \"gwbridge\", \"gateway\", \"none\" or {\"mode\": ..., \"subnet\": ...}"
)]
enum EgressForm {
    Mode(EgressMode),
    Full {
        mode: EgressMode,
        #[serde(default)]
        subnet: Option<IpNetwork>,
    },
}

impl From<EgressForm> for Egress {
    fn from(form: EgressForm) -> Self {
        match form {
            EgressForm::Mode(mode) => Self { mode, subnet: None },
            EgressForm::Full { mode, subnet } => Self { mode, subnet },
        }
    }
}

/// Whether a network takes attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkState {
    /// It does.
    #[default]
    Ready,
    /// It does, but nodes that were registered when it was created may have no block yet.
    Creating,
    /// It is being removed: no new lease can be written.
    Removing,
}

/// A network as all hosts see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Tells it from another network of the same name, made after it was removed or forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// VXLAN network identifier; absent on a network under a foreign interface plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// An attachment gets one address of each set.
    pub ranges: Vec<RangeSet>,
    /// Block length in bits; absent: by the size of each subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_prefix: Option<u8>,
    /// MTU of the containers' interfaces; absent: the underlay's less the tunnel's overhead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// UDP port of the tunnels; absent: [`VXLAN_PORT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<u16>,
    /// The way out; absent: the egress bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Seconds after which the blocks of a silent node are taken from it; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim_after: Option<u64>,
    /// Whether it takes attachments.
    #[serde(default)]
    pub state: NetworkState,
    /// Of one that the store lost: the host that is writing it again. Meanwhile its state is [`NetworkState::Removing`], the
    /// one in which every version leaves a network alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoring: Option<Box<Restoring>>,
}

/// The host that writes again what the store lost of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restoring {
    /// Its node.
    pub node: String,
    /// The boot in which it began.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

impl Network {
    /// All subnets, in the order of the ranges.
    pub fn subnets(&self) -> Vec<IpNetwork> {
        subnets(&self.ranges)
    }

    /// The block length in bits of the pool that `range` draws from.
    pub fn block_prefix(&self, range: &ipam::Range) -> u8 {
        ipam::block_prefix(&self.ranges, self.block_prefix, range)
    }

    /// The range that `address` belongs to, dynamic or not.
    pub fn range_of(&self, address: IpAddr) -> Option<&ipam::Range> {
        let mut ranges = self.ranges.iter().flatten();
        ranges.find(|range| range.may_hold(address))
    }

    /// The block that an address of `range` would be claimed with: one of the pool's, or the address by itself where
    /// it lies out of the dynamic range.
    pub fn block_of(&self, range: &ipam::Range, address: IpAddr) -> Option<Block> {
        let prefix = if range.offers(address) {
            self.block_prefix(range)
        } else if address.is_ipv4() {
            32
        } else {
            128
        };
        Block::containing(address, prefix)
    }

    /// Whether the network's pools are cut into such blocks, or it is an address that is claimed by itself.
    pub fn has_block(&self, block: Block) -> bool {
        let first = block.first();
        let is_cut = |range: &ipam::Range| {
            range.subnet.is_ipv4() == first.is_ipv4()
                && block.prefix() == self.block_prefix(range)
                && range.uses(block)
        };
        let is_single = |range: &ipam::Range| block.size() == 1 && range.is_static(first);
        let mut ranges = self.ranges.iter().flatten();
        ranges.any(|range| is_cut(range) || is_single(range))
    }

    /// Refuses pools that are cut into blocks of more addresses than a pool has: whoever walks a block would not end.
    pub(crate) fn can_be_cut(&self) -> Result<(), String> {
        let asked = self
            .block_prefix
            .map(|asked| ipam::check_asked(&self.ranges, asked));
        asked
            .transpose()
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Refuses what is wanted of a network that takes no attachments now.
    pub(crate) fn takes_attachments(&self) -> Result<(), Error> {
        match (self.state, &self.restoring) {
            (NetworkState::Ready | NetworkState::Creating, _) => Ok(()),
            (NetworkState::Removing, None) => Err(Error::Removing(self.name.clone())),
            (NetworkState::Removing, Some(restoring)) => Err(Error::Restoring {
                name: self.name.clone(),
                node: restoring.node.clone(),
            }),
        }
    }

    /// Whether an operator is removing it.
    pub fn is_being_removed(&self) -> bool {
        self.state == NetworkState::Removing && self.restoring.is_none()
    }

    /// Whether both are the same network and not only of the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.id.is_some() && self.id == other.id
    }
}

/// All subnets of the ranges, each once.
pub(crate) fn subnets(ranges: &[RangeSet]) -> Vec<IpNetwork> {
    let mut subnets: Vec<IpNetwork> = Vec::new();
    for range in ranges.iter().flatten() {
        if !subnets.contains(&range.subnet) {
            subnets.push(range.subnet);
        }
    }
    subnets
}

/// That a node keeps a ledger of a network since a boot: it must be asked before an address of its blocks is
/// another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRecord {
    /// The boot of the node; its ledger went with it.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

/// That a node forwards on a network, and by which news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledgement {
    /// The boot of the node; what it forwarded went with it.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// It sends nothing any more to a home that was dropped at this revision of the store or before.
    pub seen: u64,
}

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The node of the container.
    pub node: String,
    /// The boot of that node in which the container runs.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// The container's id as the runtime gave it.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The interface's name in the container.
    pub ifname: String,
    /// When it was given, in seconds since 1970.
    pub since: u64,
    /// The MAC that was asked for; absent where it follows from the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

impl Lease {
    /// Whether both are of the same attachment in the same life of the node, whenever they were given and with
    /// whatever MAC.
    pub fn same_owner(&self, other: &Self) -> bool {
        Self {
            since: other.since,
            mac: other.mac,
            ..self.clone()
        } == *other
    }
}

/// Which network has a VXLAN network identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VniRecord {
    pub(crate) network: String,
}

/// Which network has which subnets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubnetsRecord {
    pub(crate) networks: BTreeMap<String, Vec<IpNetwork>>,
}

/// Which networks of one name an operator removed: nobody writes these again. It stays while the network's other records go,
/// and when a network of the same name is created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovedRecord {
    /// Their ids, each with the time of its removal in seconds since 1970.
    pub(crate) ids: BTreeMap<String, u64>,
}

impl RemovedRecord {
    /// Whether this very network was removed.
    pub(crate) fn has(&self, network: &Network) -> bool {
        let id = network.id.as_ref();
        id.is_some_and(|id| self.ids.contains_key(id))
    }
}

impl Stored<RemovedRecord> {
    /// Whether this very network was removed, for all that is known: what cannot be read may have each id.
    pub(crate) fn may_have(&self, network: &Network) -> bool {
        (self.readable()).is_none_or(|removed| removed.record.has(network))
    }
}

#[derive(Serialize)]
struct Enveloped<T> {
    schema: u32,
    #[serde(flatten)]
    record: T,
}

/// The record as it is stored.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, Error> {
    let why = |error: serde_json::Error| Error::Record {
        key: String::new(),
        why: error.to_string(),
    };
    serde_json::to_vec(&Enveloped {
        schema: SCHEMA,
        record,
    })
    .map_err(why)
}

/// Why a value is no record of this version.
pub(crate) struct Refused {
    pub(crate) why: String,
    /// Whether a newer version wrote it.
    pub(crate) is_newer: bool,
}

/// The record of a value, refused when a newer version wrote it. Fields that this version does not know are overlooked.
pub(crate) fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, Refused> {
    #[derive(Deserialize)]
    struct Head {
        schema: u32,
    }
    let damaged = |error: serde_json::Error| Refused {
        why: error.to_string(),
        is_newer: false,
    };
    let head = if value.starts_with(BEGINNING) {
        Head { schema: SCHEMA }
    } else {
        serde_json::from_slice(value).map_err(damaged)?
    };
    if head.schema > SCHEMA {
        let why = format!(
            "schema {} is newer than {SCHEMA}, the newest that this version reads; upgrade",
            head.schema
        );
        let is_newer = true;
        return Err(Refused { why, is_newer });
    }
    // Not through the envelope: a flattened record is buffered before it is read.
    serde_json::from_slice(value).map_err(damaged)
}

/// The record of an entry, for whoever can do nothing without it. Where others are read beside it,
/// [`Stored`](crate::Stored) keeps what cannot be read.
pub fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<Versioned<T>, Error> {
    let record = read(&entry.value).map_err(|refused| Error::Record {
        key: entry.key.as_str().to_owned(),
        why: refused.why,
    })?;
    Ok(Versioned {
        record,
        revision: entry.revision,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockRecord;
    use store::Key;

    fn entry(value: &str) -> Entry {
        Entry {
            key: Key::new("p/v1/blocks/n/10.0.0.0_29").unwrap(),
            value: value.into(),
            revision: 7,
        }
    }

    #[test]
    fn records_round_trip_and_carry_their_schema() {
        let block = BlockRecord::of("docker01");
        let text = String::from_utf8(encode(&block).unwrap()).unwrap();
        assert_eq!(text, r#"{"schema":1,"node":"docker01"}"#);
        assert!(
            text.as_bytes().starts_with(BEGINNING),
            "else each is read twice"
        );
        assert_eq!(
            decode::<BlockRecord>(&entry(&text)).unwrap(),
            Versioned {
                record: block,
                revision: 7
            }
        );
    }

    #[test]
    fn newer_and_foreign_records_are_refused_by_key() {
        for (value, word) in [
            (r#"{"schema":2,"node":"a"}"#, "newer"),
            ("hello", "expected"),
            (r#"{"schema":1}"#, "node"),
        ] {
            let message = decode::<BlockRecord>(&entry(value))
                .unwrap_err()
                .to_string();
            assert!(
                message.contains("p/v1/blocks/n/10.0.0.0_29") && message.contains(word),
                "{message}"
            );
        }
    }

    #[test]
    fn egress_has_a_short_and_a_long_form() {
        let short: Egress = serde_json::from_str(r#""none""#).unwrap();
        let long: Egress =
            serde_json::from_str(r#"{"mode":"gwbridge","subnet":"172.18.0.0/16"}"#).unwrap();
        assert_eq!(
            (short.mode, long.mode),
            (EgressMode::None, EgressMode::GwBridge)
        );
        let gateway: Egress = serde_json::from_str(r#"{"mode":"gateway"}"#).unwrap();
        assert_eq!(gateway, serde_json::from_str(r#""gateway""#).unwrap());
        assert!(serde_json::from_str::<Egress>(r#""bridge""#).is_err());
    }
}
