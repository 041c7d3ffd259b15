//! Planted bugs. The product has none of them: a host of the simulation gets a store or a disk that lies to it, so that the
//! unmodified code does what a buggy one would. The simulator must find each of them; otherwise it checks too little.

use std::time::Duration;

use async_trait::async_trait;
use cluster::{Acknowledgement, BlockRecord, ExclusionState, Layout, Ledger, decode, encode};
use store::{Entry, Error, Key, Op, Outcome, Snapshot, Store};

use crate::line::Line;

/// A bug that the simulator must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// A release deletes whatever lease is there.
    ReleaseUnversioned,
    /// An address of another host's block is taken without consent.
    ExclusionUnacknowledged,
    /// A block that was given back is claimed before all members have dropped its last owner.
    ReturnUnacknowledged,
    /// On a network that reclaims, addresses of any block are given out while the store is away.
    ReclaimUnfenced,
    /// A host restores any network that it remembers, also one that was removed.
    RestoreRemoved,
    /// A host acknowledges a snapshot before the kernel forwards by it.
    AcknowledgedBeforeDropped,
    /// A host reads the snapshot that it forwards by before it joins.
    ReadBeforeJoined,
}

impl Planted {
    /// The ledger as a host reads it while it cannot reach the store: every block of it may be used without the store.
    pub fn unfence(planted: Option<Self>, ledger: &mut Ledger) {
        if planted == Some(Self::ReclaimUnfenced) {
            for own in ledger.blocks.values_mut() {
                own.record.kept = true;
            }
        }
    }

    /// Reverts the lie about `before` before the host writes the ledger.
    pub fn fence(planted: Option<Self>, ledger: &mut Ledger, before: Option<&Ledger>) {
        if planted == Some(Self::ReclaimUnfenced) {
            for (block, own) in &mut ledger.blocks {
                if let Some(before) = before.and_then(|before| before.blocks.get(block)) {
                    own.record.kept = before.record.kept && own.record.kept;
                }
            }
        }
    }
}

/// A process's store, which may lie.
pub struct LyingStore {
    pub line: Line,
    pub planted: Option<Planted>,
}

impl LyingStore {
    fn layout(&self) -> &Layout {
        &self.line.world.layout
    }

    /// Operators read the truth.
    fn tells(&self, lie: Planted) -> bool {
        self.planted == Some(lie) && self.line.process.host.is_some()
    }

    /// What a host reads.
    fn show(&self, entries: Vec<Entry>) -> Vec<Entry> {
        if self.tells(Planted::RestoreRemoved) {
            let removed = self.layout().all_removed().unwrap();
            let shown = entries.into_iter().filter(|it| !it.key.is_within(&removed));
            return shown.collect();
        }
        if self.tells(Planted::ReturnUnacknowledged) || self.tells(Planted::ExclusionUnacknowledged)
        {
            return entries
                .into_iter()
                .map(|it| self.acknowledged(it))
                .collect();
        }
        entries
    }

    /// An acknowledgement of all that there will ever be.
    fn acknowledged(&self, mut entry: Entry) -> Entry {
        if entry.key.is_within(&self.layout().all_acks().unwrap()) {
            let mut ack = decode::<Acknowledgement>(&entry).unwrap().record;
            ack.seen = u64::MAX;
            entry.value = encode(&ack).unwrap();
        }
        entry
    }

    /// The operations without the conditions that a lie drops.
    async fn loosen(&self, ops: &[Op]) -> Result<Vec<Op>, Error> {
        let mut ops = ops.to_vec();
        for op in &mut ops {
            if self.tells(Planted::ReleaseUnversioned)
                && op.key().is_within(&self.layout().all_leases().unwrap())
                && let Op::Delete { key, revision } = op
                && *revision > 0
                && let Some(present) = self.line.get(key).await?
            {
                *revision = present.revision;
            }
            if self.tells(Planted::RestoreRemoved)
                && op.key().is_within(&self.layout().all_removed().unwrap())
                && matches!(op, Op::Delete { .. } | Op::Check { .. })
            {
                // The absence of a key that never exists.
                *op = Op::Delete {
                    key: self.layout().removed("nobody").unwrap(),
                    revision: 0,
                };
            }
        }
        Ok(ops)
    }

    /// Grants each request for an address that was just written, in its owner's place.
    async fn grant(&self, ops: &[Op]) -> Result<(), Error> {
        for op in ops.iter().filter(|op| op.value().is_some()) {
            if !op.key().is_within(&self.layout().all_blocks().unwrap())
                || op.key().last().parse::<ipam::Mac>().is_ok()
            {
                continue;
            }
            let Some(entry) = self.line.get(op.key()).await? else {
                continue;
            };
            let mut block = decode::<BlockRecord>(&entry).unwrap().record;
            let requests = block.exclusions.values_mut();
            let mut requests = requests.filter(|it| it.state == ExclusionState::Asked);
            let Some(first) = requests.next() else {
                continue;
            };
            first.state = ExclusionState::Granted;
            let value = encode(&block).unwrap();
            self.line.swap(op.key(), &value, entry.revision).await?;
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Store for LyingStore {
    async fn read(&self, prefixes: &[Key]) -> Result<Vec<Entry>, Error> {
        self.line.read(prefixes).await.map(|it| self.show(it))
    }

    async fn apply(&self, ops: &[Op]) -> Result<Outcome, Error> {
        if self.planted.is_none() {
            return self.line.apply(ops).await;
        }
        let ops = self.loosen(ops).await?;
        let outcome = self.line.apply(&ops).await?;
        if self.tells(Planted::ExclusionUnacknowledged) && matches!(outcome, Outcome::Done(_)) {
            self.grant(&ops).await?;
        }
        Ok(outcome)
    }

    async fn watch(&self, prefix: &Key, index: u64, wait: Duration) -> Result<Snapshot, Error> {
        let mut snapshot = self.line.watch(prefix, index, wait).await?;
        snapshot.entries = self.show(snapshot.entries);
        Ok(snapshot)
    }
}
