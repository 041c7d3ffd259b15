//! The allocator: what a host does with its part of a network, verb by verb.
//!
//! Inside its blocks a host chooses alone, under a lock of the host. The order of an ADD is: choose, note the choice, let go of
//! the lock, publish the lease by one conditional write, answer, note that it was answered. Where the store refuses, the
//! host's copy of something was old: it reads again and chooses anew. Where the store is away, the address is given out
//! all the same, since the block is the host's, and published later. So one write to the store is all that a usual ADD costs,
//! and no document of the host that it reads or writes grows with the number of containers.
//!
//! | file | what |
//! |---|---|
//! | `local_store` | what a host remembers, and the traits by which it does |
//! | `ledger` | the choice's part of that, pure |
//! | `begin` | the ledger from the store: at first, and when it proved old |
//! | `elsewhere` | a ledger of another store than the one at hand |
//! | `forgotten` | what a host's own containers need when the store has forgotten them |
//! | `add`, `choice`, `room` | an ADD; its choice; where it gets an address from when the host has none ready |
//! | `del` | a DEL and a GC |
//! | `housekeeping`, `sync` | what is done after a verb, and what an operator or a watcher has done |
//! | `refusal` | whether an ADD would get an address: what STATUS asks |

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
mod recovery;
mod sync;

use std::{net::IpAddr, time::Duration};

use ipam::{Mac, RangeSet};

pub use del::note_gone;
pub use local_store::{
    Clock, Host, LeaseOwner, LeasedAddress, Ledger, LocalLease, LocalLeases, LocalStore, Memory,
    Noted, Own, PendingChange, Stage,
};

use crate::{Cluster, Lease, Network, NetworkSpec, Node};

/// How often a choice that the store refused is made again.
const ATTEMPTS: u32 = 16;

/// One host's allocator of one network.
pub struct Allocator<'a> {
    /// The shared records.
    pub cluster: &'a Cluster<'a>,
    /// The host's documents.
    pub local_store: &'a dyn LocalStore,
    /// The host's clocks.
    pub clock: &'a dyn Clock,
    /// Who the host is.
    pub host: &'a Host,
    /// The network.
    pub network: &'a str,
    /// Longest wait for other hosts, where what is asked for is still theirs.
    pub patience: Duration,
    /// Seconds for which a freed address rests, unless nothing else is free.
    pub cool_down: u64,
}

/// What an ADD asks for.
pub struct Request<'r> {
    /// The network, as the configuration describes it.
    pub spec: &'r NetworkSpec,
    /// For whom.
    pub owner: LeaseOwner,
    /// Addresses that must be among the answer's.
    pub requested: &'r [IpAddr],
    /// The MAC that it must have; absent: the one that follows from its address.
    pub mac: Option<Mac>,
    /// Ranges to which the choice is narrowed; none: all that the network has.
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
    fn node(&self) -> Node {
        Node {
            name: self.host.node.clone(),
            // Tunnels end where the interface plugin let them end, whatever the settings name by now.
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
            ifname: owner.ifname.clone(),
            since: self.clock.unix(),
            mac,
        }
    }
}
