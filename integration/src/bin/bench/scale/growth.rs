//! Does an ADD become slower as a pool fills? Each size of pool is a world of its own with its own Consul, so that the
//! store's part of the answer is in the numbers too, and all worlds take turns in every round.
//!
//! Four kinds of process are timed alike, from spawn to exit: the bare conditional write (`crates/store/examples/bare_write.rs`),
//! `ipam-kv` on a host of a pool whose leases are other hosts', `ipam-kv` on a host that has all those leases itself, and
//! the reference `host-local` with as many. The DEL that follows each ADD, so that the sizes stay, is not timed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::{Backend, Host, Lab, Programs};
use serde_json::{Value, json};

use super::seed;
use crate::inside::{Cost, Order, Runner};
use crate::machine;

/// Leases in the pool.
const SIZES: [u32; 4] = [10, 1_000, 10_000, 100_000];
/// More of a host's own than any host has, and what `host-local` is known at.
const MOST_OF_ONE_HOST: u32 = 10_000;
/// Leases of each of the other hosts.
const PER_HOST: u32 = 100;
/// The one namespace that a host needs.
const CONTAINER: &str = "all";
/// log2 of the addresses of a block: room for all rounds.
const BLOCK_BITS: u32 = 10;
/// What the kernel and Consul have to do after a call is nobody's time.
const SETTLE: Duration = Duration::from_millis(20);

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Nothing,
    Bare,
    Others,
    Own,
    HostLocal,
}

/// One kind of process at one size of pool.
pub struct Subject<'lab> {
    pub kind: Kind,
    pub leases: u32,
    url: String,
    host: &'lab Host,
    runner: Runner,
    /// The first ADD on a host that knows nothing yet, as after a reboot.
    pub first: Option<Cost>,
    /// Of all rounds.
    pub costs: Vec<Cost>,
}

/// Three hosts and a Consul for each size.
pub fn worlds() -> Vec<(u32, Lab)> {
    let world = |leases| (leases, Lab::new(3, Backend::Consul));
    SIZES.map(world).into()
}

/// Fills all pools and measures `rounds` ADDs of each kind.
pub fn measure<'lab>(
    worlds: &'lab [(u32, Lab)],
    rounds: usize,
    say: &dyn Fn(&str),
) -> Vec<Subject<'lab>> {
    let mut subjects = Vec::new();
    for (leases, lab) in worlds {
        say(&format!("{leases} leases"));
        subjects.extend(line_up(*leases, lab));
    }
    for subject in &mut subjects {
        // The first two calls find pages and caches cold, and are nobody's everyday.
        for number in 0..2 {
            subject.run(number);
        }
        subject.costs.clear();
    }
    say(&format!("{rounds} rounds of {} kinds", subjects.len()));
    for round in 0..rounds {
        let mut turns: Vec<_> = subjects.iter_mut().collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for subject in turns {
            subject.run(round + 2);
        }
    }
    subjects
}

/// All kinds in one world, each where it finds `leases`.
fn line_up(leases: u32, lab: &Lab) -> Vec<Subject<'_>> {
    for host in lab.hosts() {
        host.sync();
        host.container(CONTAINER);
    }
    let subject = |kind, host: usize| Subject {
        kind,
        leases,
        url: lab.store_url(),
        host: lab.host(host),
        runner: Runner::start(lab.host(host)),
        first: None,
        costs: Vec::new(),
    };
    let mut all = vec![subject(Kind::Bare, 1), subject(Kind::Others, 1)];
    all[1].seed_others(lab);
    if leases <= MOST_OF_ONE_HOST {
        let mut own = subject(Kind::Own, 2);
        own.seed_own(lab);
        let mut reference = subject(Kind::HostLocal, 3);
        reference.seed_files();
        all.extend([own, reference]);
    }
    let all_leases: u32 = if leases <= MOST_OF_ONE_HOST {
        2 * leases
    } else {
        leases
    };
    seed::assert_leases(lab.host(1), all_leases as usize);
    if leases == SIZES[0] {
        all.push(subject(Kind::Nothing, 3));
    }
    all
}

impl Subject<'_> {
    /// The pool of this kind: name, first address, log2 of its size.
    fn pool(&self) -> (&'static str, &'static str, u32) {
        match self.kind {
            Kind::Own => ("own", "172.16.0.0", 20),
            _ => ("others", "10.0.0.0", 24),
        }
    }

    fn conf(&self) -> Value {
        let (name, first, bits) = self.pool();
        let mut ipam = json!({ "ranges": [[{ "subnet": format!("{first}/{}", 32 - bits) }]] });
        if self.kind == Kind::HostLocal {
            ipam["type"] = "host-local".into();
        } else {
            ipam["type"] = "ipam-kv".into();
            ipam["blockPrefix"] = (32 - BLOCK_BITS).into();
        }
        json!({ "cniVersion": "1.0.0", "name": name, "type": "bridge", "ipam": ipam })
    }

    fn program(&self) -> PathBuf {
        match self.kind {
            Kind::Nothing => "/bin/true".into(),
            Kind::Bare => machine::beside_this("examples/bare_write"),
            Kind::Others | Kind::Own => Programs::product("ipam-kv"),
            Kind::HostLocal => Path::new(Programs::REFERENCE).join("host-local"),
        }
    }

    fn call(&mut self, verb: &str, number: usize) -> Cost {
        // One namespace serves all: an IPAM plugin puts nothing into it.
        let netns = self.host.existing(CONTAINER).netns();
        let container = format!("c{number}");
        let order = Order::plugin(&self.program(), verb, &container, netns, &self.conf());
        let answer = self.runner.run(&order);
        if verb == "ADD" {
            let result: Value = serde_json::from_str(&answer.stdout).expect("a CNI result");
            let address = &result["ips"][0]["address"];
            assert!(address.is_string(), "{:?}: {result}", self.kind);
        }
        answer.cost
    }

    /// One timed process, and what makes up for it.
    fn run(&mut self, number: usize) {
        let cost = match self.kind {
            Kind::Nothing => self.runner.run(&Order::program(self.program(), &[])).cost,
            Kind::Bare => {
                let key = format!("bench/{number}");
                let order = Order::program(self.program(), &[&self.url, &key]);
                self.runner.run(&order).cost
            }
            _ => self.call("ADD", number),
        };
        self.costs.push(cost);
        std::thread::sleep(SETTLE);
        if matches!(self.kind, Kind::Others | Kind::Own | Kind::HostLocal) {
            self.call("DEL", number);
            std::thread::sleep(SETTLE);
        }
    }

    /// Makes the network by an ADD, which stays, and gives the pool's other leases to other hosts.
    fn seed_others(&mut self, lab: &Lab) {
        self.call("ADD", 1_000_000);
        let hosts = self.leases.div_ceil(PER_HOST);
        let (name, first, bits) = self.pool();
        let consul = lab.consul();
        seed::seed(consul, seed::nodes(hosts));
        let blocks: Vec<_> = seed::free_blocks(consul, name, first, bits, BLOCK_BITS)
            .zip(0..hosts)
            .collect();
        seed::seed(
            consul,
            blocks.iter().map(|(block, number)| {
                let block = format!("{block}_{}", 32 - BLOCK_BITS);
                seed::block(name, &block, &seed::node(*number))
            }),
        );
        seed::seed(
            consul,
            (0..self.leases).map(|number| {
                let (block, host) = &blocks[(number / PER_HOST) as usize];
                let address = seed::address(&block.to_string(), 2 + number % PER_HOST);
                let node = seed::node(*host);
                seed::lease(name, address, &node, &seed::boot_id(*host), number)
            }),
        );
        self.forget();
    }

    /// Makes the network by an ADD, and gives all leases to this host, as if it had lost `/run` with containers running.
    fn seed_own(&mut self, lab: &Lab) {
        self.call("ADD", 1_000_000);
        let (name, first, bits) = self.pool();
        let (consul, node) = (lab.consul(), self.host.name().to_owned());
        let usable = (1 << BLOCK_BITS) - 2;
        let count = self.leases.div_ceil(usable) as usize;
        let blocks: Vec<_> = seed::free_blocks(consul, name, first, bits, BLOCK_BITS)
            .take(count)
            .collect();
        seed::seed(
            consul,
            blocks
                .iter()
                .map(|block| seed::block(name, &format!("{block}_{}", 32 - BLOCK_BITS), &node)),
        );
        let boot_id = self.host.boot_id().to_owned();
        seed::seed(
            consul,
            (0..self.leases).map(|number| {
                let block = &blocks[(number / usable) as usize];
                let address = seed::address(&block.to_string(), 1 + number % usable);
                seed::lease(name, address, &node, &boot_id, number)
            }),
        );
        self.forget();
        let held = self.host.listed("endpoint ls --local");
        let held = held.as_array().map_or(0, Vec::len);
        assert!(held > self.leases as usize, "taken over: {held}");
    }

    /// Loses `/run`, and times the ADD that begins from the store.
    fn forget(&mut self) {
        self.host.script("rm -rf /run/crosshost");
        self.first = Some(self.call("ADD", 1_000_001));
    }

    /// The files of as many leases as `host-local` would have written, in memory as its own are here.
    fn seed_files(&mut self) {
        let (name, first, _) = self.pool();
        let folder = format!("/var/lib/cni/networks/{name}");
        self.call("ADD", 1_000_000);
        for number in 0..self.leases {
            let address = seed::address(first, 256 + number);
            let content = format!("{number:064x}\r\neth0");
            self.host.write(&format!("{folder}/{address}"), content);
        }
        let last = seed::address(first, 255 + self.leases).to_string();
        self.host
            .write(&format!("{folder}/last_reserved_ip.0"), last);
    }
}
