//! Forwarding by a snapshot: the kernel first, then the copy, then the acknowledgement.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    ATTEMPTS, Change, Input, Known, Machine, Membership, Output, Plugged, Reader, Reading, Step,
    Trust, Update, revision, unexpected,
};
use crate::{Acknowledgement, Error, NetworkSnapshot, Versioned};

/// Makes the kernel forward by what was read, or by something newer. Its driver holds the network's lock on this host.
///
/// Verbs read side by side, in any order. So an ADD applies what it has read only if nothing else was applied since, and reads
/// again otherwise.
#[derive(Debug)]
pub struct Forwarder<'a> {
    network: &'a str,
    node: &'a str,
    /// What an ADD began with, and the container that it plugs in.
    adding: Option<(&'a Known, Plugged<'a>)>,
    changed: usize,
    rounds: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Looks whether the reading is current.
    Look(Box<Reading>),
    /// Reads again, a network of this revision.
    Reread(Reader, Option<u64>),
    Apply(Box<Reading>, BTreeSet<IpAddr>),
    Keep(Box<Reading>, BTreeSet<IpAddr>),
    /// Notes that the kernel forwards by the copy.
    Note(Box<Reading>, Change),
    Acknowledge(Box<Reading>, Versioned<Acknowledgement>),
    /// Notes what the store has now.
    NoteAcknowledged(Box<Reading>, Change),
    /// Reads again, because the store had lost this host's record when the first snapshot was acknowledged.
    Again(Reader, Box<Reading>),
    Flood(Box<NetworkSnapshot>),
    /// Looks what there is without the store.
    Alone,
    /// Notes which addresses containers here have, whatever the copy says.
    NoteLocal(Box<NetworkSnapshot>, Change),
    ApplyCopy(Box<NetworkSnapshot>, Option<Membership>),
}

impl<'a> Forwarder<'a> {
    fn new(network: &'a str, node: &'a str, state: State) -> Self {
        Self {
            network,
            node,
            adding: None,
            changed: 0,
            rounds: 0,
            state,
        }
    }

    /// For an ADD, whose sandbox `stood` before it. It ends with how many entries of the kernel were not so, or with `None`
    /// if the network is another one by now.
    pub fn add(
        network: &'a str,
        node: &'a str,
        update: Update,
        known: &'a Known,
        plugged: Plugged<'a>,
        stood: bool,
    ) -> Result<Step<Self>, Error> {
        let mut machine = Self::new(network, node, State::Alone);
        machine.adding = Some((known, plugged));
        Ok(match update {
            Update::Replaced => Step::Finished(None),
            Update::StoreAway(_) => machine.goes_on_alone()?,
            // The watcher looks after the entries, too.
            Update::Unchanged if stood && machine.knows(&known.snapshot) => Step::Finished(Some(0)),
            Update::Unchanged => machine.rereads(revision(&known.snapshot))?,
            Update::Snapshot(reading) => machine.goes_to(State::Look(reading)),
        })
    }

    /// For a sync that has read a snapshot under the network's lock.
    pub fn sync(network: &'a str, node: &'a str, reading: Box<Reading>) -> Step<Self> {
        Self::new(network, node, State::Alone).applies(reading)
    }

    /// For a sync that got no snapshot: where it is no member any more, it floods.
    pub fn sync_alone(network: &'a str, node: &'a str) -> Step<Self> {
        Step::Next(Self::new(network, node, State::Alone))
    }

    fn goes_to(self, state: State) -> Step<Self> {
        Step::Next(Self { state, ..self })
    }

    fn ends(&self) -> Step<Self> {
        Step::Finished(Some(self.changed))
    }

    fn applies(self, reading: Box<Reading>) -> Step<Self> {
        let local = self.strays(&reading.snapshot);
        self.goes_to(State::Apply(reading, local))
    }

    fn rereads(self, before: Option<u64>) -> Result<Step<Self>, Error> {
        let reader = Reader::verb(self.network, false);
        self.goes_on_rereading(reader, before)
    }

    fn goes_on_rereading(
        self,
        reader: Step<Reader>,
        before: Option<u64>,
    ) -> Result<Step<Self>, Error> {
        Ok(match reader {
            Step::Next(reader) => self.goes_to(State::Reread(reader, before)),
            Step::Finished(Update::Snapshot(new)) if revision(&new.snapshot) == before => {
                self.applies(new)
            }
            Step::Finished(Update::StoreAway(_)) => return self.goes_on_alone(),
            Step::Finished(_) => Step::Finished(None),
        })
    }

    fn goes_on_again(mut self, reader: Step<Reader>, old: Box<Reading>) -> Step<Self> {
        match reader {
            Step::Next(reader) => self.goes_to(State::Again(reader, old)),
            Step::Finished(Update::Snapshot(new))
                if self.rounds + 1 < ATTEMPTS
                    && revision(&new.snapshot) == revision(&old.snapshot) =>
            {
                self.rounds += 1;
                self.applies(new)
            }
            // What is applied was read before the store took us for a member again.
            Step::Finished(_) => self.goes_to(State::Flood(Box::new(old.snapshot))),
        }
    }

    fn goes_on_alone(self) -> Result<Step<Self>, Error> {
        if let Some((known, plugged)) = self.adding
            && let Some(mac) = plugged.mac.filter(|_| !known.snapshot.blocks.is_empty())
        {
            let why = "the store is away, and other hosts learn of a requested MAC from it";
            return Err(Error::Busy(format!("MAC {mac}: {why}")));
        }
        Ok(self.goes_to(State::Alone))
    }

    /// By the copy, as far as it can be relied on, and never away from here for the container's addresses.
    fn alone(
        self,
        membership: Option<&Membership>,
        copy: Option<Box<NetworkSnapshot>>,
    ) -> Step<Self> {
        let Some((known, _)) = self.adding else {
            let trust = membership.map_or(Trust::Floods, Membership::trust);
            return match copy {
                Some(copy) if trust == Trust::Floods => self.goes_to(State::Flood(copy)),
                _ => self.ends(),
            };
        };
        let Some(copy) = copy else {
            return self.goes_to(State::Flood(Box::new(known.snapshot.clone())));
        };
        let change = Change::Local(self.strays(&copy));
        self.goes_to(State::NoteLocal(copy, change))
    }

    /// Whether nothing was applied, joined or left since the reading, and it knows of the container.
    fn is_current(
        &self,
        reading: &Reading,
        membership: Option<&Membership>,
        copy: Option<&NetworkSnapshot>,
    ) -> bool {
        let joined = membership.and_then(Membership::joined);
        let known = self.adding.map(|(known, _)| known);
        let before = known.filter(|known| known.copied);
        let before = before.map(|known| &known.snapshot);
        joined.is_some_and(|own| own.revision == reading.under)
            && (copy == before || copy == Some(&reading.snapshot))
            && self.knows(&reading.snapshot)
    }

    /// Whether a snapshot says of the container what it is: that its addresses are here, and which MAC it has.
    fn knows(&self, snapshot: &NetworkSnapshot) -> bool {
        let Some((_, plugged)) = self.adding else {
            return true;
        };
        // Its MAC was published beside the reading; that of an earlier holder of its address may still be in it.
        let exceptions = snapshot.exceptions();
        let mut macs = plugged.addresses.iter().map(|a| exceptions.get(a).copied());
        self.strays(snapshot).is_empty()
            && (snapshot.blocks.is_empty() || macs.all(|mac| mac == plugged.mac))
    }

    /// Those of the container's addresses of which a snapshot does not say that they are here.
    fn strays(&self, snapshot: &NetworkSnapshot) -> BTreeSet<IpAddr> {
        let network = snapshot.network.as_ref();
        let network = network.filter(|_| !snapshot.blocks.is_empty());
        let Some((network, (_, plugged))) = network.zip(self.adding) else {
            return BTreeSet::new();
        };
        let stray = |address: &&IpAddr| {
            network.record.range_of(**address).is_some()
                && snapshot.home(**address) != Some(self.node)
        };
        plugged.addresses.iter().filter(stray).copied().collect()
    }
}

impl Machine for Forwarder<'_> {
    type Outcome = Option<usize>;

    fn output(&self) -> Output<'_> {
        match &self.state {
            State::Look(_) | State::Alone => Output::Load,
            State::Reread(reader, _) | State::Again(reader, _) => reader.output(),
            State::Apply(reading, local) => Output::Apply {
                snapshot: &reading.snapshot,
                trust: Trust::Homes { local },
            },
            State::Keep(reading, _) => Output::Keep(&reading.snapshot),
            State::Note(_, change)
            | State::NoteAcknowledged(_, change)
            | State::NoteLocal(_, change) => Output::Change(change),
            State::Acknowledge(reading, own) => Output::Acknowledge {
                snapshot: &reading.snapshot,
                own,
            },
            State::Flood(snapshot) => Output::Apply {
                snapshot,
                trust: Trust::Floods,
            },
            State::ApplyCopy(copy, membership) => Output::Apply {
                snapshot: copy,
                trust: membership.as_ref().map_or(Trust::Floods, Membership::trust),
            },
        }
    }

    fn input(mut self, input: Input) -> Result<Step<Self>, Error> {
        let state = std::mem::replace(&mut self.state, State::Alone);
        Ok(match (state, input) {
            (State::Look(reading), Input::Documents { membership, copy }) => {
                if self.is_current(&reading, membership.as_ref(), copy.as_deref()) {
                    self.applies(reading)
                } else {
                    self.rereads(revision(&reading.snapshot))?
                }
            }
            (State::Reread(reader, before), input) => {
                let reader = reader.input(input)?;
                self.goes_on_rereading(reader, before)?
            }
            (State::Apply(reading, local), Input::Applied(changed)) => {
                self.changed += changed;
                self.goes_to(State::Keep(reading, local))
            }
            (State::Keep(reading, local), Input::Done) => {
                let under = reading.under;
                self.goes_to(State::Note(reading, Change::Follows { under, local }))
            }
            (State::Note(reading, _), Input::Membership(document)) => {
                let own = document.as_ref().and_then(Membership::joined);
                match own.filter(|own| own.revision == reading.under) {
                    Some(own) => self.goes_to(State::Acknowledge(reading, own.clone())),
                    // Another verb has joined again, or left: it looks after the rest.
                    None => self.ends(),
                }
            }
            (State::Acknowledge(_, own), Input::Acknowledged(told)) if told == own => self.ends(),
            (State::Acknowledge(reading, _), Input::Acknowledged(told)) => {
                self.goes_to(State::NoteAcknowledged(reading, Change::Acknowledged(told)))
            }
            // Without the store the others wait for the next verb. Nobody waits for a network that was removed a moment ago.
            (State::Acknowledge(..), Input::StoreAway(_) | Input::NoNetwork) => self.ends(),
            (
                State::NoteAcknowledged(reading, Change::Acknowledged(told)),
                Input::Membership(_),
            ) => {
                if told.record.seen > 0 {
                    return Ok(self.ends());
                }
                let reader = Reader::verb(self.network, false);
                self.goes_on_again(reader, reading)
            }
            (State::Again(reader, old), input) => {
                let reader = reader.input(input)?;
                self.goes_on_again(reader, old)
            }
            (State::Flood(_) | State::ApplyCopy(..), Input::Applied(changed)) => {
                self.changed += changed;
                self.ends()
            }
            (State::Alone, Input::Documents { membership, copy }) => {
                self.alone(membership.as_ref(), copy)
            }
            (State::NoteLocal(copy, _), Input::Membership(document)) => {
                self.goes_to(State::ApplyCopy(copy, document))
            }
            (_, input) => return Err(unexpected(&input)),
        })
    }
}
