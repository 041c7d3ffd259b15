//! What each verb, and `crosshost sync`, read and write at the store: with three hosts, and with a thousand that each own a
//! block. A meter stands between host and Consul. What a host missed while it was away is written by other hosts that are only
//! in the store; a sync must read which blocks they own, and none of their leases.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Instant;

use integration::{Backend, Host, Lab, Programs, netconf};
use serde_json::{Value, json};

use super::herd::grouped;
use super::meter::{Meter, Traffic};
use super::{Found, report::cell, seed};
use crate::inside::{Order, Runner};
use crate::machine;
use crate::spread::{Spread, milliseconds};
use crate::table::{markdown, verdict};

/// Under `overlay`, default blocks of 64 addresses.
const WIDE: &str = "wide";
const WIDE_SUBNET: &str = "10.0.0.0/14";
const WIDE_BITS: u32 = 6;
/// Under a foreign plugin.
const PLAIN: &str = "plain";
const PLAIN_SUBNET: &str = "10.4.0.0/16";

/// Leases that a sync has missed, and over how many blocks they are spread.
const MISSED: u32 = 1_000;
const BLOCKS: u32 = 20;
/// Syncs of each kind.
const SYNCS: usize = 3;
const MANY: u32 = 1_000;

struct Sample {
    what: &'static str,
    hosts: u32,
    traffic: Traffic,
    ms: f64,
}

struct Bench<'lab> {
    lab: &'lab Lab,
    meter: Meter,
    hosts: u32,
    /// Nodes that are only in the store.
    simulated: u32,
    /// First addresses of the blocks on which the missed leases are.
    blocks: Vec<Ipv4Addr>,
    next_lease: u32,
    samples: Vec<Sample>,
}

/// All verbs `rounds` times, with few hosts and with many.
pub fn run(rounds: usize, say: &dyn Fn(&str)) -> Found {
    let lab = Lab::new(2, Backend::Consul);
    let meter = Meter::start(lab.consul());
    for host in lab.hosts() {
        host.configure(&meter.url());
        host.sync();
    }
    lab.host(1).create_network(WIDE, WIDE_SUBNET);
    let make = format!("for i in $(seq 0 {rounds}); do ip netns add c$i; done");
    for host in lab.hosts() {
        host.script(&make);
    }
    let mut bench = Bench {
        lab: &lab,
        meter,
        hosts: 3,
        simulated: 0,
        blocks: Vec::new(),
        next_lease: 0,
        samples: Vec::new(),
    };
    bench.add_hosts(1);
    bench.blocks = bench.add_blocks(&[0], BLOCKS);
    // The residents, so that no verb is the first or the last.
    bench.call("", &overlay(), 0, "ADD");
    bench.call("", &plain(), 0, "ADD");
    bench.samples.clear();
    for hosts in [3, MANY] {
        if hosts == MANY {
            let first = bench.simulated;
            bench.add_hosts(MANY - bench.hosts);
            let new: Vec<u32> = (first..bench.simulated).collect();
            bench.add_blocks(&new, MANY - 3);
            bench.hosts = MANY;
        }
        say(&format!("{hosts} hosts"));
        // Whatever is news to this host is no longer.
        bench.sync("");
        bench.verbs(rounds);
        bench.syncs();
        bench.first(rounds);
    }
    bench.samples.retain(|it| !it.what.is_empty());
    found(&bench.samples)
}

/// A plugin's program and configuration.
type Plugin = (PathBuf, Value);

fn overlay() -> Plugin {
    (
        Programs::product("overlay"),
        netconf(WIDE, WIDE_SUBNET, "1.0.0"),
    )
}

fn plain() -> Plugin {
    let ipam =
        json!({ "type": "ipam-kv", "ranges": [[{ "subnet": PLAIN_SUBNET }]], "blockPrefix": 24 });
    let conf = json!({ "cniVersion": "1.0.0", "name": PLAIN, "type": "bridge", "ipam": ipam });
    (Programs::product("ipam-kv"), conf)
}

impl Bench<'_> {
    /// Makes more nodes known that are not there.
    fn add_hosts(&mut self, count: u32) {
        let known = self.simulated as usize;
        self.simulated += count;
        let new = seed::nodes(self.simulated).skip(known);
        seed::seed(self.lab.consul(), new);
    }

    /// Gives `count` blocks of the overlay's network to the nodes of these numbers in turn.
    fn add_blocks(&self, nodes: &[u32], count: u32) -> Vec<Ipv4Addr> {
        let consul = self.lab.consul();
        let free = seed::free_blocks(consul, WIDE, "10.0.0.0", 18, WIDE_BITS);
        let blocks: Vec<_> = free.take(count as usize).collect();
        assert_eq!(blocks.len(), count as usize, "the pool is too small");
        let owners = nodes.iter().cycle();
        seed::seed(
            consul,
            blocks.iter().zip(owners).map(|(block, node)| {
                seed::block(
                    WIDE,
                    &format!("{block}_{}", 32 - WIDE_BITS),
                    &seed::node(*node),
                )
            }),
        );
        blocks
    }

    fn note(&mut self, what: &'static str, started: Instant) {
        let ms = milliseconds(started.elapsed());
        let (hosts, traffic) = (self.hosts, self.meter.take());
        self.samples.push(Sample {
            what,
            hosts,
            traffic,
            ms,
        });
    }

    fn call(&mut self, what: &'static str, plugin: &Plugin, number: usize, verb: &str) {
        let host = self.lab.host(1);
        self.call_on(host, what, plugin, number, verb);
    }

    fn call_on(
        &mut self,
        host: &Host,
        what: &'static str,
        plugin: &Plugin,
        number: usize,
        verb: &str,
    ) {
        let mut runner = Runner::start(host);
        let container = format!("c{number}");
        let netns = host.existing(&container).netns();
        let order = Order::plugin(&plugin.0, verb, &container, netns, &plugin.1);
        self.meter.take();
        let started = Instant::now();
        runner.run(&order);
        self.note(what, started);
    }

    fn verbs(&mut self, rounds: usize) {
        let (overlay, plain) = (overlay(), plain());
        for number in 1..=rounds {
            self.bare(number);
            self.call("ipam-kv ADD", &plain, number, "ADD");
            self.call("ipam-kv DEL", &plain, number, "DEL");
            self.call("overlay + ipam-kv ADD", &overlay, number, "ADD");
            self.call("overlay + ipam-kv DEL", &overlay, number, "DEL");
        }
    }

    fn bare(&mut self, number: usize) {
        let mut runner = Runner::start(self.lab.host(1));
        let key = format!("bench/{}/{number}", self.hosts);
        let program = machine::beside_this("examples/bare_write");
        self.meter.take();
        let started = Instant::now();
        runner.run(&Order::program(program, &[&self.meter.url(), &key]));
        self.note("bare conditional write", started);
    }

    fn sync(&mut self, what: &'static str) {
        self.meter.take();
        let started = Instant::now();
        self.lab.host(1).sync();
        self.note(what, started);
    }

    fn syncs(&mut self) {
        for _ in 0..SYNCS {
            self.sync("sync, nothing missed");
        }
        let known = self.blocks.clone();
        for _ in 0..SYNCS {
            self.lease_out(&known);
            self.sync("sync, missed 1,000 leases in known blocks");
            self.take_back(&known);
        }
        for _ in 0..SYNCS {
            let new = self.add_blocks(&[0], BLOCKS);
            self.lease_out(&new);
            self.sync("sync, missed 1,000 leases and 20 new blocks");
            self.take_back(&new);
        }
    }

    /// Other hosts give out [`MISSED`] addresses of these blocks.
    fn lease_out(&mut self, blocks: &[Ipv4Addr]) {
        let each = MISSED / BLOCKS;
        let first = self.next_lease;
        self.next_lease += MISSED;
        let leases = (0..MISSED).map(|number| {
            let block = blocks[(number / each) as usize].to_string();
            let address = seed::address(&block, 2 + number % each);
            seed::lease(
                WIDE,
                address,
                &seed::node(0),
                &seed::boot_id(0),
                first + number,
            )
        });
        seed::seed(self.lab.consul(), leases);
    }

    /// And take them back, so that the next round is like this one.
    fn take_back(&self, blocks: &[Ipv4Addr]) {
        for block in blocks {
            for number in 0..MISSED / BLOCKS {
                let address = seed::address(&block.to_string(), 2 + number);
                let target = format!("/v1/kv/crosshost/v1/leases/{WIDE}/{address}");
                self.lab.consul().request("DELETE", &target, "");
            }
        }
    }

    /// A host that knows nothing, with a thousand leases of others in the pool.
    fn first(&mut self, rounds: usize) {
        let (plain, consul, host) = (plain(), self.lab.consul(), self.lab.host(2));
        if self.hosts != MANY {
            let blocks = seed::free_blocks(consul, PLAIN, "10.4.0.0", 16, 8);
            let blocks: Vec<_> = blocks.take(MISSED.div_ceil(200) as usize).collect();
            seed::seed(
                consul,
                blocks
                    .iter()
                    .map(|block| seed::block(PLAIN, &format!("{block}_24"), &seed::node(0))),
            );
            seed::seed(
                consul,
                (0..MISSED).map(|number| {
                    let block = blocks[(number / 200) as usize].to_string();
                    let address = seed::address(&block, 2 + number % 200);
                    seed::lease(PLAIN, address, &seed::node(0), &seed::boot_id(0), number)
                }),
            );
        }
        for number in 1..=rounds {
            host.script("rm -rf /run/crosshost");
            let what = "ipam-kv ADD, the first after /run was lost, 1,000 leases of others";
            self.call_on(host, what, &plain, number, "ADD");
            self.call_on(host, "", &plain, number, "DEL");
        }
    }
}

fn found(samples: &[Sample]) -> Found {
    let mut kinds: Vec<(&str, u32)> = Vec::new();
    for it in samples {
        if !kinds.contains(&(it.what, it.hosts)) {
            kinds.push((it.what, it.hosts));
        }
    }
    kinds.sort_by_key(|(_, hosts)| *hosts);
    let head = [
        "at the store",
        "hosts",
        "requests",
        "bytes written",
        "bytes read",
        "ms",
        "n",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for (what, hosts) in &kinds {
        let own = samples
            .iter()
            .filter(|it| it.what == *what && it.hosts == *hosts);
        let own: Vec<_> = own.collect();
        let counted = |count: fn(&Traffic) -> u64| range(own.iter().map(|it| count(&it.traffic)));
        rows.push([
            (*what).to_owned(),
            hosts.to_string(),
            counted(|it| it.requests),
            counted(|it| it.written),
            counted(|it| it.read),
            cell(&Spread::of(own.iter().map(|it| it.ms).collect())),
            own.len().to_string(),
        ]);
    }
    let read = |what: &str, hosts: u32| {
        let mut all = samples
            .iter()
            .filter(|it| it.what == what && it.hosts == hosts);
        all.next().map_or(0, |it| it.traffic.read)
    };
    let mut text = format!(
        "{}\nbytes: payload of the connections with HTTP's heads, median (least-most); ms: median (middle half), through the meter\n\n",
        markdown(&rows)
    );
    for hosts in [3, MANY] {
        let idle = read("sync, nothing missed", hosts);
        let missed = read("sync, missed 1,000 leases in known blocks", hosts);
        // The digits of a revision more or less are no lease.
        let _ = writeln!(
            text,
            "{}  a sync with {hosts} hosts that missed 1,000 leases reads none of them: {} bytes, {} without",
            verdict(missed.abs_diff(idle) < 1_000),
            grouped(missed),
            grouped(idle)
        );
    }
    let mut csv = "what,hosts,requests,written,read,ms\n".to_owned();
    for it in samples {
        let Traffic {
            requests,
            written,
            read,
        } = it.traffic;
        let _ = writeln!(
            csv,
            "\"{}\",{},{requests},{written},{read},{:.3}",
            it.what, it.hosts, it.ms
        );
    }
    Found {
        text,
        csv,
        svg: None,
    }
}

/// The middle one of some numbers, with the least and the most where they differ.
fn range(numbers: impl Iterator<Item = u64>) -> String {
    let mut all: Vec<u64> = numbers.collect();
    all.sort_unstable();
    let (least, most) = (all[0], all[all.len() - 1]);
    let median = grouped(all[all.len() / 2]);
    if least == most {
        median
    } else {
        format!("{median} ({}-{})", grouped(least), grouped(most))
    }
}
