//! The connection between a process and the store: messages take time, can be lost in both directions, and can arrive after
//! their sender died; the sender can die or sleep at any of these points.

use std::{rc::Rc, time::Duration};

use async_trait::async_trait;
use store::{Entry, Error, Key, Op, Outcome, Snapshot, Store};

use crate::{
    executor::{Give, slot},
    world::{Process, World},
};

/// Milliseconds for which a verb waits for an unreachable store, in all (`store::Config::timeout`).
const BUDGET: u64 = 10_000;
/// Milliseconds after which one attempt is given up.
const ATTEMPT: u64 = 5_000;
/// Milliseconds after which a verb gives up if nothing listens at the store's address.
const REFUSED: u64 = 1_500;

/// A process's store.
pub struct Line {
    pub world: Rc<World>,
    pub process: Rc<Process>,
}

#[derive(Clone)]
enum Request {
    Read(Vec<Key>),
    Apply(Vec<Op>),
    Watch(Key, u64, Duration),
}

enum Answer {
    Entries(Vec<Entry>),
    Outcome(Outcome),
    Snapshot(Snapshot),
}

type Reply = Give<Result<Answer, Error>>;

/// A watch that waits in the store.
pub struct Parked {
    prefix: Key,
    index: u64,
    letter: Letter,
}

/// A request under way, with all that will happen to it.
struct Letter {
    request: Request,
    process: Rc<Process>,
    reply: Reply,
    epoch: u64,
    back: u64,
    lost_request: bool,
    lost_answer: bool,
    dies_after: bool,
    stall: u64,
    /// It arrives this long after the sender gave up.
    late: Option<u64>,
}

fn gone(cause: &str) -> Error {
    Error::Unreachable {
        url: "sim:".into(),
        cause: cause.into(),
    }
}

fn silence() -> Error {
    Error::Timeout {
        url: "sim:".into(),
        after: Duration::from_millis(ATTEMPT),
        cause: "an answer".into(),
    }
}

impl Line {
    async fn call(&self, request: Request) -> Result<Answer, Error> {
        let (world, process) = (&self.world, &self.process);
        if !process.is_alive() {
            std::future::pending::<()>().await;
        }
        process.calls.set(process.calls.get() + 1);
        if process.spent.get() >= BUDGET {
            return Err(silence());
        }
        let faults = &world.scenario.faults;
        let crashes = world.strikes(faults.crash);
        let kind = world.below(3);
        if crashes && kind == 0 {
            world.kill(process);
            std::future::pending::<()>().await;
        }
        let (reply, answer) = slot();
        let draw = |fault: u64, most: u64| {
            let strikes = world.strikes(fault);
            strikes.then(|| 1 + world.random.borrow_mut().skewed(most))
        };
        let late = draw(faults.late, 60_000);
        let stall = draw(faults.stall, 1_000_000).unwrap_or(0);
        let back = world.random.borrow_mut().skewed(world.scenario.delay);
        let letter = Letter {
            request,
            process: process.clone(),
            reply,
            epoch: world.weather.borrow().epoch,
            back,
            lost_request: world.strikes(faults.lost_request),
            lost_answer: world.strikes(faults.lost_answer),
            dies_after: crashes && kind == 1,
            stall,
            late,
        };
        let there = world.random.borrow_mut().skewed(world.scenario.delay);
        let (carrier, process_too) = (world.clone(), process.clone());
        world.executor.after(there, move || carrier.arrive(letter));
        if crashes && kind == 2 {
            world.kill(&process_too);
            std::future::pending::<()>().await;
        }
        answer.await
    }
}

impl World {
    /// A request has reached the store, or the place where it is lost.
    fn arrive(self: &Rc<Self>, letter: Letter) {
        let away = match letter.process.host {
            Some(host) => self.is_cut_off(host),
            None => self.weather.borrow().away,
        };
        let epoch = self.weather.borrow().epoch;
        if away || epoch != letter.epoch {
            return self.fail(letter, REFUSED, gone("nothing listens"));
        }
        if letter.lost_request {
            if let Some(late) = letter.late {
                self.again(late, &letter);
            }
            return self.fail(letter, ATTEMPT, silence());
        }
        if let Request::Watch(prefix, index, wait) = &letter.request
            && *index > 0
            && self.store.borrow().last_change(prefix) <= *index
        {
            let (prefix, index, wait) = (prefix.clone(), *index, wait.as_millis());
            let id = Rc::downgrade(&letter.process);
            let number = letter.process.calls.get();
            self.parked.borrow_mut().push(Parked {
                prefix,
                index,
                letter,
            });
            let world = self.clone();
            let wait = u64::try_from(wait).unwrap_or(u64::MAX / 2);
            return self.executor.after(wait, move || {
                world.unpark(|parked| {
                    parked.letter.process.calls.get() == number
                        && std::ptr::eq(Rc::as_ptr(&parked.letter.process), id.as_ptr())
                });
            });
        }
        self.serve(letter);
    }

    fn serve(self: &Rc<Self>, letter: Letter) {
        let answer = self.perform(&letter.request, &letter.process);
        if letter.dies_after {
            self.kill(&letter.process);
        }
        if letter.lost_answer {
            return self.fail(letter, ATTEMPT, silence());
        }
        if letter.stall > 0 {
            self.say(|| {
                format!(
                    "{} sleeps for {} ms",
                    self.spell(&letter.process),
                    letter.stall
                )
            });
        }
        let world = self.clone();
        self.executor.after(letter.back + letter.stall, move || {
            let weather = world.weather.borrow();
            let cut = letter
                .process
                .host
                .is_some_and(|host| weather.cut_off.contains(&host));
            // A process that sleeps has its answer already: it is in the socket.
            let broken = (cut || weather.away) && letter.stall == 0;
            drop(weather);
            if broken {
                return world.fail(letter, ATTEMPT, silence());
            }
            letter.reply.give(Ok(answer));
        });
    }

    /// The sender notices after a while that it failed.
    fn fail(self: &Rc<Self>, letter: Letter, wait: u64, error: Error) {
        let process = letter.process;
        process.disturbed.set(true);
        process.spent.set(process.spent.get() + wait);
        let (world, reply) = (self.clone(), letter.reply);
        self.executor.after(wait + letter.stall, move || {
            world.say(|| format!("{}: {error}", world.spell(&process)));
            reply.give(Err(error));
        });
    }

    /// A write arrives although its sender gave up.
    fn again(self: &Rc<Self>, delay: u64, letter: &Letter) {
        if !matches!(letter.request, Request::Apply(_)) {
            return;
        }
        let (world, process, request) =
            (self.clone(), letter.process.clone(), letter.request.clone());
        let epoch = letter.epoch;
        self.executor.after(delay, move || {
            let weather = world.weather.borrow();
            let reachable = !weather.away && weather.epoch == epoch && !weather.calm;
            drop(weather);
            if reachable {
                world.say(|| format!("a late request of {} arrives", world.spell(&process)));
                world.perform(&request, &process);
            }
        });
    }

    fn perform(self: &Rc<Self>, request: &Request, process: &Process) -> Answer {
        match request {
            Request::Read(prefixes) => Answer::Entries(self.store.borrow().within(prefixes)),
            Request::Watch(prefix, ..) => {
                let store = self.store.borrow();
                Answer::Snapshot(Snapshot {
                    entries: store.within(std::slice::from_ref(prefix)),
                    index: store.last_change(prefix).max(1),
                })
            }
            Request::Apply(ops) => {
                if self.store.borrow().conflict(ops).is_none() {
                    self.check_write(ops, process);
                }
                let outcome = self.store.borrow_mut().apply(ops);
                if matches!(outcome, Outcome::Done(_)) {
                    self.check_order(ops, process);
                }
                self.say(|| {
                    let ops: Vec<_> = ops.iter().map(spell).collect();
                    format!("{}: {} -> {outcome:?}", self.spell(process), ops.join(", "))
                });
                if matches!(outcome, Outcome::Done(_)) {
                    self.unpark(|parked| {
                        self.store.borrow().last_change(&parked.prefix) > parked.index
                    });
                }
                Answer::Outcome(outcome)
            }
        }
    }

    /// Answers the watches of which this is true.
    fn unpark(self: &Rc<Self>, of: impl Fn(&Parked) -> bool) {
        let all = std::mem::take(&mut *self.parked.borrow_mut());
        let (awake, asleep): (Vec<_>, Vec<_>) = all.into_iter().partition(of);
        self.parked.borrow_mut().extend(asleep);
        for parked in awake {
            self.serve(parked.letter);
        }
    }
}

fn spell(op: &Op) -> String {
    let text = |value: &[u8]| String::from_utf8_lossy(value).replace("\"schema\":1,", "");
    let key = op.key().as_str().trim_start_matches("sim/v1/").to_owned();
    match op {
        Op::Create { value, .. } => format!("create {key} {}", text(value)),
        Op::Swap {
            value, revision, ..
        } => format!("swap {key}@{revision} {}", text(value)),
        Op::Delete { revision, .. } => format!("delete {key}@{revision}"),
        Op::Check { revision, .. } => format!("check {key}@{revision}"),
    }
}

#[async_trait(?Send)]
impl Store for Line {
    async fn read(&self, prefixes: &[Key]) -> Result<Vec<Entry>, Error> {
        match self.call(Request::Read(prefixes.to_vec())).await? {
            Answer::Entries(entries) => Ok(entries),
            _ => unreachable!("a read is answered with entries"),
        }
    }

    async fn apply(&self, ops: &[Op]) -> Result<Outcome, Error> {
        assert!(
            ops.len() <= store::MAX_OPS,
            "{} operations in one transaction",
            ops.len()
        );
        match self.call(Request::Apply(ops.to_vec())).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            _ => unreachable!("a write is answered with its outcome"),
        }
    }

    async fn watch(&self, prefix: &Key, index: u64, wait: Duration) -> Result<Snapshot, Error> {
        match self
            .call(Request::Watch(prefix.clone(), index, wait))
            .await?
        {
            Answer::Snapshot(snapshot) => Ok(snapshot),
            _ => unreachable!("a watch is answered with a snapshot"),
        }
    }
}
