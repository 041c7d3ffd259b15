//! Membership: what this host has told the store of its forwarding on a network, as a document of the host.
//!
//! The document is changed *before* the store is told of a join, so that the host knows of every join, even of one whose verb was
//! killed. It is changed again *after* the store has confirmed the join. What the store could not be told, for example because a DEL
//! has no settings, the next verb or sync tells it.
//!
//! Verbs join side by side, and hold no lock while they ask the store. The join with the highest revision counts. A leave
//! ends only the join whose revision it names.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::Trust;
use crate::{Acknowledgement, Versioned};

/// That this host forwards on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The network.
    pub network: String,
    /// Our record in the store as we know it; absent while a join is under way, or after one was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Versioned<Acknowledgement>>,
    /// Whether the local copy of the snapshot was read since the join. Only such a copy is relied on when the store is away.
    #[serde(default)]
    pub follows: bool,
    /// Addresses that containers here got while the store was away and that the copy places elsewhere.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub local: BTreeSet<IpAddr>,
    /// Whether nothing is forwarded any more and the store is still to be told so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

impl Membership {
    /// Our record in the store, if we are a member for all we know.
    pub fn joined(&self) -> Option<&Versioned<Acknowledgement>> {
        self.own.as_ref().filter(|_| !self.left)
    }

    /// How far the local copy of the snapshot can be relied on.
    pub fn trust(&self) -> Trust<'_> {
        match self.joined() {
            Some(_) if self.follows => Trust::Homes { local: &self.local },
            _ => Trust::Floods,
        }
    }

    fn revision(&self) -> u64 {
        self.own.as_ref().map_or(0, |own| own.revision)
    }

    /// Takes over a join that the store has confirmed, unless a later one is known.
    fn learn(&mut self, own: &Versioned<Acknowledgement>) {
        if self.revision() < own.revision {
            self.own = Some(own.clone());
            self.follows = false;
        }
    }
}

/// A change of the document, made as one step. One that changes nothing need not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A join begins. With `anew` also if this host's document says that it is a member: the store may have lost that.
    BeginJoin {
        /// The network.
        network: String,
        /// Whether to join in any case.
        anew: bool,
    },
    /// The store has our join. It does not count if another verb left meanwhile: that may have been after the join.
    Joined(Versioned<Acknowledgement>),
    /// The store has a join of ours that was made only to learn the revision that is to be left.
    JoinedToLeave(Versioned<Acknowledgement>),
    /// The kernel forwards by a snapshot that was read as the member that joined at `under`.
    Follows {
        /// The revision of the join.
        under: u64,
        /// Addresses of containers here that the snapshot places elsewhere.
        local: BTreeSet<IpAddr>,
    },
    /// Containers here got these addresses while the store was away.
    Local(BTreeSet<IpAddr>),
    /// The store has this record of ours: an acknowledgement, or a new join, because the store had lost the earlier one.
    Acknowledged(Versioned<Acknowledgement>),
    /// Nothing is forwarded any more: the sandbox is gone.
    Leave,
    /// The store has ended the join of this revision.
    Left(u64),
    /// The network is gone, and with it what the store was to be told.
    Forget,
}

impl Change {
    /// Makes the change; no document is `None`.
    pub fn apply(&self, document: &mut Option<Membership>) {
        match self {
            Self::BeginJoin { network, anew } => {
                let joined = document.as_ref().is_some_and(|it| it.joined().is_some());
                if joined && !anew {
                    return;
                }
                // The addresses of containers here stay theirs, whatever the store knows of us.
                let local = document.take().map(|member| member.local);
                *document = Some(Membership {
                    network: network.clone(),
                    local: local.unwrap_or_default(),
                    ..Membership::default()
                });
            }
            Self::Joined(own) => {
                if let Some(member) = document.as_mut().filter(|member| !member.left) {
                    member.learn(own);
                }
            }
            Self::JoinedToLeave(own) => {
                if let Some(member) = document {
                    member.learn(own);
                }
            }
            Self::Follows { under, local } => {
                let joined = |member: &&mut Membership| {
                    member.joined().is_some_and(|own| own.revision == *under)
                };
                if let Some(member) = document.as_mut().filter(joined) {
                    member.follows = true;
                    member.local.clone_from(local);
                }
            }
            Self::Local(addresses) => {
                if let Some(member) = document {
                    member.local.extend(addresses);
                }
            }
            Self::Acknowledged(told) => {
                let older = |member: &&mut Membership| {
                    let own = member.joined();
                    own.is_some_and(|own| own.revision < told.revision)
                };
                if let Some(member) = document.as_mut().filter(older) {
                    member.own = Some(told.clone());
                    member.follows &= told.record.seen > 0;
                }
            }
            Self::Leave => {
                if let Some(member) = document {
                    member.left = true;
                }
            }
            Self::Left(revision) => {
                let ended = |member: &Membership| member.left && member.revision() == *revision;
                if document.as_ref().is_some_and(ended) {
                    *document = None;
                }
            }
            Self::Forget => {
                if document.as_ref().is_some_and(|member| member.left) {
                    *document = None;
                }
            }
        }
    }
}
