//! The states of a block and of an exclusion, without I/O: which node owns a block, and which node has which address of another
//! node's block.
//!
//! An address changes its home only after every member of the network has dropped the old one (invariant 5 of
//! `docs/architecture.md`). So no owner is followed by the next directly. There is always a state without an owner between
//! them, and the revision of the store at which that state began ([`BlockRecord::dropped`], [`Exclusion::dropped`]) is what the
//! hosts acknowledge ([`crate::Cluster::acknowledge`]).
//!
//! ```text
//!     block:      (no record) --claim--> owned --give back--> returned --claim--> owned ...
//!                                          \--reclaim--> reclaiming --> returned
//!     exclusion:  (none) --ask--> asked --owner: granted--> granted --all have dropped--> given
//!                                   \--owner: in use--> (none)                              |
//!                 (none) <--owner, all have dropped-- returned <--------give back-----------/
//! ```
//!
//! A node gives back an unused address after it has rested, or at once if another node asks for it ([`Exclusion::wanted`]).
//!
//! A block's record is never deleted while its network exists. If one is missing, the store has lost it.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// A block's owner, and the addresses in it that other nodes have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockRecord {
    /// The owner; the last owner if the block has none.
    pub node: String,
    /// How often the record was changed. It shows which of two records is newer even where the store's revisions cannot,
    /// because another store that replaces the first one counts from the beginning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changes: u64,
    /// Whether the block has an owner.
    #[serde(default, skip_serializing_if = "BlockState::is_owned")]
    pub state: BlockState,
    /// The revision at which the block lost its owner; absent: that of this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// On a network with `reclaimAfter`: the owner may give out addresses of this block while the store is away,
    /// because the block is never reclaimed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// Addresses of the block that another node has or asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exclusions: BTreeMap<IpAddr, Exclusion>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the shape that serde wants"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Whether a block has an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockState {
    /// Its node owns it.
    #[default]
    Owned,
    /// It has no owner, and can be claimed when all members have dropped it.
    Returned,
    /// It has no owner, and cannot be claimed before its leases have become exclusions.
    Reclaiming,
}

impl BlockState {
    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "the shape that serde wants"
    )]
    fn is_owned(&self) -> bool {
        *self == Self::Owned
    }
}

/// One address of a block that goes to another node than the block's owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exclusion {
    /// The node that has it or asked for it.
    pub node: String,
    /// Its state.
    pub state: ExclusionState,
    /// The revision at which the address lost its home; absent: that of the block's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// When it was asked for, in seconds since 1970: a request that is not continued is deleted.
    #[serde(default)]
    pub since: u64,
    /// Only if it is given: another node asks for it. The node that has it gives it back if it does not use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wanted: bool,
}

/// The state of an exclusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExclusionState {
    /// The owner has not answered yet.
    Asked,
    /// The owner will not use it; other hosts may still send to the owner.
    Granted,
    /// The node has it.
    Given,
    /// The node has given it back; other hosts may still send to the node.
    Returned,
}

impl BlockRecord {
    /// A new block that `node` owns.
    pub fn of(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            changes: 0,
            state: BlockState::Owned,
            dropped: None,
            kept: false,
            exclusions: BTreeMap::new(),
        }
    }

    /// Whether a node owns it. Without an owner, `node` is the last one.
    pub fn has_owner(&self) -> bool {
        self.state == BlockState::Owned
    }

    /// Whether `node` owns it.
    pub fn is_of(&self, node: &str) -> bool {
        self.has_owner() && self.node == node
    }

    /// The home of an address in the block; `None` while it changes hands.
    pub fn home(&self, address: IpAddr) -> Option<&str> {
        match self.exclusions.get(&address) {
            Some(exclusion) => {
                (exclusion.state == ExclusionState::Given).then_some(exclusion.node.as_str())
            }
            None => self.has_owner().then_some(self.node.as_str()),
        }
    }

    /// The addresses in it that `node` has by exclusion.
    pub fn given_to<'r>(&'r self, node: &'r str) -> impl Iterator<Item = IpAddr> + 'r {
        self.exclusions
            .iter()
            .filter(move |(_, exclusion)| {
                exclusion.state == ExclusionState::Given && exclusion.node == node
            })
            .map(|(address, _)| *address)
    }

    /// The highest revision at which anything of this record, itself read at `revision`, lost its home; 0 if everything has
    /// one. A host that forwards by a snapshot as new as this has dropped all old homes.
    pub fn last_dropped(&self, revision: u64) -> u64 {
        let own = (!self.has_owner()).then(|| self.dropped.unwrap_or(revision));
        let single = self
            .exclusions
            .values()
            .filter_map(|e| e.dropped_at(revision));
        single.chain(own).max().unwrap_or(0)
    }

    /// Prepares the record, read at `revision`, for a change: the change is counted, and what lost its home at or before
    /// `revision` gets that revision, because the record's own is about to change.
    pub(crate) fn pinned(&self, revision: u64) -> Self {
        let mut pinned = self.clone();
        pinned.changes += 1;
        if !pinned.has_owner() {
            pinned.dropped.get_or_insert(revision);
        }
        for exclusion in pinned.exclusions.values_mut() {
            exclusion.dropped = exclusion.dropped_at(revision);
        }
        pinned
    }

    /// Whether it is newer than `other`, a record of the same block, even if they are from different stores.
    pub(crate) fn is_newer(&self, other: &Self) -> bool {
        self.changes > other.changes
    }

    /// The record for a store that has lost it: earlier revisions mean nothing there.
    pub(crate) fn unpinned(&self) -> Self {
        let mut record = self.clone();
        record.dropped = None;
        for exclusion in record.exclusions.values_mut() {
            exclusion.dropped = None;
        }
        record
    }
}

impl Exclusion {
    /// An exclusion of `node` in this state, asked for at `since` seconds after 1970.
    pub fn of(node: &str, state: ExclusionState, since: u64) -> Self {
        Self {
            node: node.to_owned(),
            state,
            dropped: None,
            since,
            wanted: false,
        }
    }

    /// Whether `node` has it and another node asks for it.
    pub(crate) fn is_wanted_of(&self, node: &str) -> bool {
        self.wanted && self.state == ExclusionState::Given && self.node == node
    }

    /// Whether it is a request that has not been completed yet.
    pub fn is_request(&self) -> bool {
        matches!(self.state, ExclusionState::Asked | ExclusionState::Granted)
    }

    /// The revision at which the address lost its home, for a record read at `revision`; `None` if it has a home.
    pub fn dropped_at(&self, revision: u64) -> Option<u64> {
        (self.state != ExclusionState::Given).then(|| self.dropped.unwrap_or(revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusion(state: ExclusionState, dropped: Option<u64>) -> Exclusion {
        Exclusion {
            dropped,
            ..Exclusion::of("n2", state, 0)
        }
    }

    #[test]
    fn an_address_has_no_home_while_it_changes_hands() {
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        let mut block = BlockRecord::of("n1");
        assert_eq!(block.home(address), Some("n1"));
        for (state, home) in [
            (ExclusionState::Asked, None),
            (ExclusionState::Granted, None),
            (ExclusionState::Given, Some("n2")),
            (ExclusionState::Returned, None),
        ] {
            block.exclusions.insert(address, exclusion(state, None));
            assert_eq!(block.home(address), home, "{state:?}");
            assert_eq!(block.home("10.0.0.10".parse().unwrap()), Some("n1"));
        }
        block.state = BlockState::Returned;
        assert_eq!(block.home("10.0.0.10".parse().unwrap()), None);
    }

    #[test]
    fn what_was_dropped_keeps_its_revision_when_the_record_changes() {
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        let mut block = BlockRecord::of("n1");
        assert_eq!(block.last_dropped(7), 0);
        block
            .exclusions
            .insert(address, exclusion(ExclusionState::Asked, None));
        assert_eq!(block.last_dropped(7), 7);
        let pinned = block.pinned(7);
        assert_eq!(pinned.last_dropped(12), 7);
        assert_eq!(pinned.unpinned().last_dropped(12), 12);
        let mut given = pinned;
        given.exclusions.get_mut(&address).unwrap().state = ExclusionState::Given;
        assert_eq!(given.pinned(12).last_dropped(15), 0);
    }

    #[test]
    fn the_plain_record_is_what_it_always_was() {
        let text = serde_json::to_string(&BlockRecord::of("docker01")).unwrap();
        assert_eq!(text, r#"{"node":"docker01"}"#);
    }
}
