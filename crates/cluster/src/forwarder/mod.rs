//! The forwarder: how a host follows a network's records, as state machines without I/O.
//!
//! An address may change its home only after every host that forwards on the network has dropped the old home and said so in
//! the store (invariant 5). So a host does three things in this order:
//!
//! 1. It *joins*: it writes at the store that it forwards, before it reads the snapshot that it forwards by ([`Reader`]).
//! 2. It *applies* the snapshot in the kernel, and keeps it on disk ([`Forwarder`]).
//! 3. It *acknowledges* the snapshot at the store. It has dropped what had lost its home there, and will not forget that.
//!
//! It *leaves* when it forwards no more ([`Leaver`]). With the store away a copy that was read as a member stays right: until
//! this host acknowledges a newer snapshot, no address changes its home. A host that is no member floods.
//!
//! Verbs are processes that run side by side and can be killed at any moment. A machine is one verb's part; what verbs know of
//! each other is in the [`Membership`] document, which each changes in single steps ([`Change`]). A machine has one [`Output`]
//! at a time, and goes on when its driver has confirmed that with an [`Input`]. So no output is made before the one that it
//! rests on is done, and a kill leaves a prefix of the sequence. An error that is no input, of the disk or the kernel, ends the
//! verb as a kill does. The driver of the product is in `crates/overlay/src/follow`, the simulator's in `tests/simulation`.

mod follow;
mod leave;
mod membership;
mod read;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use ipam::Mac;

use crate::{Acknowledgement, Error, NetworkSnapshot, Versioned};

pub use follow::Forwarder;
pub use leave::Leaver;
pub use membership::{Change, Membership};
pub use read::{Doubt, Reader};

/// How often a machine begins again because the store had lost the record that this host forwards.
const ATTEMPTS: u32 = 3;

/// What a machine wants done. Nothing else of it is under way meanwhile.
#[derive(Debug)]
pub enum Output<'a> {
    /// Read this host's documents of the network; [`Input::Documents`].
    Load,
    /// Change the membership document as one step, which no other process comes between; [`Input::Membership`] has what it
    /// is after that.
    Change(&'a Change),
    /// Write at the store that this host forwards ([`crate::Cluster::join`]); [`Input::Joined`].
    Join,
    /// Read the network's records and this host's join as of one moment; [`Input::Read`].
    Read,
    /// Make the kernel forward by the snapshot; [`Input::Applied`].
    Apply {
        /// The snapshot.
        snapshot: &'a NetworkSnapshot,
        /// How far it can be relied on.
        trust: Trust<'a>,
    },
    /// Keep this as the copy of the network's records, unless it is the copy; [`Input::Done`].
    Keep(&'a NetworkSnapshot),
    /// Acknowledge at the store that the kernel forwards by the snapshot ([`crate::Cluster::acknowledge`]), on the condition
    /// that the record there is `own`; [`Input::Acknowledged`].
    Acknowledge {
        /// The snapshot.
        snapshot: &'a NetworkSnapshot,
        /// This host's record as it knows it.
        own: &'a Versioned<Acknowledgement>,
    },
    /// Remove this host's record at the store, if it has this revision ([`crate::Cluster::leave`]); [`Input::Done`].
    Leave {
        /// The revision of the join that ends.
        revision: u64,
    },
}

/// What came of an [`Output`]. To each that needs the store [`Input::StoreAway`] is an answer, too.
#[derive(Debug)]
pub enum Input {
    /// This host's documents; absent ones are `None`.
    Documents {
        /// What the store was told.
        membership: Option<Membership>,
        /// What the kernel was last told to forward by.
        copy: Option<Box<NetworkSnapshot>>,
    },
    /// The membership document.
    Membership(Option<Membership>),
    /// The store has this host's join.
    Joined(Versioned<Acknowledgement>),
    /// The store has no such network, or it is being removed.
    NoNetwork,
    /// What the store has.
    Read {
        /// The network's records.
        snapshot: Box<NetworkSnapshot>,
        /// The revision of this host's join, if the store has one.
        join: Option<u64>,
    },
    /// How many entries of the kernel were not so.
    Applied(usize),
    /// This host's record at the store: the acknowledgement, or a new join if the store had lost it.
    Acknowledged(Versioned<Acknowledgement>),
    /// It is done.
    Done,
    /// The store cannot be reached.
    StoreAway(Error),
}

/// A machine, or what it came to.
#[derive(Debug)]
pub enum Step<M: Machine> {
    /// It wants [`Machine::output`] done.
    Next(M),
    /// It has ended.
    Finished(M::Outcome),
}

/// A sequence of outputs, each chosen by what came of those before.
pub trait Machine: Sized {
    /// What it comes to.
    type Outcome;

    /// What is to be done now.
    fn output(&self) -> Output<'_>;

    /// Goes on with what came of the output. An error ends the machine; so does an answer to another output.
    fn input(self, input: Input) -> Result<Step<Self>, Error>;
}

/// How far a snapshot can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust<'a> {
    /// Nobody waits for this host before an address of the snapshot changes its home: what it says of homes may be over.
    Floods,
    /// Nothing changes its home before this host has dropped it.
    Homes {
        /// Addresses that containers of this host have, whatever the snapshot says.
        local: &'a BTreeSet<IpAddr>,
    },
}

/// A snapshot that was read as a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The snapshot. It has the network.
    pub snapshot: NetworkSnapshot,
    /// The revision of this host's join before it was read.
    pub(crate) under: u64,
}

/// What came of asking the store for a snapshot.
#[derive(Debug)]
pub enum Update {
    /// The store cannot be reached.
    StoreAway(Error),
    /// The network is not there, or is another one of this name by now.
    Replaced,
    /// A watcher keeps the copy fresh: the store was not asked.
    Unchanged,
    /// A snapshot.
    Snapshot(Box<Reading>),
}

impl Update {
    /// The same for a verb that began with `known`: it cannot use a snapshot of another network of this name.
    #[must_use]
    pub fn of_network(self, known: &Known) -> Self {
        match self {
            Self::Snapshot(reading) if revision(&reading.snapshot) != revision(&known.snapshot) => {
                Self::Replaced
            }
            update => update,
        }
    }
}

/// What an ADD begins with.
#[derive(Debug, Clone)]
pub struct Known {
    /// A snapshot that has the network.
    pub snapshot: NetworkSnapshot,
    /// Whether it is the copy; else it was read from the store, not as a member.
    pub copied: bool,
    /// Whether this node had to be registered: then the store may have lost its other records, too.
    pub registered: bool,
}

/// A container that is being plugged in.
#[derive(Debug, Clone, Copy)]
pub struct Plugged<'a> {
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// The MAC that it asked for, if that does not follow from them.
    pub mac: Option<Mac>,
}

/// Which network of this name a snapshot has.
fn revision(snapshot: &NetworkSnapshot) -> Option<u64> {
    snapshot.network.as_ref().map(|network| network.revision)
}

fn unexpected(input: &Input) -> Error {
    let what = match input {
        Input::Documents { .. } => "documents",
        Input::Membership(_) => "the membership",
        Input::Joined(_) => "a join",
        Input::NoNetwork => "that there is no network",
        Input::Read { .. } => "a snapshot",
        Input::Applied(_) => "that entries are applied",
        Input::Acknowledged(_) => "an acknowledgement",
        Input::Done => "that it is done",
        Input::StoreAway(_) => "that the store is away",
    };
    Error::Local(format!("forwarder: was told {what}, and had not asked"))
}
