//! The machines against a host and a store of a few fields: which outputs they make, and in which order.

use super::*;
use crate::{BlockRecord, Network, Node, Records, Stored};

const NETWORK: &str = "net";
const NODE: &str = "here";

/// A host and a store, as far as a machine sees them, and what it did to them in order.
struct Fake {
    membership: Option<Membership>,
    copy: Option<NetworkSnapshot>,
    /// The revision of the join that the store has.
    join: Option<u64>,
    snapshot: NetworkSnapshot,
    revision: u64,
    is_away: bool,
    has_network: bool,
    /// How often the store has lost the join when the host acknowledges.
    forgets: u32,
    did: Vec<&'static str>,
    floods: Option<bool>,
}

impl Fake {
    fn new() -> Self {
        Self {
            membership: None,
            copy: None,
            join: None,
            snapshot: snapshot(7),
            revision: 10,
            is_away: false,
            has_network: true,
            forgets: 0,
            did: Vec::new(),
            floods: None,
        }
    }

    fn member(revision: u64, seen: u64) -> Self {
        let own = ack(revision, seen);
        let membership = Some(Membership {
            network: NETWORK.to_owned(),
            own: Some(own),
            follows: true,
            ..Membership::default()
        });
        Self {
            membership,
            join: Some(revision),
            ..Self::new()
        }
    }

    fn writes(&mut self) -> u64 {
        self.revision += 1;
        self.join = Some(self.revision);
        self.revision
    }

    fn run<M: Machine>(&mut self, mut step: Step<M>) -> Result<M::Outcome, Error> {
        loop {
            match step {
                Step::Next(machine) => {
                    let input = self.perform(&machine.output());
                    step = machine.input(input)?;
                }
                Step::Finished(outcome) => return Ok(outcome),
            }
        }
    }

    fn perform(&mut self, output: &Output<'_>) -> Input {
        self.did.push(match output {
            Output::Load => "load",
            Output::Change(Change::BeginJoin { .. }) => "begin",
            Output::Change(_) => "note",
            Output::Join => "join",
            Output::Read => "read",
            Output::Apply { .. } => "apply",
            Output::Keep(_) => "keep",
            Output::Acknowledge { .. } => "acknowledge",
            Output::Leave { .. } => "leave",
        });
        match output {
            Output::Load => {
                return Input::Documents {
                    membership: self.membership.clone(),
                    copy: self.copy.clone().map(Box::new),
                };
            }
            Output::Change(change) => {
                change.apply(&mut self.membership);
                return Input::Membership(self.membership.clone());
            }
            Output::Apply { trust, .. } => {
                self.floods = Some(*trust == Trust::Floods);
                return Input::Applied(1);
            }
            Output::Keep(snapshot) => {
                self.copy = Some((*snapshot).clone());
                return Input::Done;
            }
            _ if self.is_away => return Input::StoreAway(Error::Busy("away".into())),
            Output::Join if !self.has_network => return Input::NoNetwork,
            _ => {}
        }
        match output {
            Output::Join => Input::Joined(ack(self.writes(), 0)),
            Output::Read => Input::Read {
                snapshot: Box::new(self.snapshot.clone()),
                join: self.join,
            },
            Output::Acknowledge { .. } if self.forgets > 0 => {
                self.forgets -= 1;
                Input::Acknowledged(ack(self.writes(), 0))
            }
            Output::Acknowledge { snapshot, .. } => {
                Input::Acknowledged(ack(self.writes(), snapshot.revision()))
            }
            _ => {
                self.join = None;
                Input::Done
            }
        }
    }

    fn read(&mut self, step: Step<Reader>) -> Box<Reading> {
        match self.run(step) {
            Ok(Update::Snapshot(reading)) => reading,
            other => panic!("{other:?}"),
        }
    }
}

fn ack(revision: u64, seen: u64) -> Versioned<Acknowledgement> {
    let record = Acknowledgement {
        boot_id: "boot".into(),
        seen,
    };
    Versioned { record, revision }
}

/// The record of a node.
fn node(name: &str) -> (String, Versioned<Node>) {
    let record = Node {
        name: name.to_owned(),
        vtep: Some([192, 168, 1, 2].into()),
        boot_id: "boot".to_owned(),
        machine_id: None,
        last_contact: 1,
        version: None,
        commit: None,
    };
    let revision = 3;
    (name.to_owned(), Versioned { record, revision })
}

/// One network of revision 5, with a block of another host.
fn snapshot(revision: u64) -> NetworkSnapshot {
    let range = ipam::Range::of("10.1.0.0/24".parse().unwrap()).unwrap();
    let record = serde_json::json!({"name": NETWORK, "ranges": [[range]], "blockPrefix": 29});
    let record: Network = serde_json::from_value(record).unwrap();
    let block = BlockRecord::of("there");
    let record_of_block = Versioned {
        record: block,
        revision,
    };
    NetworkSnapshot {
        network: Some(Versioned {
            record,
            revision: 5,
        }),
        nodes: Records::from([node("there")]),
        blocks: Records::from([("10.1.0.8_29".parse().unwrap(), record_of_block)]),
        ..NetworkSnapshot::default()
    }
}

#[test]
fn a_host_joins_before_it_reads_and_a_member_only_reads() {
    let mut host = Fake::new();
    let reading = host.read(Reader::verb(NETWORK, false));
    assert_eq!(host.did, ["begin", "join", "note", "read"]);
    assert_eq!(reading.under, 11);
    host.did.clear();
    host.read(Reader::verb(NETWORK, false));
    assert_eq!(host.did, ["begin", "read"]);
}

#[test]
fn a_killed_join_is_made_again() {
    let mut host = Fake::new();
    // Killed after the store took the join and before that was noted.
    Change::BeginJoin {
        network: NETWORK.to_owned(),
        anew: false,
    }
    .apply(&mut host.membership);
    host.writes();
    let reading = host.read(Reader::verb(NETWORK, false));
    assert_eq!(host.did, ["begin", "join", "note", "read"]);
    assert_eq!(Some(reading.under), host.join);
}

#[test]
fn a_sync_joins_anew_where_the_store_does_not_know_the_join_or_is_older() {
    let mut host = Fake::member(4, 0);
    host.read(Reader::sync(NETWORK, Doubt::Some));
    assert_eq!(host.did, ["load", "read"]);
    let mut host = Fake::member(4, 0);
    host.join = None;
    host.read(Reader::sync(NETWORK, Doubt::Some));
    assert_eq!(host.did, ["load", "read", "begin", "join", "note", "read"]);
    // It has acknowledged what the store has no more.
    let mut host = Fake::member(4, 9);
    host.read(Reader::sync(NETWORK, Doubt::None));
    assert_eq!(host.did, ["begin", "read", "begin", "join", "note", "read"]);
}

#[test]
fn a_node_whose_record_the_store_lost_is_known_while_it_owns_a_block() {
    let mut host = Fake::member(4, 0);
    let mut copy = snapshot(6);
    copy.nodes.extend([node("removed")]);
    host.copy = Some(copy);
    host.snapshot.nodes = Records::default();
    // The copy of a second reading comes from the first one.
    for _ in 0..2 {
        let reading = host.read(Reader::verb(NETWORK, false));
        let known = |name: &str| reading.snapshot.nodes.get(name).and_then(Stored::last_read);
        assert_eq!(known("there"), Some(&node("there").1.record));
        assert_eq!(known("removed"), None);
        assert_eq!(reading.snapshot.blocks, host.snapshot.blocks);
        host.run(Forwarder::sync(NETWORK, NODE, reading)).unwrap();
    }
    host.snapshot.nodes = Records::from([node("there")]);
    host.did.clear();
    let reading = host.read(Reader::verb(NETWORK, false));
    assert_eq!(host.did, ["begin", "read"]);
    assert_eq!(reading.snapshot.nodes, host.snapshot.nodes);
}

#[test]
fn the_acknowledgement_comes_last() {
    let mut host = Fake::member(4, 0);
    let reading = host.read(Reader::verb(NETWORK, false));
    host.did.clear();
    let changed = host.run(Forwarder::sync(NETWORK, NODE, reading)).unwrap();
    assert_eq!(changed, Some(1));
    assert_eq!(host.did, ["apply", "keep", "note", "acknowledge", "note"]);
    assert_eq!(host.floods, Some(false));
    assert_eq!(host.membership.unwrap().own, Some(ack(11, 7)));
}

#[test]
fn what_was_read_before_the_store_forgot_the_join_is_read_again_and_floods_in_the_end() {
    let mut host = Fake::member(4, 0);
    let reading = host.read(Reader::verb(NETWORK, false));
    host.forgets = 1;
    host.run(Forwarder::sync(NETWORK, NODE, reading.clone()))
        .unwrap();
    assert_eq!(host.floods, Some(false));
    assert_eq!(host.did.iter().filter(|did| **did == "apply").count(), 2);
    host.forgets = u32::MAX;
    let again = host.read(Reader::verb(NETWORK, false));
    host.run(Forwarder::sync(NETWORK, NODE, again)).unwrap();
    assert_eq!(host.floods, Some(true));
    assert!(!host.membership.unwrap().follows);
}

#[test]
fn with_the_store_away_a_member_keeps_its_copy_and_another_host_floods() {
    let known = Known {
        snapshot: snapshot(7),
        copied: true,
        registered: false,
    };
    let addresses = ["10.1.0.9".parse().unwrap()];
    let plugged = Plugged {
        addresses: &addresses,
        mac: None,
    };
    for (is_member, floods) in [(true, false), (false, true)] {
        let mut host = if is_member {
            Fake::member(4, 7)
        } else {
            Fake::new()
        };
        (host.is_away, host.copy) = (true, Some(snapshot(7)));
        let update = host.run(Reader::verb(NETWORK, !is_member)).unwrap();
        assert!(matches!(update, Update::StoreAway(_)));
        let step = Forwarder::add(NETWORK, NODE, update, &known, plugged, true).unwrap();
        host.run(step).unwrap();
        assert_eq!(host.floods, Some(floods));
        // The container got an address that the copy has elsewhere: it stays here.
        let local = host.membership.map(|member| member.local);
        assert_eq!(local.map(|it| it.len()), Some(1));
    }
}

#[test]
fn a_sync_without_a_snapshot_floods_where_the_host_is_no_member() {
    let mut host = Fake::member(4, 7);
    host.copy = Some(snapshot(7));
    host.run(Forwarder::sync_alone(NETWORK, NODE)).unwrap();
    assert_eq!(host.floods, None);
    host.has_network = false;
    let update = host.run(Reader::sync(NETWORK, Doubt::Certain)).unwrap();
    assert!(matches!(update, Update::Replaced));
    host.run(Forwarder::sync_alone(NETWORK, NODE)).unwrap();
    assert_eq!(host.floods, Some(true));
}

#[test]
fn an_add_reads_again_where_something_was_applied_since() {
    let known = Known {
        snapshot: snapshot(6),
        copied: true,
        registered: false,
    };
    let plugged = Plugged {
        addresses: &[],
        mac: None,
    };
    for (copy, reads) in [(snapshot(6), 1), (snapshot(7), 1), (snapshot(8), 2)] {
        let mut host = Fake::member(4, 0);
        let update = host.run(Reader::verb(NETWORK, false)).unwrap();
        host.copy = Some(copy);
        let step = Forwarder::add(NETWORK, NODE, update, &known, plugged, true).unwrap();
        assert!(host.run(step).unwrap().is_some());
        assert_eq!(host.did.iter().filter(|did| **did == "read").count(), reads);
    }
}

#[test]
fn a_leave_ends_the_join_that_it_knows_and_no_later_one() {
    let mut host = Fake::member(4, 0);
    Change::Leave.apply(&mut host.membership);
    host.run(Leaver::verb()).unwrap();
    assert_eq!(host.did, ["load", "leave", "note"]);
    assert_eq!((host.join, host.membership), (None, None));
    // Another verb joins while the store is told.
    let mut host = Fake::member(4, 0);
    host.read(Reader::verb(NETWORK, true));
    let before = host.membership.clone();
    Change::Left(4).apply(&mut host.membership);
    assert_eq!(host.membership, before);
    // Of a killed join the revision is not known.
    let mut host = Fake::new();
    host.membership = Some(Membership {
        left: true,
        ..Membership::default()
    });
    host.run(Leaver::verb()).unwrap();
    assert_eq!(host.did, ["load", "join", "note", "leave", "note"]);
    assert_eq!((host.join, host.membership), (None, None));
}

#[test]
fn a_machine_takes_no_answer_to_what_it_did_not_ask() {
    for input in [Input::Done, Input::Applied(3), Input::NoNetwork] {
        let Step::Next(machine) = Reader::verb(NETWORK, false) else {
            panic!("it begins with an output")
        };
        machine.input(input).unwrap_err();
    }
}
