//! Many of everything on one host: five hundred containers of one network, sixty-four networks, a hundred other hosts with
//! ten blocks each, and a host that must bring all that back at once. And one of ten hosts that has nothing to do.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use integration::{Backend, Host, Lab, Programs, netconf};
use serde_json::Value;

use super::{Found, report::cell, seed};
use crate::inside::{Cost, Order, Runner};
use crate::spread::{Spread, milliseconds};
use crate::table::{markdown, megabytes, verdict};

const POOL: &str = "10.0.0.0/16";
const CONTAINERS: usize = 500;
const NETWORKS: usize = 64;
const HOSTS: u32 = 100;
const BLOCKS_EACH: u32 = 10;
/// So many ADDs make one figure of the curve.
const STRETCH: usize = 100;
/// What is wanted: the slowest stretch over the fastest.
const MOST_GROWTH: f64 = 1.2;
/// What is wanted of a sync that finds nothing in place.
const MOST_COLD: Duration = Duration::from_secs(2);

/// So many hosts have a sync that must cost nothing.
const FEW: u8 = 10;
/// So many idle syncs for each of the others.
const IDLE_EACH: usize = 10;
/// What is wanted of a sync that has nothing to do.
const MOST_IDLE: Duration = Duration::from_millis(3);

/// What the parts found.
struct Many {
    /// ADDs of one network's containers on a host of few neighbours, and on one of many.
    alone: Vec<Cost>,
    crowded: Vec<Cost>,
    /// The first ADD of each network, and the second.
    first: Vec<Cost>,
    second: Vec<Cost>,
    /// Forwarding entries of the crowded network's sandbox.
    entries: usize,
    /// Syncs of a host whose sandbox was emptied, and of one where nothing is due.
    cold: Vec<Duration>,
    warm: Vec<Duration>,
    /// Syncs of one of few hosts, all of them alive, with nothing to do.
    idle: Vec<Duration>,
}

/// `rounds` syncs; the rest is as many as there are.
pub fn run(rounds: usize, say: &dyn Fn(&str)) -> Found {
    let lab = Lab::new(3, Backend::Consul);
    lab.sync();
    let [alone, crowded, networks] = [1, 2, 3].map(|number| lab.host(number));
    let create = ["network", "create", "crowded", "--subnet", POOL];
    let create = [&create[..], &["--block-prefix", "29"]].concat();
    crowded.crosshost(&create).ok();
    let consul = lab.consul();
    seed::seed(consul, seed::nodes(HOSTS));
    let free = seed::free_blocks(consul, "crowded", "10.0.0.0", 16, 3);
    let blocks: Vec<_> = free.take((HOSTS * BLOCKS_EACH) as usize).zip(0..).collect();
    let block = |(first, number): &(std::net::Ipv4Addr, u32)| {
        let node = seed::node(number / BLOCKS_EACH);
        seed::block("crowded", &format!("{first}_29"), &node)
    };
    seed::seed(consul, blocks.iter().map(block));

    say(&format!(
        "{CONTAINERS} containers of one network, hardly a neighbour"
    ));
    let conf = |name: &str, pool: &str| {
        let mut conf = netconf(name, pool, "1.0.0");
        conf["ipam"]["blockPrefix"] = 29.into();
        conf
    };
    // The first one makes the sandbox.
    let alone = add(alone, &conf("alone", "10.2.0.0/16"), 0..CONTAINERS + 1).split_off(1);
    say(&format!(
        "{CONTAINERS} containers, {HOSTS} other hosts with {BLOCKS_EACH} blocks each"
    ));
    let crowded_adds = add(crowded, &conf("crowded", POOL), 0..CONTAINERS + 1).split_off(1);
    say(&format!("{NETWORKS} networks on one host"));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for number in 0..NETWORKS {
        let conf = netconf(
            &format!("many{number}"),
            &format!("10.1.{number}.0/24"),
            "1.0.0",
        );
        let mut two = add(networks, &conf, number * 2..number * 2 + 2);
        second.extend(two.pop());
        first.extend(two.pop());
    }
    say("cold and warm syncs");
    let mut found = Many {
        alone,
        crowded: crowded_adds,
        first,
        second,
        entries: entries(crowded),
        cold: Vec::new(),
        warm: Vec::new(),
        idle: Vec::new(),
    };
    for _ in 0..rounds {
        let empty = "nsenter --net=/run/crosshost/netns/crowded sh -c 'ip link del vxlan0; ip neighbour flush all nud permanent'";
        crowded.script(empty);
        found.cold.push(sync(crowded));
        assert_eq!(entries(crowded), found.entries, "a sync brings all back");
        found.warm.push(sync(crowded));
    }
    say(&format!("idle syncs of one of {FEW} hosts"));
    drop(lab);
    found.idle = idle(rounds * IDLE_EACH);
    told(&found, rounds)
}

/// Syncs of a host with a container on a network of [`FEW`] hosts that all have one.
fn idle(syncs: usize) -> Vec<Duration> {
    let lab = Lab::new(FEW, Backend::Consul);
    lab.sync();
    let conf = netconf("idle", "10.3.0.0/16", "1.0.0");
    for host in lab.hosts() {
        add(host, &conf, 0..1);
    }
    let host = lab.host(1);
    host.sync();
    let mut runner = Runner::start(host);
    let order = Order::program(Programs::product("crosshost"), &["sync"]);
    (0..syncs).map(|_| runner.run(&order).cost.wall).collect()
}

fn sync(host: &Host) -> Duration {
    let begun = Instant::now();
    host.sync();
    begun.elapsed()
}

/// Neighbours of the bridge and entries of the FDB in the network's sandbox that somebody made.
fn entries(host: &Host) -> usize {
    let count = "nsenter --net=/run/crosshost/netns/crowded sh -c 'bridge fdb show | grep -c -E \"dst|static\"; ip neighbour show nud permanent | wc -l'";
    let said = host.run(&["sh", "-c", count]).ok().stdout;
    said.split_whitespace()
        .filter_map(|word| word.parse::<usize>().ok())
        .sum()
}

/// What ADDs of new containers of these numbers cost.
fn add(host: &Host, conf: &Value, numbers: std::ops::Range<usize>) -> Vec<Cost> {
    let (first, last) = (numbers.start, numbers.end - 1);
    let make = format!("for i in $(seq {first} {last}); do ip netns add c$i; done");
    host.script(&make);
    let (program, mut runner) = (Programs::product("overlay"), Runner::start(host));
    let add = |number| {
        let (id, netns) = (format!("c{number}"), format!("/run/netns/c{number}"));
        let order = Order::plugin(&program, "ADD", &id, netns, conf);
        runner.run(&order).cost
    };
    numbers.map(add).collect()
}

fn walls(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| milliseconds(cost.wall)).collect()
}

/// What they computed: less of the machine's other work is in that.
fn cpus(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| milliseconds(cost.cpu)).collect()
}

/// Slowest median stretch over the fastest.
fn growth(samples: &[f64]) -> f64 {
    let medians = samples
        .chunks(STRETCH)
        .map(|some| Spread::of(some.to_vec()).median);
    let (mut least, mut most) = (f64::MAX, f64::MIN);
    for median in medians {
        (least, most) = (least.min(median), most.max(median));
    }
    most / least
}

fn told(found: &Many, rounds: usize) -> Found {
    let head = [
        "containers on the host",
        "ADD, 3 hosts",
        "ADD, 100 hosts more with 1,000 blocks",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let (alone, crowded) = (walls(&found.alone), walls(&found.crowded));
    for (number, (few, many)) in alone
        .chunks(STRETCH)
        .zip(crowded.chunks(STRETCH))
        .enumerate()
    {
        let spread = |some: &[f64]| cell(&Spread::of(some.to_vec()));
        let from = number * STRETCH;
        rows.push([
            format!("{from} to {}", from + STRETCH),
            spread(few),
            spread(many),
        ]);
    }
    let one = |costs: &[Cost]| cell(&Spread::of(walls(costs)));
    let syncs = |times: &[Duration]| Spread::of(times.iter().copied().map(milliseconds).collect());
    let (cold, warm) = (syncs(&found.cold), syncs(&found.warm));
    let peak = found
        .crowded
        .iter()
        .map(|cost| cost.peak)
        .max()
        .unwrap_or(0);
    let half = found.first.len() / 2;
    let mut text = markdown(&rows);
    let _ = write!(
        text,
        "\nmilliseconds from spawn to exit: median (middle half), n = {STRETCH} each; peak RSS {} MB\n\n\
         {NETWORKS} networks on one host: the first ADD of a network {} for the first half of them, {} for the second; the second \
         ADD {} and {}.\n\n{} forwarding entries in the sandbox. `crosshost sync` after all of them were lost: {} ms, with \
         nothing to do: {} ms (n = {rounds}).\n\n",
        megabytes(peak),
        one(&found.first[..half]),
        one(&found.first[half..]),
        one(&found.second[..half]),
        one(&found.second[half..]),
        found.entries,
        cell(&cold),
        cell(&warm),
    );
    for (what, costs) in [("few", &found.alone), ("many", &found.crowded)] {
        let (growth, work) = (growth(&walls(costs)), growth(&cpus(costs)));
        let says = verdict(growth <= MOST_GROWTH);
        let _ = writeln!(
            text,
            "{says} {what} neighbours: the slowest {STRETCH} ADDs take {growth:.2} of the fastest, at most {MOST_GROWTH}; \
             their CPU time {work:.2}"
        );
    }
    let (limit, median) = (milliseconds(MOST_COLD), cold.median);
    let says = verdict(median <= limit);
    let _ = writeln!(
        text,
        "{says} a cold sync takes {median:.0} ms, at most {limit:.0}"
    );
    let idle = syncs(&found.idle);
    let _ = writeln!(
        text,
        "{} an idle sync of one of {FEW} hosts takes {} ms (n = {}), at most {:.0}",
        verdict(idle.median <= milliseconds(MOST_IDLE)),
        cell(&idle),
        found.idle.len(),
        milliseconds(MOST_IDLE),
    );
    Found {
        text,
        csv: csv(found),
        svg: None,
    }
}

/// Every sample.
fn csv(found: &Many) -> String {
    let mut csv = "part,number,milliseconds,cpu,peak\n".to_owned();
    let parts = [
        ("alone", &found.alone),
        ("crowded", &found.crowded),
        ("first", &found.first),
        ("second", &found.second),
    ];
    for (part, costs) in parts {
        for (number, cost) in costs.iter().enumerate() {
            let _ = writeln!(
                csv,
                "{part},{number},{:.3},{:.3},{}",
                milliseconds(cost.wall),
                milliseconds(cost.cpu),
                cost.peak
            );
        }
    }
    let times = [
        ("cold", &found.cold),
        ("warm", &found.warm),
        ("idle", &found.idle),
    ];
    for (part, times) in times {
        for (number, time) in times.iter().enumerate() {
            let _ = writeln!(csv, "{part},{number},{:.3},,", milliseconds(*time));
        }
    }
    csv
}
