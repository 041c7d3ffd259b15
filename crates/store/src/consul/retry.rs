//! Repeats a request until there is an answer, as long as that can help and the verb's time lasts.
//!
//! A write whose answer was lost may have happened. To repeat it is safe: every operation has a condition that its own success makes
//! false (`Create`, `Swap`) or has already fulfilled (`Delete`), so it cannot happen twice. What remains is to distinguish our own
//! success from that of another writer. If the repeated transaction conflicts, its keys are read, and the mark beside each value
//! (see `txn`) tells who wrote it. A conflict is reported only if no key has our mark, with the state of that moment. One case
//! cannot be excluded: the network delays an attempt beyond the end of the verb, and its conditions hold again when it arrives.

use std::time::{Duration, Instant};

use super::Consul;
use super::transport::{Answer, Ask, Failure};
use super::txn::Pair;
use crate::budget::Backoff;
use crate::{Error, Key, Op, Outcome, op};

/// Longest attempt of a request that is not a blocking query.
const ATTEMPT: Duration = Duration::from_secs(5);

/// An answer, and whether the agent may have got its request more than once.
pub(super) struct Called {
    pub(super) answer: Answer,
    pub(super) repeated: bool,
}

impl Consul {
    /// Asks until there is one of the answers that `ask` expects, as long as the budget lasts. The time of a blocking query is not
    /// taken from the budget.
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

    /// Sorts an answer: expected, or a failure.
    fn judge(&self, ask: &Ask, answer: Answer) -> Result<Answer, Failure> {
        let said = answer.text();
        match answer.status {
            status if ask.expects.contains(&status) => Ok(answer),
            403 => Err(Failure::Final(self.denied(format!("{}: {said}", ask.what)))),
            // No leader, an election, or overload. Some of these answers come after the write has begun.
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

    /// The outcome of a transaction whose first attempts were lost and whose last one conflicts: if a key has its mark, one of those
    /// attempts succeeded.
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
