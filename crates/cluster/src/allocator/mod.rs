//! The allocator: what a host does with its part of a network, verb by verb.
//!
//! Inside its blocks a host chooses alone, under a lock of the host. An ADD chooses an address, notes the choice, releases the
//! lock, publishes the lease by one conditional write, answers, and notes that it has answered. If the store refuses the write,
//! the host's copy of a record was old: the ADD reads again and chooses again. If the store is away, the address is given out
//! anyway, because the block belongs to the host, and the lease is published later. So a usual ADD costs one write to the
//! store. Its
//! documents stay small: the ledger has one bit for each address of a block, and what an attachment holds has a document of its own.
//!
//! The public operations of [`Allocator`], by file:
//!
//! | file | operations |
//! |---|---|
//! | `add` | `add`: chooses addresses and publishes the lease; `told`: notes that the caller has the answer |
//! | `del` | `note_gone`: notes a DEL, without the store; `release`: tells the store; `gc`: gives back what is not listed |
//! | `housekeeping` | `housekeeping`: after a verb, tells the store what it missed, claims a spare block, gives back empty ones |
//! | `sync` | `sync`: the same for a sync, and publishes again what the store has lost |
//! | `capacity` | `refusal`: the error with which an ADD would end, for STATUS |
//! | `rebuild` | `ensure_ledger`: builds a lost ledger again from the store |
//!
//! What these use: `choice` chooses, `acquire` gets a block or a single address if no address is free, `ledger` and
//! `local_store` are the host's documents, `refresh` brings the ledger up to date and answers requests of other hosts,
//! and `foreign_store` refuses a ledger of another store. After the store has lost data, `crate::recovery` restores what this
//! host's containers need.

mod acquire;
mod add;
mod capacity;
mod choice;
mod del;
mod foreign_store;
mod housekeeping;
mod ledger;
mod local_store;
mod rebuild;
mod refresh;
mod sync;

use std::{net::IpAddr, time::Duration};

use ipam::{Mac, RangeSet};

pub use del::note_gone;
pub use local_store::{
    Clock, Host, LeaseOwner, LeasedAddress, Ledger, LocalLease, LocalLeases, LocalStore, Memory,
    Noted, Own, PendingChange, Stage,
};

use crate::{Cluster, Lease, Network, NetworkSpec, Node};

/// How often an ADD chooses again after the store refused its choice.
const ATTEMPTS: u32 = 16;

/// One host's allocator of one network.
pub struct Allocator<'a> {
    /// The shared records.
    pub cluster: &'a Cluster<'a>,
    /// The host's documents.
    pub local_store: &'a dyn LocalStore,
    /// The host's clocks.
    pub clock: &'a dyn Clock,
    /// The host's identity.
    pub host: &'a Host,
    /// The network.
    pub network: &'a str,
    /// Longest wait for other hosts to give up a requested address.
    pub patience: Duration,
    /// Seconds for which a freed address rests, unless nothing else is free.
    pub cool_down: u64,
}

/// What an ADD asks for.
pub struct Request<'r> {
    /// The network, as the configuration describes it.
    pub spec: &'r NetworkSpec,
    /// The attachment that gets the addresses.
    pub owner: LeaseOwner,
    /// The container's name, for people; absent if its runtime tells none.
    pub name: Option<String>,
    /// Addresses that the answer must contain.
    pub requested: &'r [IpAddr],
    /// The MAC that the attachment must have; absent: the MAC that follows from its address.
    pub mac: Option<Mac>,
    /// Ranges to which the choice is narrowed; empty: all ranges of the network.
    pub narrow: &'r [RangeSet],
}

/// What an ADD got: one address of each range set, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The network.
    pub network: Network,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

impl Allocator<'_> {
    pub(crate) fn node(&self) -> Node {
        Node {
            name: self.host.node.clone(),
            // The tunnel address that the interface plugin uses counts, even if the settings name another one by now.
            vtep: self.host.tunnel.or(self.host.vtep),
            boot_id: self.host.boot_id.clone(),
            machine_id: self.host.machine_id.clone(),
            last_contact: self.clock.unix(),
            version: self.host.version.clone(),
            commit: self.host.commit.clone(),
        }
    }

    fn lease(&self, owner: &LeaseOwner, mac: Option<Mac>) -> Lease {
        Lease {
            node: self.host.node.clone(),
            boot_id: self.host.boot_id.clone(),
            container: owner.container.clone(),
            container_name: None,
            ifname: owner.ifname.clone(),
            since: self.clock.unix(),
            mac,
        }
    }
}
