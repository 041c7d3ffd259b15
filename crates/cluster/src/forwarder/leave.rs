//! Leaving: the store learns that this host forwards no more on a network.

use super::{Change, Input, Machine, Output, Step, unexpected};
use crate::Error;

/// Tells the store that this host has left a network ([`Change::Leave`]), if that is still to be told.
#[derive(Debug)]
pub struct Leaver(State);

#[derive(Debug)]
enum State {
    Look,
    /// A join was killed, or is under way: only of one of our own the revision is known.
    Join,
    Note(Change, u64),
    Leave(u64),
    Forget(Change),
}

impl Leaver {
    /// For any verb.
    pub fn verb() -> Step<Self> {
        Step::Next(Self(State::Look))
    }
}

impl Machine for Leaver {
    type Outcome = ();

    fn output(&self) -> Output<'_> {
        match &self.0 {
            State::Look => Output::Load,
            State::Join => Output::Join,
            State::Note(change, _) | State::Forget(change) => Output::Change(change),
            State::Leave(revision) => Output::Leave {
                revision: *revision,
            },
        }
    }

    fn input(self, input: Input) -> Result<Step<Self>, Error> {
        let next = |state| Ok(Step::Next(Self(state)));
        match (self.0, input) {
            (State::Look, Input::Documents { membership, .. }) => {
                match membership.filter(|member| member.left) {
                    None => Ok(Step::Finished(())),
                    Some(member) => match member.own {
                        Some(own) => next(State::Leave(own.revision)),
                        None => next(State::Join),
                    },
                }
            }
            (State::Join, Input::Joined(own)) => {
                let revision = own.revision;
                next(State::Note(Change::JoinedToLeave(own), revision))
            }
            // What was written of it went with the network.
            (State::Join, Input::NoNetwork) => next(State::Forget(Change::Forget)),
            // Another verb has joined since, and forwards by our join as well as by its own.
            (State::Note(..), Input::Membership(Some(member))) if !member.left => {
                Ok(Step::Finished(()))
            }
            (State::Note(_, revision), Input::Membership(_)) => next(State::Leave(revision)),
            (State::Leave(revision), Input::Done) => next(State::Forget(Change::Left(revision))),
            (State::Forget(_), Input::Membership(_)) => Ok(Step::Finished(())),
            (State::Join | State::Leave(_), Input::StoreAway(why)) => Err(why),
            (_, input) => Err(unexpected(&input)),
        }
    }
}
