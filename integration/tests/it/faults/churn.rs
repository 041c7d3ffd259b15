//! A minute of containers that come and go on three hosts while plugins and Consul servers are killed at random: no
//! two containers ever have the same address, and nothing is left when all are gone.
//!
//! Twenty-four workers do what a runtime does: an ADD that failed or was killed is followed by DEL, with or without
//! the namespace, and a DEL that was killed is repeated. The pool is small enough that each address is used many
//! times. What is held is read inside the containers; a container has one ADD in its life, so two that have the same
//! address in two scans had it at the same time. A seed, printed, decides what is killed and when (`CHURN_SEED=N`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use crate::held_addresses;
use crate::held_addresses::Held;
use crate::store_reader;
use integration::{
    Backend, Consul, ConsulCluster, Container, Finished, Host, Lab, Programs, address_of, netconf,
    spend,
};
use serde_json::json;

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
const WORKERS: usize = 24;
/// A worker has at most so many containers at a time.
const EACH: usize = 4;
const LASTS: Duration = Duration::from_mins(1);
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn no_address_is_doubled_or_lost_while_plugins_and_servers_are_killed() {
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock after 1970");
    let seed = std::env::var("CHURN_SEED").map_or(u64::from(now.subsec_nanos()), |seed| {
        seed.parse().expect("CHURN_SEED: a number")
    });
    println!("CHURN_SEED={seed}");
    let lab = Lab::new(3, Backend::Dir);
    let mut cluster = ConsulCluster::start(&lab);
    let apart = Programs::with_ipam_apart();
    for (host, server) in lab.hosts().iter().zip(1..) {
        host.configure(&cluster.url(server));
        if server > 1 {
            host.exchange_programs(Some(apart.path().to_owned()));
        }
        host.sync();
    }
    lab.host(1).create_network(NETWORK, SUBNET);
    let untouched = lab.footprints();

    let score = Score::default();
    let end = Instant::now() + LASTS;
    let (events, remaining) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let worker = Worker {
                    host: &lab.hosts()[number % lab.hosts().len()],
                    number,
                    is_apart: number % lab.hosts().len() > 0,
                    dice: Dice(seed + 1 + number as u64),
                    score: &score,
                    containers: Vec::new(),
                };
                scope.spawn(move || worker.work(end))
            })
            .collect();
        // Only the main thread may start servers: they end with the thread that did.
        let events = disturb(&lab, &mut cluster, &mut Dice(seed), &score, end);
        let remaining = workers.into_iter().map(|it| it.join().expect("no panic"));
        (events, remaining.collect::<Vec<_>>())
    });
    let told = score.told.lock().expect("no panic").clone();
    assert!(!told.is_empty(), "some containers are there at the end");
    assert_eq!(held_addresses::alone(&lab, "at the end"), told);

    for mut worker in remaining {
        while let Some(container) = worker.containers.pop() {
            worker.end(&container);
        }
    }
    let sync = |host: &Host| {
        host.sync();
        host.listed("endpoint ls --local")
    };
    let local: Vec<_> = lab.hosts().iter().map(sync).collect();
    let records = store_reader::through_consulrs(cluster.server(1));
    let left = (local, held_addresses::by_leases(&records, NETWORK));
    assert_eq!(left, (vec![json!([]); 3], BTreeMap::new()), "leases");
    lab.assert_same_as(&untouched, "after the last DEL");

    let count = |counter: &AtomicUsize| counter.load(SeqCst);
    let (operations, killed) = (count(&score.operations), count(&score.killed));
    println!("{operations} operations, {killed} of them killed; {events:?}");
    let failed = score.failed.lock().expect("no panic");
    println!("ADDs that failed beside an outage: {failed:#?}");
    assert!(operations >= 1000, "only {operations} operations");
    assert!(killed >= 50, "only {killed} kills hit");
    assert!(events.values().sum::<usize>() >= 3);
}

/// What befalls a server.
type Blow = fn(&mut Consul);

/// Stops and kills servers until `end`, and looks into the containers all the while; how often each event came.
fn disturb(
    lab: &Lab,
    cluster: &mut ConsulCluster,
    dice: &mut Dice,
    score: &Score,
    end: Instant,
) -> BTreeMap<&'static str, usize> {
    let mut events = BTreeMap::new();
    let all: Vec<_> = (1..=cluster.size()).collect();
    while Instant::now() < end {
        score.troubles.fetch_add(1, SeqCst);
        let leader = cluster.await_leader(LIMIT).0;
        let any = dice.below(cluster.size()) + 1;
        let (what, servers, pauses) = match dice.below(5) {
            0 => ("leader killed", vec![leader], false),
            1 => ("a server killed", vec![any], false),
            2 => ("all servers killed", all.clone(), false),
            3 => ("leader stopped", vec![leader], true),
            _ => ("all servers stopped", all.clone(), true),
        };
        *events.entry(what).or_default() += 1;
        let (strike, mend): (Blow, Blow) = if pauses {
            (|server| server.pause(), |server| server.resume())
        } else {
            (Consul::kill, Consul::restart)
        };
        for server in &servers {
            strike(cluster.server_mut(*server));
        }
        dice.spend(500, 2500);
        scan(lab, what);
        for server in &servers {
            mend(cluster.server_mut(*server));
        }
        cluster.await_all();
        score.troubles.fetch_add(1, SeqCst);
        dice.spend(500, 1500);
        scan(lab, "with all servers");
    }
    events
}

/// Insists that no address is in two containers at the same time, while they come and go.
#[track_caller]
fn scan(lab: &Lab, when: &str) {
    let first = held_addresses::by_interfaces(lab);
    if held_addresses::doubled(&first).next().is_none() {
        return;
    }
    let second = held_addresses::by_interfaces(lab);
    for (address, holders) in held_addresses::doubled(&first) {
        let still = second.get(address).into_iter().flatten();
        let both: Vec<_> = still.filter(|one| holders.contains(one)).collect();
        assert!(both.len() < 2, "{when}: {address} is in {both:?}");
    }
}

/// What the workers know together.
#[derive(Default)]
struct Score {
    operations: AtomicUsize,
    killed: AtomicUsize,
    /// Moves when an outage begins and when it is over: odd while there is one.
    troubles: AtomicUsize,
    /// The addresses that finished ADDs told, until their DEL begins.
    told: Mutex<BTreeMap<IpAddr, Held>>,
    failed: Mutex<BTreeSet<String>>,
}

/// A runtime's thread on one host.
struct Worker<'lab> {
    host: &'lab Host,
    number: usize,
    /// Whether `ipam-kv` is a process of its own on this host.
    is_apart: bool,
    dice: Dice,
    score: &'lab Score,
    containers: Vec<(Container<'lab>, IpAddr)>,
}

impl<'lab> Worker<'lab> {
    /// Adds and removes containers until `end`; those that are there then stay.
    fn work(mut self, end: Instant) -> Self {
        let mut turn = 0;
        while Instant::now() < end {
            let count = self.containers.len();
            if count == 0 || (count < EACH && self.dice.below(100) < 55) {
                let name = format!("w{:02}-{turn:04}", self.number);
                self.begin(self.host.container(&name));
                turn += 1;
            } else {
                let one = self.dice.below(count);
                let container = self.containers.swap_remove(one);
                self.end(&container);
            }
        }
        self
    }

    fn begin(&mut self, container: Container<'lab>) {
        let troubles = self.score.troubles.load(SeqCst);
        let (add, kill) = self.run(&container, "ADD", &container.netns(), 15);
        if !add.status.success() {
            // With the store there nothing but a kill is a reason to fail.
            let same = troubles == self.score.troubles.load(SeqCst);
            assert!(kill || troubles % 2 == 1 || !same, "store there: {add}");
            if !kill {
                let why = add.json()["msg"].to_string();
                let mut failed = self.score.failed.lock().expect("no panic");
                failed.insert(why.chars().filter(|one| !one.is_numeric()).collect());
            }
            return self.give_up(&container);
        }
        let address = address_of(&add.json(), "eth0");
        assert_eq!(container.address("eth0"), Some(address), "{add}");
        let mut told = self.score.told.lock().expect("no panic");
        let before = told.insert(address, Held::by(&container));
        assert_eq!(before, None, "{address} was told to {}", container.name());
        drop(told);
        self.containers.push((container, address));
    }

    fn end(&mut self, (container, address): &(Container<'_>, IpAddr)) {
        self.score.told.lock().expect("no panic").remove(address);
        self.give_up(container);
    }

    /// DEL as runtimes make it, with the namespace, without naming it, or after it is gone, until one was not killed.
    fn give_up(&mut self, container: &Container<'_>) {
        let manner = self.dice.below(3);
        let path = container.netns();
        let netns = if manner > 0 { path.as_str() } else { "" };
        if manner == 1 {
            container.remove();
        }
        loop {
            let (del, kill) = self.run(container, "DEL", netns, 10);
            if del.status.success() {
                break;
            }
            assert!(kill, "nothing is a reason for a DEL to fail: {del}");
        }
        if manner != 1 {
            container.remove();
        }
    }

    /// One call, and whether `percent` of chance had it killed, or its `ipam-kv` alone where that is a process.
    fn run(
        &mut self,
        container: &Container<'_>,
        verb: &str,
        netns: &str,
        percent: usize,
    ) -> (Finished, bool) {
        let call = self.host.call("overlay", verb).id(container.name());
        let call = call.netns(netns).conf(&netconf(NETWORK, SUBNET, "1.0.0"));
        let started = call.start();
        let kill = self.dice.below(100) < percent;
        if kill && self.is_apart && self.dice.below(3) == 0 {
            if let Some(delegate) = started.child("ipam-kv") {
                self.dice.spend(0, 20);
                delegate.kill();
            }
        } else if kill {
            self.dice.spend(0, 60);
            started.kill();
        }
        let finished = started.wait(LIMIT);
        self.score.operations.fetch_add(1, SeqCst);
        let hit = kill && !finished.status.success();
        self.score.killed.fetch_add(usize::from(hit), SeqCst);
        (finished, kill)
    }
}

/// Numbers that a seed decides (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 32).expect("32 bits") % limit
    }

    /// Spends a time between two numbers of milliseconds.
    fn spend(&mut self, least: usize, most: usize) {
        let time = least + self.below(most - least);
        spend(Duration::from_millis(time as u64));
    }
}
