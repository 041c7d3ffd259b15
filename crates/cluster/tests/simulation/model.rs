//! The store, as `store`'s traits describe it, without the connection to it (that is `line.rs`): keys, revisions that never
//! repeat within one life of a store, transactions, and the restore of an older state.

use std::collections::{BTreeMap, BTreeSet};

use store::{Entry, Key, Op, Outcome};

/// What the store holds.
#[derive(Clone)]
pub struct Model {
    /// Counts writes.
    index: u64,
    entries: BTreeMap<Key, Entry>,
    /// When deleted keys were deleted, for watches.
    removed: BTreeMap<Key, u64>,
    /// Ids of networks that an operator has removed.
    pub removed_networks: BTreeSet<String>,
}

impl Model {
    pub fn new() -> Self {
        Self {
            index: 1,
            entries: BTreeMap::new(),
            removed: BTreeMap::new(),
            removed_networks: BTreeSet::new(),
        }
    }

    /// All entries at or below one of the prefixes, each once, in order.
    pub fn within(&self, prefixes: &[Key]) -> Vec<Entry> {
        let covered = prefixes
            .iter()
            .flat_map(|prefix| below(&self.entries, prefix));
        let covered: BTreeMap<_, _> = covered.collect();
        covered.into_values().cloned().collect()
    }

    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The index of the last change at or below `prefix`.
    pub fn last_change(&self, prefix: &Key) -> u64 {
        let written = below(&self.entries, prefix).map(|(_, entry)| entry.revision);
        let removed = below(&self.removed, prefix).map(|(_, index)| *index);
        written.chain(removed).max().unwrap_or(0)
    }

    pub fn index(&self) -> u64 {
        self.index
    }

    /// The first operation whose condition does not hold.
    pub fn conflict(&self, ops: &[Op]) -> Option<usize> {
        ops.iter().position(|op| {
            let current = self.entries.get(op.key()).map(|entry| entry.revision);
            !match op {
                Op::Create { .. } => current.is_none(),
                Op::Swap { revision, .. } | Op::Check { revision, .. } => {
                    current == Some(*revision)
                }
                Op::Delete { revision, .. } => current.is_none_or(|current| current == *revision),
            }
        })
    }

    /// Applies all operations, or returns the one whose condition failed.
    pub fn apply(&mut self, ops: &[Op]) -> Outcome {
        if let Some(first) = self.conflict(ops) {
            return Outcome::Conflict(first);
        }
        self.index += 1;
        let revision = self.index;
        let mut revisions = Vec::with_capacity(ops.len());
        for op in ops {
            let key = op.key().clone();
            if let Some(value) = op.value() {
                let entry = Entry {
                    key: key.clone(),
                    value: value.to_vec(),
                    revision,
                };
                self.removed.remove(&key);
                self.entries.insert(key, entry);
                revisions.push(revision);
            } else {
                if matches!(op, Op::Delete { .. }) && self.entries.remove(&key).is_some() {
                    self.removed.insert(key, revision);
                }
                revisions.push(0);
            }
        }
        Outcome::Done(revisions)
    }

    /// Restores `old`, or an empty state. The same store continues its count, so later writes get revisions that no host has
    /// seen. If it is `another` store, it continues from the count of `old`.
    pub fn restore(&mut self, old: Option<Self>, another: bool) {
        let index = self.index + 1;
        *self = old.unwrap_or_else(Self::new);
        if !another {
            self.index = index;
        }
    }
}

/// The keys at or below `prefix`: they are contiguous, among keys that only begin with the same characters.
fn below<'a, T>(
    map: &'a BTreeMap<Key, T>,
    prefix: &'a Key,
) -> impl Iterator<Item = (&'a Key, &'a T)> {
    map.range(prefix..)
        .take_while(|(key, _)| key.as_str().starts_with(prefix.as_str()))
        .filter(|(key, _)| key.is_within(prefix))
}
