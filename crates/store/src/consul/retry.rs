//! Asking until there is an answer, as long as that makes sense and the verb's time lasts.
//!
//! A write whose answer was lost may have been made. It is repeated all the same, since that is safe: every operation has a
//! condition that its own success makes false (`Create`, `Swap`) or has already fulfilled (`Delete`), so it cannot happen
//! twice. What remains is to tell one's own success from another's: if the repeated transaction conflicts, its keys are read,
//! and the mark that it writes beside each value (see `txn`) says whose they are. A conflict is reported only if no key
//! carries that mark, and then says how things are now. What cannot be excluded: an attempt that the network delays
//! beyond the whole verb, and whose conditions hold again by then, still happens.

use std::time::{Duration, Instant};

use super::Consul;
use super::transport::{Answer, Ask, Failure};
use super::txn::Pair;
use crate::budget::Backoff;
use crate::{Error, Key, Op, Outcome, op};

/// Most time for one attempt at a request that does not block by intent.
const ATTEMPT: Duration = Duration::from_secs(5);

/// An answer, and whether the agent may have got its request more than once.
pub(super) struct Called {
    pub(super) answer: Answer,
    pub(super) repeated: bool,
}

impl Consul {
    /// Asks until there is one of the answers that `ask` expects. Trying again ends with the budget, from which the time that the
    /// agent was asked to block is not taken.
    pub(super) async fn call(&self, ask: &Ask) -> Result<Called, Error> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut repeated = false;
        let begun = Instant::now();
        while !self.budget.left().is_zero() {
            let started = Instant::now();
            let limit = ATTEMPT.min(self.budget.left()) + ask.blocks;
            let result = self.transport.exchange(ask, limit).await;
            self.budget
                .spend(started.elapsed().saturating_sub(ask.blocks));
            let (error, refused) = match result.and_then(|answer| self.judge(ask, answer)) {
                Ok(answer) => return Ok(Called { answer, repeated }),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Refused(error)) => (error, true),
                Err(Failure::Unsent(error)) => (error, false),
                Err(Failure::Lost(error)) => {
                    repeated = true;
                    (error, false)
                }
            };
            let pause = backoff.pause();
            if !self.budget.afford(pause, refused) {
                return Err(match error {
                    Error::Timeout { url, cause, .. } => Error::Timeout {
                        url,
                        after: begun.elapsed(),
                        cause,
                    },
                    other => other,
                });
            }
            tokio::time::sleep(pause).await;
        }
        let cause = "this verb's time for the store is used up".into();
        Err(Error::Timeout {
            url: self.url(),
            after: self.budget.total(),
            cause,
        })
    }

    /// An answer is one that is expected, or a failure of its own kind.
    fn judge(&self, ask: &Ask, answer: Answer) -> Result<Answer, Failure> {
        let said = answer.text();
        match answer.status {
            status if ask.expects.contains(&status) => Ok(answer),
            403 => Err(Failure::Final(self.denied(format!("{}: {said}", ask.what)))),
            // No leader, an election, overload. Some of these come after the write was begun.
            status @ (429 | 500..) => {
                let what = format!("HTTP {status}: {said}");
                Err(Failure::Lost(Error::NoLeader {
                    url: self.url(),
                    what,
                }))
            }
            status => Err(Failure::Final(
                self.transport.garbage(format!("HTTP {status}: {said}")),
            )),
        }
    }

    /// How a transaction ended whose first attempts got lost and whose last one met a conflict: if a key carries its
    /// mark, one of those attempts did it.
    pub(super) async fn settle(
        &self,
        ops: &[Op],
        mark: u64,
        conflict: usize,
    ) -> Result<Outcome, Error> {
        let keys: Vec<Key> = ops
            .iter()
            .filter(|op| op.value().is_some())
            .map(|op| op.key().clone())
            .collect();
        let pairs = if keys.is_empty() {
            Vec::new()
        } else {
            self.pairs(&keys).await?
        };
        let is_ours =
            |pair: &&Pair| pair.flags == mark && keys.iter().any(|key| key.as_str() == pair.key);
        // All keys of a transaction get the same revision.
        Ok(match pairs.iter().find(is_ours) {
            Some(pair) => op::done(ops, pair.modify_index),
            None => Outcome::Conflict(conflict),
        })
    }
}
