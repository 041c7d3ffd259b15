//! The verbs as processes: what a plugin does around the allocator, in its order.

use std::{net::IpAddr, rc::Rc, time::Duration};

use cluster::{
    Allocator, Cluster, Error, ErrorKind, Host, LeaseOwner, NetworkSpec, Request,
    forwarder::{Known, Plugged, Update},
};
use ipam::Mac;

use crate::{
    executor::Give,
    forwarding::Driver,
    invariants::Violation,
    lies::LyingStore,
    line::Line,
    scenario::network_of,
    site::{EPOCH, Site},
    world::{Process, World},
};

/// How often an ADD begins.
const ATTEMPTS: u32 = 3;

/// The result of a verb, for the task that started it.
pub type Ended = Give<Result<Vec<IpAddr>, String>>;

/// What a process works with.
struct Bench {
    store: LyingStore,
    site: Site,
    host: Host,
}

impl Bench {
    fn new(world: &Rc<World>, process: &Rc<Process>, index: usize) -> Self {
        let store = store_of(world, process);
        let site = Site {
            world: world.clone(),
            process: process.clone(),
            index,
        };
        let host = site.host();
        Self { store, site, host }
    }

    fn cluster(&self) -> Cluster<'_> {
        Cluster::new(&self.store, self.site.world.layout.clone())
    }

    fn allocator<'a>(&'a self, cluster: &'a Cluster<'a>, network: &'a str) -> Allocator<'a> {
        let scenario = &self.site.world.scenario;
        Allocator {
            cluster,
            local_store: &self.site,
            clock: &self.site,
            host: &self.host,
            network,
            patience: Duration::from_millis(scenario.patience),
            cool_down: scenario.cool_down,
        }
    }

    /// Never returns in a process that died.
    async fn survive(&self) {
        if !self.site.process.is_alive() {
            std::future::pending::<()>().await;
        }
    }
}

fn store_of(world: &Rc<World>, process: &Rc<Process>) -> LyingStore {
    LyingStore {
        line: Line {
            world: world.clone(),
            process: process.clone(),
        },
        planted: world.scenario.planted,
    }
}

/// ADD of an attachment that has no other verb at work.
pub fn add(
    world: &Rc<World>,
    host: usize,
    owner: LeaseOwner,
    requested: Vec<IpAddr>,
    ended: Option<Ended>,
) {
    let w = world.clone();
    let container = owner.clone();
    let process = world.start(Some(host), "ADD", move |process| async move {
        w.say(|| format!("{} {} {requested:?}", w.spell(&process), owner.container));
        let bench = Bench::new(&w, &process, host);
        let added = adding(&w, &bench, &owner, &requested).await;
        bench.survive().await;
        w.report(&process, added, ended);
    });
    let mut state = world.host_mut(host);
    state.owed.insert(container.clone());
    state.busy.insert(container, process.id);
}

/// The MAC that a container requests, if it does: one of a few, so that containers on other hosts request it, too. None with a
/// planted bug, because that must show in addresses.
pub fn asked_mac(w: &World, owner: &LeaseOwner) -> Option<Mac> {
    let last = owner.container.bytes().last()?;
    let asks = owner.container.starts_with('c') && last < b'2';
    let asks = asks && w.scenario.planted.is_none();
    asks.then_some(Mac([2, 1, 0, 0, 0, last]))
}

/// Like the plugins: if an ADD fails, what it made is removed; if its network was replaced meanwhile, it begins again.
async fn adding(
    w: &World,
    bench: &Bench,
    owner: &LeaseOwner,
    requested: &[IpAddr],
) -> Result<Vec<IpAddr>, Error> {
    let (cluster, network) = (bench.cluster(), network_of(owner));
    let allocator = bench.allocator(&cluster, network);
    let driver = Driver::new(w, &cluster, &bench.site, network);
    for _ in 0..ATTEMPTS {
        let added = attempt(w, bench, &allocator, &driver, owner, requested).await;
        bench.survive().await;
        if let Ok(Some(addresses)) = added {
            return Ok(addresses);
        }
        allocator.note_gone(owner).await?;
        let released = allocator.release(owner).await;
        bench.survive().await;
        if w.scenario.forwards {
            driver.leave(owner).await;
        }
        added?;
        released?;
    }
    Err(Error::Busy(format!("network {network}: made anew again")))
}

/// One attempt; `None` if the network is another one by now.
async fn attempt(
    w: &World,
    bench: &Bench,
    allocator: &Allocator<'_>,
    driver: &Driver<'_>,
    owner: &LeaseOwner,
    requested: &[IpAddr],
) -> Result<Option<Vec<IpAddr>>, Error> {
    // The id of a new network is unique, even if a network of that name was lost.
    let site = &bench.site;
    let mut spec = w.scenario.spec(network_of(owner)).clone();
    spec.id = spec.id.map(|id| format!("{id}-{}", site.process.id));
    let read = if w.scenario.forwards {
        Some(reading(w, driver, &spec, owner).await?)
    } else {
        None
    };
    let request = Request {
        spec: &spec,
        owner: owner.clone(),
        name: None,
        requested,
        mac: asked_mac(w, owner),
        narrow: &[],
    };
    let leased = allocator.add(&request).await?;
    bench.survive().await;
    if w.strikes(w.scenario.faults.untold) {
        w.say(|| format!("{}: nobody listens", w.spell(&site.process)));
        return Err(Error::Busy("nobody listens".into()));
    }
    allocator.told(owner).await?;
    bench.survive().await;
    let id = leased.network.id.as_deref().unwrap_or_default();
    let is_stranded = w.store.borrow().removed_networks.contains(id);
    if is_stranded {
        // Given out by a host that could not reach the store and could not know.
        w.weather.borrow_mut().stranded = true;
    }
    // A caller waits for the end of the process: if that dies before, it has failed for the caller, even after an answer.
    let runs = || {
        if !is_stranded {
            w.run(site.index, owner, &leased.addresses);
        }
    };
    if read.is_none() {
        runs();
    }
    let tended = allocator.housekeeping().await;
    bench.survive().await;
    match tended {
        Err(error) if !error.is_away() => return Err(error),
        _ => {}
    }
    if let Some((known, update)) = read {
        let plugged = Plugged {
            addresses: &leased.addresses,
            mac: request.mac,
        };
        if !driver.forward(update, &known, plugged).await? {
            return Ok(None);
        }
        bench.survive().await;
        runs();
    }
    Ok(Some(leased.addresses.clone()))
}

/// The interface plugin's part of an ADD, beside its IPAM plugin.
async fn reading(
    w: &World,
    driver: &Driver<'_>,
    spec: &NetworkSpec,
    owner: &LeaseOwner,
) -> Result<(Known, Update), Error> {
    let known = driver.known(spec).await?;
    // Side by side in the plugin.
    let enters_first = w.chance(500);
    if enters_first {
        driver.enter(owner).await;
    }
    let update = driver.fresh(&known).await?;
    if !enters_first {
        driver.enter(owner).await;
    }
    Ok((known, update))
}

/// DEL of an attachment that exists or existed.
pub fn del(world: &Rc<World>, host: usize, owner: LeaseOwner, ended: Option<Ended>) {
    let w = world.clone();
    let container = owner.clone();
    let process = world.start(Some(host), "DEL", move |process| async move {
        w.say(|| format!("{} {}", w.spell(&process), owner.container));
        let bench = Bench::new(&w, &process, host);
        w.stop(host, &owner);
        let deleted = deleting(&w, &bench, &owner).await;
        bench.survive().await;
        if deleted.is_ok() {
            w.host_mut(host).owed.remove(&owner);
        }
        w.report(&process, deleted.map(|()| Vec::new()), ended);
    });
    world.host_mut(host).busy.insert(container, process.id);
}

async fn deleting(w: &World, bench: &Bench, owner: &LeaseOwner) -> Result<(), Error> {
    let cluster = bench.cluster();
    let allocator = bench.allocator(&cluster, network_of(owner));
    allocator.note_gone(owner).await?;
    let released = allocator.release(owner).await;
    let tended = allocator.housekeeping().await;
    bench.survive().await;
    if w.scenario.forwards {
        let driver = Driver::new(w, &cluster, &bench.site, network_of(owner));
        driver.leave(owner).await;
        bench.survive().await;
    }
    // What the store could not be told is noted: the DEL has succeeded.
    match released.and(tended) {
        Err(error) if !error.is_away() => Err(error),
        _ => Ok(()),
    }
}

/// GC: releases what the runtime does not list. It lists running containers; it may not know yet those that are just being
/// added.
pub fn gc(world: &Rc<World>, host: usize, network: &'static str, ended: Option<Ended>) {
    let w = world.clone();
    world.start(Some(host), "GC", move |process| async move {
        w.say(|| w.spell(&process));
        let bench = Bench::new(&w, &process, host);
        let cluster = bench.cluster();
        let allocator = bench.allocator(&cluster, network);
        let listed = |owner: &LeaseOwner| w.running_on(host).contains(owner);
        let collected = allocator.gc(&listed).await;
        let tended = allocator.housekeeping().await;
        bench.survive().await;
        let failed = collected.map(|failures| failures.into_iter().next());
        let collected = match failed {
            Ok(None) => tended,
            Ok(Some(error)) | Err(error) => Err(error),
        };
        w.report(&process, collected.map(|()| Vec::new()), ended);
    });
}

/// `crosshost sync`, or its watcher.
pub fn sync(world: &Rc<World>, host: usize, ended: Option<Ended>) {
    let w = world.clone();
    world.start(Some(host), "sync", move |process| async move {
        w.say(|| w.spell(&process));
        let bench = Bench::new(&w, &process, host);
        let synced = syncing(&w, &bench).await;
        bench.survive().await;
        w.report(&process, synced.map(|()| Vec::new()), ended);
    });
}

/// All networks of the store, and those of which only the host has documents.
async fn syncing(w: &World, bench: &Bench) -> Result<(), Error> {
    let (cluster, site) = (bench.cluster(), &bench.site);
    let node_view = cluster.node_view(&bench.host.node).await?;
    let mut synced = Ok(());
    for network in w.scenario.networks().iter().copied() {
        if w.host(site.index).part(network).is_used() || node_view.networks.contains(network) {
            let done = bench.allocator(&cluster, network).sync().await;
            bench.survive().await;
            let done = match done.map(|failures| failures.into_iter().next()) {
                Ok(None) => Ok(()),
                Ok(Some(error)) | Err(error) => Err(error),
            };
            synced = synced.and(done);
        }
        if w.scenario.forwards {
            let join = node_view.joins.get(network).copied();
            let followed = Driver::new(w, &cluster, site, network).sync(join).await;
            bench.survive().await;
            synced = synced.and(followed);
        }
    }
    w.register(&cluster, site).await?;
    synced
}

/// `crosshost network rm`.
pub fn remove_network(world: &Rc<World>, network: &'static str, ended: Option<Ended>) {
    let w = world.clone();
    world.start(None, "network rm", move |process| async move {
        w.say(|| format!("{} {network}", w.spell(&process)));
        let store = store_of(&w, &process);
        let cluster = Cluster::new(&store, w.layout.clone());
        let removal = Removal::begins(&w, network);
        let removed = match cluster.remove_network(network, seconds(&w)).await {
            Err(Error::NoNetwork(_)) => Ok(()),
            Ok(()) => {
                // What another removal leaves, of a network of that name that was created meanwhile, does not count.
                if removal.was_alone() {
                    w.check_removed(network);
                }
                Ok(())
            }
            removed => removed,
        };
        drop(removal);
        w.report(&process, removed.map(|()| Vec::new()), ended);
    });
}

/// Counts a removal under way, until it ends or is killed.
struct Removal {
    world: Rc<World>,
    network: &'static str,
    number: u64,
    beside: bool,
}

impl Removal {
    fn begins(world: &Rc<World>, network: &'static str) -> Self {
        let mut removals = world.removals.borrow_mut();
        let (begun, under_way) = removals.entry(network).or_default();
        let beside = *under_way > 0;
        *begun += 1;
        *under_way += 1;
        Self {
            world: world.clone(),
            network,
            number: *begun,
            beside,
        }
    }

    /// Whether no other removal of that name was under way at any moment of this one.
    fn was_alone(&self) -> bool {
        !self.beside && self.world.removals.borrow()[self.network].0 == self.number
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if let Some((_, under_way)) = self.world.removals.borrow_mut().get_mut(self.network) {
            *under_way -= 1;
        }
    }
}

/// `crosshost node rm --force`, of a host that is down.
pub fn remove_node(world: &Rc<World>, host: usize, ended: Option<Ended>) {
    world.host_mut(host).removing = true;
    let w = world.clone();
    world.start(None, "node rm", move |process| async move {
        let name = w.host(host).name.clone();
        w.say(|| format!("{} {name}", w.spell(&process)));
        let store = store_of(&w, &process);
        let cluster = Cluster::new(&store, w.layout.clone());
        let removed = match cluster.remove_node(&name, true).await {
            Err(Error::NoNode(_)) => Ok(()),
            removed => removed,
        };
        // The host stays down as long as a request may be under way.
        w.executor.sleep(70_000).await;
        w.host_mut(host).removing = false;
        w.report(&process, removed.map(|()| Vec::new()), ended);
    });
}

impl World {
    /// A verb has ended.
    fn report(&self, process: &Process, result: Result<Vec<IpAddr>, Error>, ended: Option<Ended>) {
        let result = result.map_err(|error| {
            let lost = matches!(error, Error::Lost { .. });
            let weather = self.weather.borrow();
            let healing = lost && (weather.forgotten || weather.stranded);
            drop(weather);
            let sound = healing || !lost && (error.is_away() || EXPECTED.contains(&error.kind()));
            if !sound {
                self.accuse(|| Violation::Failed(format!("{}: {error}", self.spell(process))));
            }
            error.to_string()
        });
        self.say(|| {
            format!(
                "{} ends after {} calls: {result:?}",
                self.spell(process),
                process.calls.get()
            )
        });
        if !process.disturbed.get() && self.weather.borrow().calm {
            let mut tally = self.tally.borrow_mut();
            let most = tally.entry(process.kind).or_default();
            *most = (*most).max(process.calls.get());
        }
        if let Some(ended) = ended {
            ended.give(result);
        }
    }
}

/// Seconds since 1970 by an operator's clock.
fn seconds(w: &World) -> u64 {
    EPOCH.unsigned_abs() + w.executor.now() / 1000
}

/// Kinds of errors with an outside cause; others mean that the host itself did something wrong.
const EXPECTED: [ErrorKind; 6] = [
    ErrorKind::Again,
    ErrorKind::Duplicate,
    ErrorKind::Exhausted,
    ErrorKind::Differs,
    ErrorKind::Address,
    ErrorKind::Operator,
];
