//! A store in a map, for tests: of this crate's conformance suite, for which it is the shortest definition of a backend; and of the
//! crates above, which need a store that can be away, lose answers and count round trips on command.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::op::{self, Op, Outcome};
use crate::{Entry, Error, Key, Snapshot, Store};

/// A fault that a [`Mem`] can simulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every call fails with [`Error::Unreachable`], and nothing happens.
    Away,
    /// Writes happen, but their callers get [`Error::Timeout`].
    LostAnswers,
}

/// A map. Clones share it, as processes share a store.
#[derive(Clone, Default)]
pub struct Mem {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

struct State {
    index: u64,
    entries: BTreeMap<Key, Entry>,
    /// When each removed key was removed: a watcher must see removals, too.
    removed: BTreeMap<Key, u64>,
    fault: Option<Fault>,
    calls: usize,
}

impl Mem {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on every call has this `fault`; `None` ends it.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// The number of calls. On a real store each of them is a round trip.
    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self) -> Result<MutexGuard<'_, State>, Error> {
        let mut state = self.lock();
        state.calls += 1;
        if state.fault == Some(Fault::Away) {
            return Err(Error::Unreachable {
                url: "mem:".into(),
                cause: "told to be away".into(),
            });
        }
        Ok(state)
    }
}

impl State {
    fn within(&self, prefixes: &[Key]) -> Vec<Entry> {
        let covered = |key: &Key| prefixes.iter().any(|prefix| key.is_within(prefix));
        self.entries
            .values()
            .filter(|entry| covered(&entry.key))
            .cloned()
            .collect()
    }

    /// The index of the last change at or below `prefix`.
    fn last_change(&self, prefix: &Key) -> u64 {
        let written = self
            .entries
            .iter()
            .map(|(key, entry)| (key, entry.revision));
        let removed = self.removed.iter().map(|(key, &index)| (key, index));
        written
            .chain(removed)
            .filter(|(key, _)| key.is_within(prefix))
            .map(|(_, index)| index)
            .max()
            .unwrap_or(0)
    }

    fn perform(&mut self, op: &Op) {
        let (revision, key) = (self.index, op.key().clone());
        match op {
            Op::Create { value, .. } | Op::Swap { value, .. } => {
                let value = value.clone();
                self.removed.remove(&key);
                self.entries.insert(
                    key.clone(),
                    Entry {
                        key,
                        value,
                        revision,
                    },
                );
            }
            Op::Delete { .. } => {
                if self.entries.remove(&key).is_some() {
                    self.removed.insert(key, revision);
                }
            }
            Op::Check { .. } => {}
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            // 0 means "from the beginning", so that an empty store is already at 1.
            index: 1,
            entries: BTreeMap::new(),
            removed: BTreeMap::new(),
            fault: None,
            calls: 0,
        }
    }
}

#[async_trait(?Send)]
impl Store for Mem {
    async fn read(&self, prefixes: &[Key]) -> Result<Vec<Entry>, Error> {
        op::check_prefixes(prefixes)?;
        Ok(self.call()?.within(prefixes))
    }

    async fn apply(&self, ops: &[Op]) -> Result<Outcome, Error> {
        op::check(ops)?;
        let mut state = self.call()?;
        let revision = |key| state.entries.get(key).map(|entry: &Entry| entry.revision);
        if let Some(first) = ops.iter().position(|op| !op.holds(revision(op.key()))) {
            return Ok(Outcome::Conflict(first));
        }
        state.index += 1;
        for op in ops {
            state.perform(op);
        }
        self.changed.notify_waiters();
        if state.fault == Some(Fault::LostAnswers) {
            let cause = "told to lose answers".into();
            return Err(Error::Timeout {
                url: "mem:".into(),
                after: Duration::ZERO,
                cause,
            });
        }
        Ok(op::done(ops, state.index))
    }

    async fn watch(&self, prefix: &Key, index: u64, wait: Duration) -> Result<Snapshot, Error> {
        drop(self.call()?);
        let change = async {
            loop {
                // The subscription starts before the read, so that no change between the two is missed.
                let changed = self.changed.notified();
                if index == 0 || self.lock().last_change(prefix) > index {
                    return;
                }
                changed.await;
            }
        };
        // In either case the answer is the present state.
        let _ = tokio::time::timeout(wait, change).await;
        let state = self.lock();
        Ok(Snapshot {
            entries: state.within(std::slice::from_ref(prefix)),
            index: state.index,
        })
    }
}
