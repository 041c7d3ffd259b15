//! Reads the snapshot by which a host forwards. The host joins before it reads. So no address in the snapshot gets a new home until
//! this host has acknowledged it.

use super::{
    ATTEMPTS, Change, Input, Machine, Membership, Output, Reading, Step, Update, unexpected,
};
use crate::{Acknowledgement, Error, NetworkSnapshot, Versioned};

/// How often a join begins anew because another verb left meanwhile.
const JOINS: u32 = 8;

/// Whether the store may have lost the record that this host forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// No: the store has just reported a change.
    None,
    /// Perhaps: the store is asked.
    Some,
    /// Yes: the store had also lost this node's record.
    Certain,
}

/// Makes this host a member if it is none, and reads a snapshot. Needs no lock. The node must be registered in this boot before.
#[derive(Debug)]
pub struct Reader {
    network: String,
    /// Whether to join and read again if the snapshot is older than what this host acknowledged (the store was restored).
    looks_back: bool,
    reads: u32,
    joins: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Looks what this host knows of its join.
    Look,
    /// Asks whether the store knows the same.
    Ask(Versioned<Acknowledgement>),
    /// Notes that a join is under way.
    Begin(Change),
    Join,
    /// Notes the join.
    Note(Change),
    Read(Versioned<Acknowledgement>),
    /// Completes the nodes of a snapshot from the copy.
    Recall(Box<Reading>),
}

impl Reader {
    /// For a verb; with `anew` it joins in any case.
    pub fn verb(network: &str, anew: bool) -> Step<Self> {
        Step::Next(Self {
            network: network.to_owned(),
            looks_back: false,
            reads: 0,
            joins: 0,
            state: begin(network, anew),
        })
    }

    /// For a sync.
    pub fn sync(network: &str, doubt: Doubt) -> Step<Self> {
        Step::Next(Self {
            network: network.to_owned(),
            looks_back: true,
            reads: 0,
            joins: 0,
            state: match doubt {
                Doubt::None => begin(network, false),
                Doubt::Some => State::Look,
                Doubt::Certain => begin(network, true),
            },
        })
    }

    fn goes_to(self, state: State) -> Step<Self> {
        Step::Next(Self { state, ..self })
    }

    fn joins_anew(self) -> Step<Self> {
        let state = begin(&self.network, true);
        self.goes_to(state)
    }

    /// After a snapshot was read as the member that `own` says.
    fn has_read(
        mut self,
        snapshot: NetworkSnapshot,
        own: &Versioned<Acknowledgement>,
    ) -> Step<Self> {
        if self.looks_back && snapshot.revision() < own.record.seen {
            (self.looks_back, self.reads) = (false, 0);
            return self.joins_anew();
        }
        let knows_nodes = snapshot.knows_nodes();
        let under = own.revision;
        let reading = Box::new(Reading { snapshot, under });
        if knows_nodes {
            return Step::Finished(Update::Snapshot(reading));
        }
        self.goes_to(State::Recall(reading))
    }
}

fn begin(network: &str, anew: bool) -> State {
    let network = network.to_owned();
    State::Begin(Change::BeginJoin { network, anew })
}

fn joined(document: Option<&Membership>) -> Option<Versioned<Acknowledgement>> {
    document.and_then(Membership::joined).cloned()
}

impl Machine for Reader {
    type Outcome = Update;

    fn output(&self) -> Output<'_> {
        match &self.state {
            State::Look | State::Recall(_) => Output::Load,
            State::Begin(change) | State::Note(change) => Output::Change(change),
            State::Join => Output::Join,
            State::Ask(_) | State::Read(_) => Output::Read,
        }
    }

    fn input(mut self, input: Input) -> Result<Step<Self>, Error> {
        Ok(match (&mut self.state, input) {
            (State::Look, Input::Documents { membership, .. }) => {
                match joined(membership.as_ref()) {
                    Some(own) => self.goes_to(State::Ask(own)),
                    None => self.joins_anew(),
                }
            }
            (State::Ask(own), Input::Read { snapshot, join }) => {
                let own = own.clone();
                if join != Some(own.revision) {
                    return Ok(self.joins_anew());
                }
                self.has_read(*snapshot, &own)
            }
            (State::Begin(_), Input::Membership(document)) => match joined(document.as_ref()) {
                Some(own) => self.goes_to(State::Read(own)),
                None => self.goes_to(State::Join),
            },
            (State::Join, Input::Joined(own)) => self.goes_to(State::Note(Change::Joined(own))),
            (State::Join, Input::NoNetwork) => Step::Finished(Update::Replaced),
            (State::Note(_), Input::Membership(document)) => {
                if let Some(own) = joined(document.as_ref()) {
                    return Ok(self.goes_to(State::Read(own)));
                }
                self.joins += 1;
                if self.joins >= JOINS {
                    let network = self.network;
                    let why = format!("left by other verbs at each of {JOINS} attempts to join");
                    return Err(Error::Busy(format!("network {network}: {why}")));
                }
                let state = begin(&self.network, false);
                self.goes_to(state)
            }
            (State::Read(own), Input::Read { snapshot, join }) => {
                let own = own.clone();
                if join.is_some() {
                    return Ok(self.has_read(*snapshot, &own));
                }
                // Our join was removed together with a network of this name, or the store lost it.
                (self.reads, self.joins) = (self.reads + 1, 0);
                if self.reads >= ATTEMPTS {
                    let network = self.network;
                    let why = format!("removed at each of {ATTEMPTS} attempts to join");
                    return Err(Error::Busy(format!("network {network}: {why}")));
                }
                self.joins_anew()
            }
            (State::Recall(reading), Input::Documents { copy, .. }) => {
                let mut reading = reading.clone();
                if let Some(copy) = copy {
                    reading.snapshot.recall_nodes(&copy);
                }
                Step::Finished(Update::Snapshot(reading))
            }
            (State::Ask(_) | State::Join | State::Read(_), Input::StoreAway(why)) => {
                Step::Finished(Update::StoreAway(why))
            }
            (_, input) => return Err(unexpected(&input)),
        })
    }
}
