//! Fifty ADDs at once on one host, as when it comes up and its runtime starts everything that it had: started one after
//! the other without waiting, timed until the last has ended. Each contender has a host of its own, all take turns.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::{Backend, Host, Lab, Programs, netconf};
use serde_json::{Value, json};

use super::{Found, report::cell};
use crate::inside::{Answers, Order, Runner};
use crate::spread::{Spread, milliseconds};
use crate::table::{markdown, megabytes, verdict};

const AT_ONCE: usize = 50;
/// A pool a network, and blocks that have room for all that rests from earlier rounds.
const BLOCK_PREFIX: u32 = 21;
/// Links and addresses of fifty containers go a while after their plugins.
const SETTLE: Duration = Duration::from_millis(500);
/// What is wanted: the part of the reference's time that this may take.
const MOST_OF_REFERENCE: f64 = 1.0 / 3.0;

const REFERENCE: &str = "bridge + host-local";
/// What is left of the reference with addresses for nothing.
const NO_IPAM: &str = "bridge without IPAM";

struct Contender<'lab> {
    name: &'static str,
    host: &'lab Host,
    runner: Runner,
    program: PathBuf,
    conf: Value,
    /// Milliseconds until the last of the fifty had ended.
    walls: Vec<f64>,
    /// Milliseconds of user and system time of all fifty with their children.
    cpu: Vec<f64>,
    /// Bytes.
    peak: u64,
}

/// Six contenders, `rounds` times fifty ADDs each.
pub fn run(rounds: usize, say: &dyn Fn(&str)) -> Found {
    let lab = Lab::new(6, Backend::Consul);
    let mut contenders = line_up(&lab);
    say("containers, and a resident for each");
    for contender in &mut contenders {
        let make = format!("for i in $(seq 0 {AT_ONCE}); do ip netns add c$i; done");
        contender.host.script(&make);
        contender.run("ADD", &[0]);
        // What is cold is nobody's everyday.
        contender.round();
        contender.walls.clear();
        contender.cpu.clear();
    }
    say(&format!(
        "{rounds} rounds of {AT_ONCE} ADDs of {} contenders",
        contenders.len()
    ));
    for round in 0..rounds {
        let mut turns: Vec<_> = contenders.iter_mut().collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for contender in turns {
            contender.round();
        }
    }
    found(&contenders, rounds)
}

fn line_up(lab: &Lab) -> Vec<Contender<'_>> {
    let conf = |name: &str, subnet: &str, ipam: &str| {
        let mut conf = json!({ "cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": "cni0", "isGateway": true });
        if !ipam.is_empty() {
            conf["ipam"] = json!({ "type": ipam, "ranges": [[{ "subnet": subnet }]] });
        }
        if ipam == "ipam-kv" {
            conf["ipam"]["blockPrefix"] = BLOCK_PREFIX.into();
        }
        conf
    };
    let bridged = |ipam: &str| conf("burst-bridge", "10.1.0.0/16", ipam);
    let alone = |ipam: &str| conf("burst-alone", "10.2.0.0/16", ipam);
    // Its default blocks: it forwards to each address of the other hosts' blocks, which is another matter.
    let overlay = netconf("burst-overlay", "10.3.0.0/16", "1.0.0");
    let reference = |name: &str| Path::new(Programs::REFERENCE).join(name);
    let product = |name: &str| Programs::product(name);
    let all = [
        ("bridge + ipam-kv", reference("bridge"), bridged("ipam-kv")),
        (REFERENCE, reference("bridge"), bridged("host-local")),
        (NO_IPAM, reference("bridge"), bridged("")),
        ("ipam-kv alone", product("ipam-kv"), alone("ipam-kv")),
        (
            "host-local alone",
            reference("host-local"),
            alone("host-local"),
        ),
        ("overlay + ipam-kv", product("overlay"), overlay),
    ];
    let contender = |((name, program, conf), host)| {
        let host: &Host = host;
        host.sync();
        Contender {
            name,
            host,
            runner: Runner::start(host),
            program,
            conf,
            walls: Vec::new(),
            cpu: Vec::new(),
            peak: 0,
        }
    };
    all.into_iter().zip(lab.hosts()).map(contender).collect()
}

impl Contender<'_> {
    fn run(&mut self, verb: &str, containers: &[usize]) -> Answers {
        let order = |number: &usize| {
            let container = format!("c{number}");
            let netns = self.host.existing(&container).netns();
            Order::plugin(&self.program, verb, &container, netns, &self.conf)
        };
        let orders: Vec<_> = containers.iter().map(order).collect();
        let answers = self.runner.run_at_once(&orders);
        if verb == "ADD" && self.name != NO_IPAM {
            for answer in &answers.answers {
                let result: Value = serde_json::from_str(&answer.stdout).expect("a CNI result");
                let address = &result["ips"][0]["address"];
                assert!(address.is_string(), "{}: {result}", self.name);
            }
        }
        answers
    }

    fn round(&mut self) {
        let all: Vec<usize> = (1..=AT_ONCE).collect();
        let answers = self.run("ADD", &all);
        self.walls.push(milliseconds(answers.wall));
        let costs = answers.answers.iter().map(|answer| answer.cost);
        let cpu: Duration = costs.clone().map(|cost| cost.cpu).sum();
        self.cpu.push(milliseconds(cpu));
        self.peak = self
            .peak
            .max(costs.map(|cost| cost.peak).max().unwrap_or(0));
        std::thread::sleep(SETTLE);
        self.run("DEL", &all);
        std::thread::sleep(SETTLE);
    }
}

fn found(contenders: &[Contender<'_>], rounds: usize) -> Found {
    let spread = |values: &[f64]| Spread::of(values.to_vec());
    let median = |name: &str| {
        let it = contenders.iter().find(|it| it.name == name);
        it.map_or(f64::NAN, |it| spread(&it.walls).median)
    };
    let head = [
        "50 ADDs at once",
        "wall ms",
        "of bridge + host-local",
        "CPU ms",
        "peak RSS MB",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for it in contenders {
        let wall = spread(&it.walls);
        rows.push([
            it.name.to_owned(),
            cell(&wall),
            format!("{:.2}", wall.median / median(REFERENCE)),
            cell(&spread(&it.cpu)),
            megabytes(it.peak),
        ]);
    }
    let mut text = format!(
        "{}\nmedian (middle half), n = {rounds} times {AT_ONCE} each, interleaved; CPU of all processes, without the kernel's threads and Consul\n\n",
        markdown(&rows)
    );
    for (ours, reference) in [
        ("bridge + ipam-kv", REFERENCE),
        ("ipam-kv alone", "host-local alone"),
        ("ipam-kv alone", REFERENCE),
        ("overlay + ipam-kv", REFERENCE),
    ] {
        let part = median(ours) / median(reference);
        let _ = writeln!(
            text,
            "{}  50 ADDs at once, {ours}: under a third of {reference}: {part:.2} of it",
            verdict(part < MOST_OF_REFERENCE)
        );
    }
    let mut csv = "contender,round,wall_ms,cpu_ms\n".to_owned();
    for it in contenders {
        for (round, (wall, cpu)) in it.walls.iter().zip(&it.cpu).enumerate() {
            let _ = writeln!(csv, "\"{}\",{round},{wall:.3},{cpu:.3}", it.name);
        }
    }
    Found {
        text,
        csv,
        svg: None,
    }
}
