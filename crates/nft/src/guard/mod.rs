//! The source guard: table `bridge crosshost-guard`, in a sandbox's namespace and in that of the egress bridge. What a container's
//! port sends has to have the MAC and the addresses of its attachment.
//!
//! It is no part of `bridge crosshost` ([`crate::MacRewrite`]): versions up to 1.0.0 want that table to be gone where they rewrite nothing.
//! The rules are the same for any number of containers; each port has elements of its own, which are put in, and taken out, in one
//! transaction. A port without elements may send anything: an earlier version made it.
//!
//! The human form of the rules is `guard.nft`.

mod element;
mod skeleton;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::NfTablesMessage;

use crate::channel::{Change, Channel};
use crate::error::{EEXIST, ENOENT, EOPNOTSUPP, Error};
use crate::skeleton::{on_table, table};
use crate::{Nft, Status};

pub use element::Element;

/// The name of the table.
pub const GUARD: &str = "crosshost-guard";

/// A table that no host has.
const NO_TABLE: &str = "crosshost-no-table";

/// What may come from a container's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The port's name.
    pub name: String,
    /// What its frames have to say of their sender; `None` of a port that may send anything.
    pub only: Option<Sources>,
    /// How many frames a second it may send to groups of receivers, or to all.
    pub group_rate: u32,
}

/// What an attachment has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its addresses, with the link-local one.
    pub addresses: BTreeSet<IpAddr>,
}

/// The elements of ports, by the ports' names.
pub type Elements = BTreeMap<String, BTreeSet<Element>>;

/// What a namespace has of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether its chains, rules and sets are as they should be.
    pub is_complete: bool,
    /// Its elements.
    pub elements: Elements,
}

/// The table of the network namespace in which the calling thread was at [`Guard::open`].
#[derive(Debug)]
pub struct Guard {
    nft: Nft,
    trusted: &'static str,
}

impl Guard {
    /// Opens the socket. What comes from the port `trusted` is not looked at. Nothing is asked of the kernel yet.
    pub fn open(trusted: &'static str) -> Result<Self, Error> {
        let channel = Channel::open_for(NetfilterProtoFamily::Bridge)?;
        Ok(Self {
            nft: Nft { channel },
            trusted,
        })
    }

    /// Whether this host's kernel makes such tables; if not, an error that names what is missing. Changes nothing.
    pub fn probe() -> Result<(), Error> {
        probe(NetfilterProtoFamily::Bridge)
    }

    /// Puts in the elements of a new port; false, and nothing is changed, if the table is not there, or has elements of a port of that
    /// name.
    pub fn admit(&mut self, port: &Port) -> Result<bool, Error> {
        let additions = || element::additions(&port.elements(), NLM_F_EXCL);
        let done = self
            .nft
            .patiently(|channel| channel.commit_blindly(additions()));
        match done {
            Ok(()) => Ok(true),
            Err(error) if is(&error, ENOENT) || is(&error, EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes out all elements of a port; `known` are those that it should have. Fine if there are none.
    pub fn release(&mut self, name: &str, known: Option<&Port>) -> Result<(), Error> {
        if let Some(known) = known {
            let removals = || element::removals(&known.elements());
            let done = self
                .nft
                .patiently(|channel| channel.commit_blindly(removals()));
            match done {
                Err(error) if is(&error, ENOENT) => {}
                done => return done,
            }
        }
        self.nft.decide(|channel| {
            let there = element::all(channel)?;
            let its = there.get(name).cloned().unwrap_or_default();
            Ok((element::removals(&its), ()))
        })
    }

    /// What there is. Changes nothing.
    pub fn look(&mut self) -> Result<Seen, Error> {
        let skeleton = skeleton::of(self.trusted);
        let is_complete = self.nft.compare(&skeleton)? == Status::Complete;
        let elements = self
            .nft
            .decide(|channel| Ok((vec![], element::all(channel)?)));
        Ok(Seen {
            is_complete,
            elements: elements?,
        })
    }

    /// Makes the table complete, with exactly these elements of each of these ports; other ports keep theirs if they are `spared`.
    pub fn set(&mut self, wanted: &Elements, spared: &BTreeSet<String>) -> Result<(), Error> {
        let made = self.nft.make(&skeleton::of(self.trusted), &[]);
        made.map_err(named)?;
        let nothing = BTreeSet::new();
        self.nft.decide(|channel| {
            let there = element::all(channel)?;
            let mut changes: Vec<Change> = vec![];
            let excess = |name: &&String| !wanted.contains_key(*name) && !spared.contains(*name);
            for name in there.keys().filter(excess) {
                changes.extend(element::removals(&there[name]));
            }
            for (name, wanted) in wanted {
                let there = there.get(name).unwrap_or(&nothing);
                let removed: BTreeSet<_> = there.difference(wanted).cloned().collect();
                let added: BTreeSet<_> = wanted.difference(there).cloned().collect();
                changes.extend(element::removals(&removed));
                changes.extend(element::additions(&added, 0));
            }
            Ok((changes, ()))
        })
    }
}

fn is(error: &Error, errno: i32) -> bool {
    error.errno() == Some(errno)
}

/// Tries to make a table of a family, in a batch whose second step the kernel refuses: so nothing of it is done.
pub(crate) fn probe(family: NetfilterProtoFamily) -> Result<(), Error> {
    let channel = Channel::open_for(family)?;
    let mut nft = Nft { channel };
    let tried = nft.decide(|_| {
        let steps = [
            Change {
                what: on_table("make", GUARD),
                flags: NLM_F_CREATE,
                message: NfTablesMessage::NewTable(table(GUARD, vec![])),
            },
            Change {
                what: on_table("remove", NO_TABLE),
                flags: 0,
                message: NfTablesMessage::DeleteTable(table(NO_TABLE, vec![])),
            },
        ];
        Ok((steps.into(), ()))
    });
    match tried {
        Err(error) if is(&error, ENOENT) => Ok(()),
        tried => tried.map_err(named),
    }
}

/// The kernel's "not supported" says nothing of what is missing. It knows all else that the table has wherever it knows the family.
fn named(error: Error) -> Error {
    match error {
        Error::Refused { what, reason } if reason.errno == EOPNOTSUPP => {
            Error::NoBridgeFamily { what }
        }
        error => error,
    }
}
