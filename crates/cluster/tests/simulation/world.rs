//! The state of a run: hosts with their clocks and documents, the store, the faults between them, the containers, and the
//! running processes. Only `line.rs` lets a process reach the store.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::IpAddr,
    rc::Rc,
};

use cluster::{Layout, LeaseOwner, Ledger, LocalLease, Memory};

use crate::{
    executor::{Executor, FairLock, TaskId},
    forwarding::Forwarding,
    invariants::Violation,
    lies::Planted,
    line::Parked,
    model::Model,
    random::Random,
    scenario::Scenario,
};

/// One run.
pub struct World {
    pub executor: Executor,
    pub random: RefCell<Random>,
    pub scenario: Scenario,
    pub layout: Layout,
    pub store: RefCell<Model>,
    pub parked: RefCell<Vec<Parked>>,
    pub weather: RefCell<Weather>,
    hosts: Vec<RefCell<Host>>,
    /// What operators do.
    operators: RefCell<Vec<Rc<Process>>>,
    /// Which container uses which address, by the container's own view.
    pub running: RefCell<BTreeMap<IpAddr, (usize, LeaseOwner)>>,
    pub violation: RefCell<Option<Violation>>,
    /// How many removals of each network were started, and how many are under way.
    pub removals: RefCell<BTreeMap<&'static str, (u64, u64)>>,
    /// The most requests to the store that a verb of this kind made undisturbed.
    pub tally: RefCell<BTreeMap<&'static str, u32>>,
    trace: Option<RefCell<Vec<String>>>,
    processes: Cell<u64>,
    /// The run is over.
    pub ended: Cell<bool>,
}

/// The faults between hosts and store.
#[derive(Default)]
pub struct Weather {
    /// No fault happens.
    pub calm: bool,
    /// The store does not serve.
    pub away: bool,
    /// Hosts that cannot reach it.
    pub cut_off: BTreeSet<usize>,
    /// Counts restores: a restore drops the requests under way.
    pub epoch: u64,
    /// The store was restored and not all hosts have synced since.
    pub forgotten: bool,
    /// No new verbs now.
    pub hold: bool,
    /// A network was removed while containers ran on it that the store did not know. These are no longer checked.
    pub stranded: bool,
}

/// A host. A reboot clears the fields below `up`.
#[derive(Default)]
pub struct Host {
    pub name: String,
    /// Counts boots.
    pub boot: u64,
    /// Milliseconds of the simulation at which it booted.
    pub booted: u64,
    /// How fast its clock gains, in millionths.
    pub drift: u64,
    /// Seconds by which its calendar is wrong.
    pub calendar: i64,
    /// An operator is removing it from the cluster.
    pub removing: bool,
    pub up: bool,
    pub processes: Vec<Rc<Process>>,
    /// Its documents of each network.
    pub parts: BTreeMap<&'static str, Part>,
    /// Attachments for which the runtime owes a DEL, running or not.
    pub owed: BTreeSet<LeaseOwner>,
    /// Attachments with a verb at work: the lock on the attachment.
    pub busy: BTreeMap<LeaseOwner, u64>,
}

/// A host's documents of one network, with their locks.
#[derive(Default)]
pub struct Part {
    pub ledger: Option<Ledger>,
    pub local_leases: BTreeMap<LeaseOwner, LocalLease>,
    pub memory: Memory,
    pub lock: FairLock,
    pub claims: FairLock,
    pub forwarding: Forwarding,
}

impl Part {
    /// Whether a sync has to look after the network.
    pub fn is_used(&self) -> bool {
        self.ledger.is_some() || !self.local_leases.is_empty()
    }
}

/// A verb at work; an operator's verb has no host.
pub struct Process {
    pub id: u64,
    pub host: Option<usize>,
    pub kind: &'static str,
    alive: Cell<bool>,
    task: Cell<TaskId>,
    /// Requests to the store so far.
    pub calls: Cell<u32>,
    /// A fault affected it.
    pub disturbed: Cell<bool>,
    /// Milliseconds for which it has waited for an unreachable store.
    pub spent: Cell<u64>,
}

impl Host {
    /// Its documents of a network.
    pub fn part(&self, network: &str) -> &Part {
        &self.parts[network]
    }

    /// The same, for change.
    pub fn part_mut(&mut self, network: &str) -> &mut Part {
        self.parts.get_mut(network).unwrap()
    }
}

impl Process {
    pub fn is_alive(&self) -> bool {
        self.alive.get()
    }
}

impl World {
    pub fn new(seed: u64, planted: Option<Planted>, tracing: bool) -> Rc<Self> {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random, planted);
        let hosts = (0..scenario.hosts).map(|index| {
            RefCell::new(Host {
                name: format!("n{index}"),
                drift: random.below(200),
                parts: scenario
                    .networks()
                    .iter()
                    .map(|network| (*network, Part::default()))
                    .collect(),
                ..Host::default()
            })
        });
        let hosts = hosts.collect();
        let world = Rc::new(Self {
            executor: Executor::default(),
            random: RefCell::new(random),
            scenario,
            layout: Layout::new("sim").unwrap(),
            store: RefCell::new(Model::new()),
            parked: RefCell::default(),
            weather: RefCell::default(),
            hosts,
            operators: RefCell::default(),
            running: RefCell::default(),
            violation: RefCell::default(),
            removals: RefCell::default(),
            tally: RefCell::default(),
            trace: tracing.then(RefCell::default),
            processes: Cell::new(0),
            ended: Cell::new(false),
        });
        world.say(|| format!("{:?}", world.scenario));
        world
    }

    pub fn host(&self, index: usize) -> Ref<'_, Host> {
        self.hosts[index].borrow()
    }

    pub fn host_mut(&self, index: usize) -> RefMut<'_, Host> {
        self.hosts[index].borrow_mut()
    }

    pub fn hosts(&self) -> std::ops::Range<usize> {
        0..self.hosts.len()
    }

    /// Hosts that run, in a random order.
    pub fn live(&self) -> Vec<usize> {
        let mut live: Vec<_> = self.hosts().filter(|host| self.host(*host).up).collect();
        self.random.borrow_mut().shuffle(&mut live);
        live
    }

    pub fn chance(&self, permille: u64) -> bool {
        self.random.borrow_mut().chance(permille)
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    /// Whether a fault happens now.
    pub fn strikes(&self, permille: u64) -> bool {
        permille > 0 && !self.weather.borrow().calm && self.chance(permille)
    }

    /// One more line of the trace, if there is one.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let now = self.executor.now();
            trace
                .borrow_mut()
                .push(format!("{:>6}.{:03} {}", now / 1000, now % 1000, line()));
        }
    }

    pub fn trace(&self) -> Vec<String> {
        self.trace
            .as_ref()
            .map(|trace| trace.borrow().clone())
            .unwrap_or_default()
    }

    /// Notes the first invariant that was broken.
    pub fn accuse(&self, violation: impl FnOnce() -> Violation) {
        let mut found = self.violation.borrow_mut();
        if found.is_none() {
            let violation = violation();
            self.say(|| format!("VIOLATION {violation}"));
            *found = Some(violation);
        }
    }

    /// Starts a process that runs `act`.
    pub fn start<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        host: Option<usize>,
        kind: &'static str,
        act: impl FnOnce(Rc<Process>) -> F,
    ) -> Rc<Process> {
        self.processes.set(self.processes.get() + 1);
        let process = Rc::new(Process {
            id: self.processes.get(),
            host,
            kind,
            alive: Cell::new(true),
            task: Cell::new(0),
            calls: Cell::new(0),
            disturbed: Cell::new(false),
            spent: Cell::new(0),
        });
        match host {
            Some(host) => self.host_mut(host).processes.push(process.clone()),
            None => self.operators.borrow_mut().push(process.clone()),
        }
        // A verb is a large future: boxed at once, it is not moved again.
        let act = Box::pin(act(process.clone()));
        let (world, own) = (self.clone(), process.clone());
        process.task.set(self.executor.spawn(async move {
            act.await;
            world.buried(&own);
        }));
        process
    }

    /// Kills a process where it is. What it has sent stays under way.
    pub fn kill(&self, process: &Process) {
        if process.is_alive() {
            self.say(|| format!("{} dies", self.spell(process)));
            self.buried(process);
            self.executor.abort(process.task.get());
        }
    }

    fn buried(&self, process: &Process) {
        process.alive.set(false);
        if let Some(host) = process.host {
            let mut host = self.host_mut(host);
            host.processes.retain(|other| other.id != process.id);
            host.busy.retain(|_, owner| *owner != process.id);
        } else {
            let mut operators = self.operators.borrow_mut();
            operators.retain(|other| other.id != process.id);
        }
    }

    /// All verbs at work except removals of nodes, which wait for more than their own end.
    pub fn at_work(&self) -> Vec<Rc<Process>> {
        let hosts = self
            .hosts()
            .flat_map(|host| self.host(host).processes.clone());
        let operators = self.operators.borrow();
        let removals = operators.iter().filter(|it| it.kind == "network rm");
        hosts.chain(removals.cloned()).collect()
    }

    /// A process in the trace.
    pub fn spell(&self, process: &Process) -> String {
        let host = process
            .host
            .map_or("operator".to_owned(), |host| format!("n{host}"));
        format!("{host} {}#{}", process.kind, process.id)
    }

    /// Whether any verb is at work anywhere.
    pub fn is_busy(&self) -> bool {
        !self.at_work().is_empty()
    }

    /// Whether a host cannot reach the store.
    pub fn is_cut_off(&self, index: usize) -> bool {
        let weather = self.weather.borrow();
        weather.away || weather.cut_off.contains(&index)
    }

    /// A host starts, with nothing in its memory.
    pub fn boot(&self, index: usize) {
        let mut host = self.host_mut(index);
        *host = Host {
            name: std::mem::take(&mut host.name),
            boot: host.boot + 1,
            booted: self.executor.now(),
            drift: host.drift,
            calendar: host.calendar,
            up: true,
            parts: (self.scenario.networks().iter())
                .map(|network| (*network, Part::default()))
                .collect(),
            ..Host::default()
        };
        self.say(|| format!("{} boots, boot {}", host.name, host.boot));
    }

    /// A host stops at once, with all that is on it.
    pub fn power_off(&self, index: usize) {
        self.say(|| format!("n{index} is dead"));
        let processes = self.host(index).processes.clone();
        for process in processes {
            self.kill(&process);
        }
        self.running
            .borrow_mut()
            .retain(|_, (host, _)| *host != index);
        let mut host = self.host_mut(index);
        host.up = false;
        for part in host.parts.values_mut() {
            part.forwarding = Forwarding::default();
        }
        host.owed.clear();
    }
}
