//! What happens to the hosts: runtimes add and delete containers, operators run commands, connections and clocks fail. One task
//! draws one act after the other.

use std::{net::IpAddr, rc::Rc};

use crate::{
    executor::slot,
    model::Model,
    scenario::{network_of, owner},
    verbs,
    world::{Weather, World},
};

/// How many old states are kept for restores.
const BACKUPS: usize = 3;
/// Longest time between two syncs of a watcher that reads no change, in ms.
const LONGEST_PATIENCE: u64 = 60_000;

/// The life of a cluster until the final checks.
pub async fn live(world: &Rc<World>) {
    for host in world.hosts() {
        world.boot(host);
        if world.chance(700) {
            verbs::sync(world, host, None);
        }
    }
    if world.scenario.watcher > 0 {
        for host in world.hosts() {
            let (heard, synced, patience) = (0, 0, 0);
            Watcher {
                host,
                heard,
                synced,
                patience,
            }
            .watch(world);
        }
    }
    let mut backups = Vec::new();
    for _ in 0..world.scenario.acts {
        let pause = world.random.borrow_mut().skewed(world.scenario.pause);
        world.executor.sleep(pause).await;
        if world.violation.borrow().is_some() {
            return;
        }
        if world.chance(100) {
            backups.push(world.store.borrow().clone());
            if backups.len() > BACKUPS {
                let oldest = world.random.borrow_mut().index(BACKUPS);
                backups.remove(oldest);
            }
        }
        act(world, &mut backups).await;
    }
}

/// The host's watcher: polls, and syncs when a block has changed or when nothing has changed for long. That time doubles with
/// each such sync, like the pauses of a watcher whose syncs fail.
struct Watcher {
    host: usize,
    /// Index of the last change that it has heard of.
    heard: u64,
    /// When that was, in ms, and how long after that it syncs even without a change.
    synced: u64,
    patience: u64,
}

impl Watcher {
    fn watch(mut self, world: &Rc<World>) {
        let (world, again) = (world.clone(), world.clone());
        again.executor.after(world.scenario.watcher, move || {
            self.look(&world);
            self.watch(&world);
        });
    }

    fn look(&mut self, world: &Rc<World>) {
        let blocks = world.layout.all_blocks().unwrap();
        let (index, now) = (
            world.store.borrow().last_change(&blocks),
            world.executor.now(),
        );
        let quiet = index == self.heard;
        if quiet && now.saturating_sub(self.synced) < self.patience {
            return;
        }
        let busy = {
            let host = world.host(self.host);
            !host.up || host.processes.iter().any(|process| process.kind == "sync")
        };
        let held = |weather: &Weather| weather.calm || weather.hold;
        if busy || held(&world.weather.borrow()) {
            return;
        }
        let patience = if quiet { 2 * self.patience } else { 0 };
        self.patience = patience.clamp(world.scenario.watcher, LONGEST_PATIENCE);
        (self.heard, self.synced) = (index, now);
        verbs::sync(world, self.host, None);
    }
}

async fn act(world: &Rc<World>, backups: &mut Vec<Model>) {
    let faults = &world.scenario.faults;
    let host = world.random.borrow_mut().index(world.scenario.hosts);
    if world.chance(faults.partition) {
        return cut_off(world, host);
    }
    if world.chance(faults.outage) {
        return outage(world);
    }
    if world.chance(faults.clock_jump) {
        let jump = i64::try_from(world.below(20_000)).unwrap_or(0) - 10_000;
        world.say(|| format!("n{host}: the calendar jumps by {jump} s"));
        world.host_mut(host).calendar += jump;
        return;
    }
    if world.chance(faults.host_death) && world.host(host).up {
        return world.power_off(host);
    }
    if world.chance(faults.restore) {
        return restore(world, backups).await;
    }
    if world.chance(faults.removal) {
        close(world);
        return;
    }
    if world.chance(faults.long_pause) {
        let pause = world.random.borrow_mut().between(60_000, 2_000_000);
        world.say(|| format!("nothing happens for {pause} ms"));
        return world.executor.sleep(pause).await;
    }
    if !world.host(host).up {
        return down(world, host);
    }
    verb(world, host);
}

/// Restarts a host that is down, or lets an operator remove it.
fn down(world: &Rc<World>, host: usize) {
    if world.host(host).removing {
        return;
    }
    match world.below(4) {
        0 => verbs::remove_node(world, host, None),
        1 => {}
        _ => world.boot(host),
    }
}

/// One verb on a host that is up, unless it has enough to do.
fn verb(world: &Rc<World>, host: usize) {
    let kinds: Vec<_> = world
        .host(host)
        .processes
        .iter()
        .map(|process| process.kind)
        .collect();
    if kinds.len() > 6 {
        return;
    }
    let kind = world.below(100);
    if (12..20).contains(&kind) {
        if !kinds.contains(&"GC") {
            // Some containers died without a DEL.
            for owner in world.running_on(host) {
                if world.chance(200) {
                    world.stop(host, &owner);
                }
            }
            let network = any_network(world);
            verbs::gc(world, host, network, None);
        }
        return;
    }
    if kind < 12 {
        return verbs::sync(world, host, None);
    }
    let network = any_network(world);
    let number = world.below(world.scenario.containers);
    let owner = owner(network, format!("c{host}{number}"));
    if world.host(host).busy.contains_key(&owner) {
        return;
    }
    let runs = world.running_on(host).contains(&owner);
    // A runtime does not add a running container, and may delete one that never ran.
    if runs || kind >= 88 {
        return verbs::del(world, host, owner, None);
    }
    let requested = if kind < 40 {
        wish(world, network)
    } else {
        Vec::new()
    };
    verbs::add(world, host, owner, requested, None);
}

/// Addresses that a container asks for: anywhere in the pool.
fn wish(world: &World, network: &str) -> Vec<IpAddr> {
    let mut wishes = Vec::new();
    for set in &world.scenario.spec(network).ranges {
        if !wishes.is_empty() && world.chance(500) {
            continue;
        }
        let range = world.random.borrow_mut().pick(set).clone();
        let size = if range.subnet.is_ipv4() {
            1 << (32 - range.subnet.prefix())
        } else {
            40
        };
        let wish = ipam::nth(range.subnet.network(), u128::from(world.below(size)));
        wishes.extend(wish.filter(|address| range.may_hold(*address)));
    }
    wishes
}

fn any_network(world: &World) -> &'static str {
    let networks = world.scenario.networks();
    networks[world.random.borrow_mut().index(networks.len())]
}

/// An operator ends the containers of a network and removes it. Hosts that are cut off or down still have theirs: then the
/// network stays, unless the store does not know these containers.
fn close(world: &Rc<World>) {
    let network = any_network(world);
    world.say(|| format!("{network} is to be removed"));
    for host in world.live() {
        let owed: Vec<_> = {
            let state = world.host(host);
            let idle = |it: &&cluster::LeaseOwner| !state.busy.contains_key(*it);
            let of_it = state.owed.iter().filter(|it| network_of(it) == network);
            of_it.filter(idle).cloned().collect()
        };
        for owner in owed {
            verbs::del(world, host, owner, None);
        }
    }
    let mut pause = 0;
    for _ in 0..=world.below(3) {
        pause += 10 + world.random.borrow_mut().skewed(10_000);
        let again = world.clone();
        world.executor.after(pause, move || {
            let weather = again.weather.borrow();
            let held = weather.calm || weather.hold;
            drop(weather);
            if !held {
                verbs::remove_network(&again, network, None);
            }
        });
    }
}

fn cut_off(world: &Rc<World>, host: usize) {
    let time = world.random.borrow_mut().skewed(2_000_000);
    if world.weather.borrow_mut().cut_off.insert(host) {
        world.say(|| format!("n{host} is cut off for {time} ms"));
        let again = world.clone();
        world.executor.after(time, move || {
            again.weather.borrow_mut().cut_off.remove(&host);
            again.say(|| format!("n{host} is back on the network"));
        });
    }
}

fn outage(world: &Rc<World>) {
    let time = world.random.borrow_mut().skewed(1_000_000);
    if !std::mem::replace(&mut world.weather.borrow_mut().away, true) {
        world.say(|| format!("the store is away for {time} ms"));
        let again = world.clone();
        world.executor.after(time, move || {
            let mut weather = again.weather.borrow_mut();
            if !weather.hold {
                weather.away = false;
            }
            drop(weather);
            again.say(|| "the store is back".into());
        });
    }
}

/// Restores the store to an old or an empty state, as the manual says: the store becomes unreachable, all verbs end, it comes
/// back, every running host syncs, and only then verbs go on. Otherwise a host that has not synced could be overtaken by one
/// that claims what the store has lost.
async fn restore(world: &Rc<World>, backups: &mut Vec<Model>) {
    {
        let mut weather = world.weather.borrow_mut();
        (weather.hold, weather.away) = (true, true);
    }
    world.say(|| "the store stops, to be restored".into());
    for _ in 0..600 {
        if !world.is_busy() {
            break;
        }
        world.executor.sleep(1000).await;
    }
    for process in world.at_work() {
        world.kill(&process);
    }
    let old = if backups.is_empty() || world.chance(250) {
        None
    } else {
        let index = world.random.borrow_mut().index(backups.len());
        // What is newer than the restored state is lost.
        backups.truncate(index + 1);
        backups.last().cloned()
    };
    if old.is_none() {
        backups.clear();
    }
    let another = world.chance(500);
    world.say(|| {
        let index = old.as_ref().map(Model::index);
        let which = if another {
            "another store"
        } else {
            "the store"
        };
        format!("{which} is restored to revision {index:?}")
    });
    world.store.borrow_mut().restore(old, another);
    {
        let mut weather = world.weather.borrow_mut();
        weather.epoch += 1;
        weather.forgotten = true;
        weather.calm = true;
        weather.away = false;
        weather.cut_off.clear();
    }
    // What one host restores may conflict with what another does: later rounds settle that.
    sync_all(world, 3).await;
    {
        let mut weather = world.weather.borrow_mut();
        weather.forgotten = false;
        weather.hold = false;
        weather.calm = false;
    }
    world.say(|| "all hosts have synced".into());
    world.check_all();
}

/// Every host that runs syncs, in a random order, one after the other or all at once.
pub async fn sync_all(world: &Rc<World>, rounds: usize) {
    for _ in 0..rounds {
        let together = world.chance(300);
        let mut waiting = Vec::new();
        for host in world.live() {
            let (give, take) = slot();
            verbs::sync(world, host, Some(give));
            if together {
                waiting.push(take);
            } else {
                settle(world, take.await);
            }
        }
        for take in waiting {
            settle(world, take.await);
        }
    }
}

/// Without faults a verb must succeed.
pub fn settle(world: &World, result: Result<Vec<IpAddr>, String>) {
    let weather = world.weather.borrow();
    // A sync reports containers on a removed network until they end.
    let stranded = |error: &str| {
        let complaints = ["was removed while", "in the store"];
        weather.stranded && complaints.iter().any(|it| error.contains(it))
    };
    if let Err(error) = result
        && !weather.forgotten
        && !stranded(&error)
    {
        world.accuse(|| crate::invariants::Violation::Failed(format!("in a calm: {error}")));
    }
}
