//! The documents of a host about its own part of a network, and the trait by which it stores them, which the simulator implements,
//! too.
//!
//! There are two kinds of document, so that no verb's work grows with the number of containers. The [`Ledger`] has what the
//! choice of an address needs: blocks, a bit for each address in use, what was freed when. A [`LocalLease`] has what
//! one attachment holds. If both change, the ledger is written first and names the attachment ([`PendingChange`]). A verb that finds such
//! a change reads that attachment's local lease, which decides.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use async_trait::async_trait;
use ipam::{Block, Mac, Used};
use serde::{Deserialize, Serialize};

use crate::{BlockRecord, Error, Lease, Network, NetworkSnapshot, StoreRef, Versioned};

/// The container's side of an attachment; with the network it is the key of all that we make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseOwner {
    /// The container's id as the runtime gave it.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The interface's name in the container.
    pub ifname: String,
}

/// What this host may give out of one network, and what of it is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// The network as last read.
    pub network: Versioned<Network>,
    /// This host's blocks, and those of other hosts in which it has an address.
    pub blocks: BTreeMap<Block, Own>,
    /// Addresses that were given back, and when on [`Clock::uptime`]; oldest first.
    pub freed: Vec<(IpAddr, u64)>,
    /// Addresses in use without a local lease: leases of other nodes in this host's blocks.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub foreign: BTreeSet<IpAddr>,
    /// The change that was under way when this was written.
    #[serde(rename = "flux", default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
    /// Blocks, and single addresses of other hosts' blocks, that are about to be given back: this host does not use them any more,
    /// whatever the store says.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<(Block, Option<IpAddr>)>,
    /// The store's revision of the snapshot from which this was read.
    #[serde(default)]
    pub as_of: u64,
    /// Attachments whose last change the store does not know, oldest change first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<LeaseOwner>,
    /// When this node last made itself known in the store, on [`Clock::uptime`].
    #[serde(default)]
    pub contact: u64,
    /// The store from which it was read; absent if that was not noted.
    #[serde(rename = "place", default, skip_serializing_if = "Option::is_none")]
    pub store_ref: Option<StoreRef>,
    /// When this ledger was begun, on [`Clock::uptime`]: containers that a boot starts again find their blocks.
    #[serde(default)]
    pub begun: u64,
}

/// A block as this host last read it, and what of it is in use here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Own {
    /// The store's revision of its record.
    pub revision: u64,
    /// Its record.
    pub record: BlockRecord,
    /// Which of its addresses are in use.
    pub used: Used,
}

/// A local lease that was about to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingChange {
    /// The attachment.
    #[serde(rename = "holder")]
    pub owner: LeaseOwner,
    /// The addresses that came or went with it.
    pub addresses: Vec<IpAddr>,
}

/// What one attachment holds on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalLease {
    /// The lease as published or to be published.
    pub lease: Lease,
    /// How far it is.
    pub stage: Stage,
    /// Its addresses, in the order of the range sets.
    pub addresses: Vec<LeasedAddress>,
    /// Addresses that it has given back and that the store still has for it.
    #[serde(default, rename = "left", skip_serializing_if = "Vec::is_empty")]
    pub given_back: Vec<LeasedAddress>,
    /// It was given back while the host neither knew its addresses nor reached the store: all its leases in the store are to be
    /// released.
    #[serde(
        default,
        rename = "unheard",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub release_all: bool,
}

/// An address and the store's revision of its lease; none if the store may not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedAddress {
    /// The address.
    pub address: IpAddr,
    /// Revision of its lease.
    pub revision: Option<u64>,
    /// The MAC that was asked for with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

/// The life of a local lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Chosen by an ADD that has not answered: at work now, or killed.
    Chosen,
    /// Given out.
    Given,
    /// Given back.
    Gone,
}

/// What is stored at an attachment's local lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noted {
    /// Nothing: the attachment holds nothing.
    Nothing,
    /// The local lease.
    Lease(LocalLease),
    /// Something that cannot be read, and why. What the attachment holds stays its own until its DEL.
    Unreadable(String),
}

impl Noted {
    /// The local lease, if it can be read.
    pub fn readable(self) -> Option<LocalLease> {
        match self {
            Self::Lease(local_lease) => Some(local_lease),
            Self::Nothing | Self::Unreadable(_) => None,
        }
    }

    /// Whether the attachment has this address, or may have it.
    pub fn may_hold(&self, address: IpAddr) -> bool {
        match self {
            Self::Nothing => false,
            Self::Lease(local_lease) => local_lease.all().any(|held| held.address == address),
            Self::Unreadable(_) => true,
        }
    }
}

/// All local leases of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalLeases {
    /// Those that can be read, in no order.
    pub readable: Vec<LocalLease>,
    /// Why others cannot be read, each with its name.
    pub unreadable: Vec<String>,
}

impl LocalLeases {
    /// Whether no attachment holds anything.
    pub fn is_nothing(&self) -> bool {
        self.readable.is_empty() && self.unreadable.is_empty()
    }
}

/// What this host last read of a network, in case the store loses it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// The snapshot.
    #[serde(rename = "news")]
    pub snapshot: NetworkSnapshot,
    /// For each node the revision of its record, and since when it has been that, on [`Clock::uptime`].
    #[serde(default)]
    pub observed: BTreeMap<String, (u64, u64)>,
    /// Since when each request for an address of another's block has been there, on [`Clock::uptime`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
}

/// Where a host keeps its documents: on a real one below `/run/crosshost`, so that a reboot loses them with the
/// containers. Each write is whole or not at all.
#[async_trait(?Send)]
pub trait LocalStore {
    /// Keeps other verbs of this host off the network's documents until the guard is dropped.
    async fn lock(&self, network: &str) -> Result<Box<dyn Any>, Error>;
    /// Keeps other verbs from acquiring blocks or addresses on the network at the same time. Taken before [`LocalStore::lock`], if both are.
    async fn lock_claims(&self, network: &str) -> Result<Box<dyn Any>, Error>;
    /// Keeps verbs of an attachment from beginning until the guard is dropped; `None` if one is at work. Does not wait.
    fn lock_idle(&self, network: &str, owner: &LeaseOwner) -> Result<Option<Box<dyn Any>>, Error>;

    /// The network's ledger, `None` if there is none or it cannot be read: the store has what it said.
    fn ledger(&self, network: &str) -> Result<Option<Ledger>, Error>;
    /// Writes the ledger; the caller holds the lock.
    fn save_ledger(&self, network: &str, ledger: &Ledger) -> Result<(), Error>;
    /// Removes it; one that is not there is fine. The caller holds the lock.
    fn remove_ledger(&self, network: &str) -> Result<(), Error>;

    /// What an attachment holds.
    fn lease(&self, network: &str, owner: &LeaseOwner) -> Result<Noted, Error>;
    /// Writes it; the caller holds the lock.
    fn save_lease(&self, network: &str, local_lease: &LocalLease) -> Result<(), Error>;
    /// Removes it; one that is not there is fine. The caller holds the lock.
    fn remove_lease(&self, network: &str, owner: &LeaseOwner) -> Result<(), Error>;
    /// All of a network.
    fn leases(&self, network: &str) -> Result<LocalLeases, Error>;

    /// The networks on which attachments of this host hold addresses, each with the store with which they were made.
    fn stores(&self) -> Result<Vec<(Versioned<Network>, StoreRef)>, Error> {
        Ok(Vec::new())
    }

    /// The identifiers of all networks of which this host has a ledger.
    fn vnis(&self) -> Result<BTreeSet<u32>, Error>;

    /// What was last read of the network; nothing if there is none or it cannot be read.
    fn memory(&self, network: &str) -> Result<Memory, Error>;
    /// Writes it; the caller holds the lock. An empty one goes.
    fn save_memory(&self, network: &str, memory: &Memory) -> Result<(), Error>;
}

/// A host's clocks.
pub trait Clock {
    /// Seconds since boot, counting the time in which the host slept (`CLOCK_BOOTTIME`): never goes back.
    fn uptime(&self) -> u64;
    /// Seconds since 1970, as the host believes.
    fn unix(&self) -> u64;
}

/// Who a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name of its node.
    pub node: String,
    /// The id of this boot.
    pub boot_id: String,
    /// The id of this installation, if known.
    pub machine_id: Option<String>,
    /// The tunnel address that its settings name, if this host has it, which tells a clone of the machine from it.
    pub vtep: Option<IpAddr>,
    /// The tunnel address that it has in this boot, whoever named it: part of the first word of its node record.
    pub tunnel: Option<IpAddr>,
    /// The store of its settings; absent if there is only one.
    pub store_ref: Option<StoreRef>,
    /// The version that runs, for its node record.
    pub version: Option<String>,
    /// The commit of that.
    pub commit: Option<String>,
}

impl LocalLease {
    /// Whose it is.
    pub fn owner(&self) -> LeaseOwner {
        self.lease.owner()
    }

    /// All its addresses that are in use: held, or given back and still in the store.
    pub fn all(&self) -> impl Iterator<Item = &LeasedAddress> {
        self.addresses.iter().chain(&self.given_back)
    }
}

impl Lease {
    /// Whose it is.
    pub fn owner(&self) -> LeaseOwner {
        LeaseOwner {
            container: self.container.clone(),
            ifname: self.ifname.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Documents outlive an exchange of the binaries, so keys keep the spelling of 86dc1f2 whatever the fields are called.
    #[test]
    fn documents_keep_the_keys_of_earlier_versions() {
        let owner = json!({ "containerID": "c", "ifname": "eth0" });
        let pending = json!({ "holder": owner, "addresses": ["10.0.0.2"] });
        let read: PendingChange = serde_json::from_value(pending.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), pending);

        let network = serde_json::to_value(Ledger::new(Versioned {
            record: serde_json::from_value(json!({ "name": "n", "ranges": [] })).unwrap(),
            revision: 1,
        }));
        let mut ledger: Value = network.unwrap();
        ledger["flux"] = pending;
        ledger["place"] = serde_json::to_value(StoreRef::default()).unwrap();
        let read: Ledger = serde_json::from_value(ledger.clone()).unwrap();
        assert!(read.pending.is_some() && read.store_ref.is_some());
        assert_eq!(serde_json::to_value(&read).unwrap(), ledger);

        let held = json!({ "address": "10.0.0.2", "revision": null });
        let mut lease: Value = serde_json::from_str(
            r#"{ "stage": "gone", "addresses": [], "unheard": true,
                 "lease": { "node": "h", "bootID": "b", "containerID": "c", "ifname": "eth0", "since": 0 } }"#,
        )
        .unwrap();
        lease["left"] = json!([held]);
        let read: LocalLease = serde_json::from_value(lease).unwrap();
        assert!(read.release_all && read.given_back.len() == 1);
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written["left"], json!([held]));
        assert_eq!(written["unheard"], json!(true));

        let memory = serde_json::to_value(Memory::default()).unwrap();
        assert!(memory.get("news").is_some(), "{memory}");
    }
}
