//! The records: small JSON documents that an operator can read in Consul's own UI.
//!
//! Each has a `schema`. A record of a newer schema counts as unreadable ([`crate::Stored`]) and is never rewritten, so an old
//! binary cannot damage what a new one wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipam::{Block, Mac, RangeSet};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::Entry;

use crate::{Error, Macvlan, Stored};

/// The schema that this version writes, and the newest that it reads.
pub(crate) const SCHEMA: u32 = 1;
/// The UDP port that IANA assigned to VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// The first bytes of every record of this schema. Only values that begin otherwise are parsed twice.
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
    /// `/proc/sys/kernel/random/boot_id`: leases of an earlier boot are void.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// `/etc/machine-id`: distinguishes a host that rebooted from another host of the same name; absent if unknown.
    #[serde(default, rename = "machineID", skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// When the host last registered, in seconds since 1970.
    pub last_contact: u64,
    /// The version of crosshost that registered it; absent if 86dc1f2 or an earlier version registered it, which also drop the
    /// field.
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
    /// A second NIC on a host-local bridge, with NAT (Docker: `docker_gwbridge`).
    GwBridge,
    /// No way out: an internal network.
    None,
    /// Over the network itself: every host answers for the gateway addresses, and masquerades what leaves the network.
    Gateway,
}

/// Egress as a conflist or the operator sets it.
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
    /// Yes.
    #[default]
    Ready,
    /// Yes, but nodes that were registered when it was created may have no block yet.
    Creating,
    /// No: it is being removed, and no lease can be written.
    Removing,
}

/// A network as all hosts see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Distinguishes it from another network of the same name that was created after it was removed or lost.
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
    /// The networks with which hosts let this one meet, where these name it as well; absent: none. Versions up to 1.0.0 drop the
    /// field where they write the record again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaches: Option<BTreeSet<String>>,
    /// Seconds after which a silent node loses its blocks; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim_after: Option<u64>,
    /// The device of its containers, if the network is no segment of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macvlan: Option<Macvlan>,
    /// Whether each host writes a conflist for it: it was created by command.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conflist: bool,
    /// The operator's words about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether it takes attachments.
    #[serde(default)]
    pub state: NetworkState,
    /// Only if the store had lost the network: the host that is writing it again. Meanwhile its state is
    /// [`NetworkState::Removing`], in which every version leaves a network alone.
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

    /// The block with which an address of `range` is claimed: one of the pool's, or, outside the dynamic range, the address by
    /// itself.
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

    /// Whether `block` is one into which the network's pools are cut, or a static address, which is claimed by itself.
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

    /// Refuses blocks that are larger than their pool: a loop over the addresses of such a block would not end in time.
    pub(crate) fn can_be_cut(&self) -> Result<(), String> {
        let asked = self
            .block_prefix
            .map(|asked| ipam::check_asked(&self.ranges, asked));
        asked
            .transpose()
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Fails if the network takes no attachments now.
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

    /// Whether it is whole: neither being created, nor removed, nor written again.
    pub fn is_ready(&self) -> bool {
        self.state == NetworkState::Ready && self.restoring.is_none()
    }

    /// Whether an operator is removing it.
    pub fn is_being_removed(&self) -> bool {
        self.state == NetworkState::Removing && self.restoring.is_none()
    }

    /// Whether both are the same network, not only of the same name.
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

/// Says that a node keeps a ledger of a network. It must be asked before an address of its blocks goes to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRecord {
    /// The boot of the node; a reboot removes its ledger.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

/// Says that a node is a member of a network, and which old homes it has dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledgement {
    /// The boot of the node; a reboot removes its forwarding entries.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// The node no longer sends to homes that ended at this revision of the store or earlier.
    pub seen: u64,
}

/// The attachment that holds an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The node of the container.
    pub node: String,
    /// The boot of that node in which the container runs.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// The container id that the runtime passed.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The container's name, as far as its runtime told one. Versions up to 1.0.0 do not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// The interface's name in the container.
    pub ifname: String,
    /// When it was given, in seconds since 1970.
    pub since: u64,
    /// The requested MAC; absent if the MAC follows from the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

impl Lease {
    /// Whether both are of the same attachment in the same boot of the node; time, MAC and the container's name may differ.
    pub fn same_owner(&self, other: &Self) -> bool {
        Self {
            since: other.since,
            mac: other.mac,
            container_name: other.container_name.clone(),
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

/// Which networks of one name an operator removed: nobody writes these again. The record stays when the network's other records
/// are deleted, and when a network of the same name is created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovedRecord {
    /// Their ids, each with the time of its removal in seconds since 1970.
    pub(crate) ids: BTreeMap<String, u64>,
}

impl RemovedRecord {
    /// Whether the network with this id was removed.
    pub(crate) fn has_id(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    /// Whether this very network was removed.
    pub(crate) fn has(&self, network: &Network) -> bool {
        let id = network.id.as_ref();
        id.is_some_and(|id| self.ids.contains_key(id))
    }
}

impl Stored<RemovedRecord> {
    /// Whether this very network may have been removed: a record that cannot be read counts as having every id.
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

/// Why a value is not a record of this version.
pub(crate) struct Refused {
    pub(crate) why: String,
    /// Whether a newer version wrote it.
    pub(crate) is_newer: bool,
}

/// Decodes a record; fails if a newer version wrote it. Fields that this version does not know are ignored.
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
    // Not by way of [`Enveloped`], because serde buffers a flattened record before it reads it.
    serde_json::from_slice(value).map_err(damaged)
}

/// The record of an entry, for callers that need this one. Callers that read many use [`Stored`](crate::Stored), which keeps
/// those that cannot be read.
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
