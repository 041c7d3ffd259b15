//! Does publishing a port become slower as more are published, and does the way of packets through one? Each number of
//! ports is a host of its own, and the reference plugin has hosts of its own too; all take turns in every round.
//!
//! A port is published as nerdctl asks for it, with `hostIP` 0.0.0.0, for a container at an address of a bridge. The plugin looks
//! at its `prevResult` and at the host, never into the container; so the ports that are only there to be many are of
//! containers that are addresses alone. One that is measured by packets has a server behind it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use integration::{Backend, Host, Lab, Net, Programs, Server};
use serde_json::{Value, json};

use super::Found;
use crate::inside::{Cost, Order, Runner};
use crate::spread::{Spread, milliseconds};
use crate::table::{markdown, megabytes, verdict};

/// Ports that are there already.
const SIZES: [u32; 4] = [10, 500, 2_000, 20_000];
/// The reference takes a hundred times as long to get there.
const REFERENCE_SIZES: [u32; 2] = [10, 500];
/// Ports in one call.
const AT_ONCE: [u32; 2] = [1, 5];
/// Issue 6: milliseconds of a process, the slowest size over the fastest, bytes.
const MOST: f64 = 3.0;
const MOST_GROWTH: f64 = 1.2;
const MOST_MEMORY: u64 = 4_000_000;
/// What the kernel has to do after a call is nobody's time.
const SETTLE: Duration = Duration::from_millis(5);
/// How long packets are counted for one sample.
const SAMPLE: Duration = Duration::from_millis(400);
/// The port that has a server behind it.
const SERVED: u32 = 9_999;

struct Subject<'lab> {
    name: &'static str,
    program: PathBuf,
    ports: u32,
    host: &'lab Host,
    runner: Runner,
    /// By number of ports at once: ADD, DEL.
    costs: [[Vec<Cost>; 2]; 2],
    connections: Vec<f64>,
    gigabits: Vec<f64>,
    _server: Server,
}

/// Measures `rounds` ADDs and DELs of each.
pub fn run(rounds: usize, say: &dyn Fn(&str)) -> Found {
    let ours: Vec<_> = SIZES.iter().map(|size| ("portmap", *size)).collect();
    let theirs = REFERENCE_SIZES.map(|size| ("reference", size));
    let all: Vec<_> = ours.into_iter().chain(theirs).collect();
    let labs: Vec<_> = all.iter().map(|_| Lab::new(2, Backend::Dir)).collect();
    let mut subjects: Vec<_> = all
        .iter()
        .zip(&labs)
        .map(|((name, ports), lab)| {
            say(&format!("{ports} ports by {name}"));
            Subject::new(name, *ports, lab)
        })
        .collect();
    say(&format!("{rounds} rounds of {}", subjects.len()));
    for round in 0..rounds {
        for subject in turns(&mut subjects, round) {
            subject.add_and_del(round);
        }
    }
    say("packets");
    for round in 0..rounds.div_ceil(4) {
        for (subject, lab) in turns(&mut subjects, round).into_iter().map(|it| {
            let lab = labs.iter().find(|lab| std::ptr::eq(lab.host(1), it.host));
            (it, lab.expect("its world"))
        }) {
            subject.send(&lab.host(2).space().net());
        }
    }
    report(&subjects, rounds)
}

fn turns<'a, 'lab>(subjects: &'a mut [Subject<'lab>], round: usize) -> Vec<&'a mut Subject<'lab>> {
    let mut turns: Vec<_> = subjects.iter_mut().collect();
    if round % 2 == 1 {
        turns.reverse();
    }
    turns
}

impl<'lab> Subject<'lab> {
    fn new(name: &'static str, ports: u32, lab: &'lab Lab) -> Self {
        let host = lab.host(1);
        // A bridge as the reference makes one, and one container that is there.
        let served = host.container("served");
        host.space().script(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             ip link add br0 up type bridge
             ip address add 10.1.0.1/16 dev br0
             ip link add v0 master br0 up type veth peer eth0 netns served",
        );
        served
            .run(&["ip", "address", "add", "10.1.0.2/16", "dev", "eth0"])
            .ok();
        served.run(&["ip", "link", "set", "eth0", "up"]).ok();
        served
            .run(&["ip", "route", "add", "default", "via", "10.1.0.1"])
            .ok();
        let program = match name {
            "portmap" => Programs::product(name),
            _ => Path::new(Programs::REFERENCE).join("portmap"),
        };
        let mut subject = Self {
            name,
            program,
            ports,
            host,
            runner: Runner::start(host),
            costs: Default::default(),
            connections: Vec::new(),
            gigabits: Vec::new(),
            _server: Server::start(served.net(), "0.0.0.0:80".parse().expect("all"), serve),
        };
        for number in 0..ports - 1 {
            subject.call("ADD", &format!("c{number}"), number + 3, &[number]);
        }
        subject.call("ADD", "served", 2, &[SERVED + 20_000]);
        subject
    }

    fn call(&mut self, verb: &str, id: &str, address: u32, ports: &[u32]) -> Cost {
        let mappings: Vec<_> = ports
            .iter()
            .map(|port| json!({ "hostPort": 10_000 + port, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0" }))
            .collect();
        let address = std::net::Ipv4Addr::from(0x0a01_0000 + address);
        let netns = "/run/netns/served";
        let conf: Value = json!({
            "cniVersion": "1.0.0", "name": "br", "type": "portmap",
            "runtimeConfig": { "portMappings": mappings },
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [{ "name": "eth0", "sandbox": netns }],
                "ips": [{ "address": format!("{address}/16"), "gateway": "10.1.0.1", "interface": 0 }],
                "routes": [{ "dst": "0.0.0.0/0", "gw": "10.1.0.1" }],
            },
        });
        let order = Order::plugin(&self.program, verb, id, netns.to_owned(), &conf);
        let cost = self.runner.run(&order).cost;
        std::thread::sleep(if self.costs[0][0].is_empty() {
            Duration::ZERO
        } else {
            SETTLE
        });
        cost
    }

    fn add_and_del(&mut self, round: usize) {
        for (index, count) in AT_ONCE.into_iter().enumerate() {
            let id = format!("r{round}x{count}");
            let ports: Vec<_> = (0..count).map(|port| 30_100 + port).collect();
            for (verb, place) in [("ADD", 0), ("DEL", 1)] {
                let cost = self.call(verb, &id, 60_000, &ports);
                self.costs[index][place].push(cost);
            }
        }
    }

    /// Connections that one client after the other makes, and then bytes over one.
    fn send(&mut self, client: &Net) {
        let port = u16::try_from(10_000 + SERVED + 20_000).expect("a port");
        let to = SocketAddr::new(self.host.vtep().parse().expect("an address"), port);
        let (connections, gigabits) = client.run(|| {
            let begun = Instant::now();
            let mut count = 0_u32;
            while begun.elapsed() < SAMPLE {
                let mut connection = TcpStream::connect(to).expect("the server");
                connection.write_all(b"c").expect("it listens");
                let _ = connection.read(&mut [0; 1]);
                count += 1;
            }
            let rate = f64::from(count) / begun.elapsed().as_secs_f64();
            let mut stream = TcpStream::connect(to).expect("the server");
            let chunk = vec![b's'; 128 << 10];
            let (begun, mut sent) = (Instant::now(), 0.0);
            while begun.elapsed() < SAMPLE {
                stream.write_all(&chunk).expect("it reads");
                sent += 1.0;
            }
            let bits = sent * f64::from(128 << 13);
            (rate, bits / begun.elapsed().as_secs_f64() / 1e9)
        });
        self.connections.push(connections);
        self.gigabits.push(gigabits);
    }
}

/// A connection whose first byte is `c` gets one back and ends; any other is read to its end.
fn serve(mut connection: TcpStream) {
    let mut chunk = vec![0; 128 << 10];
    while let Ok(length @ 1..) = connection.read(&mut chunk) {
        if chunk[0] == b'c' && length == 1 {
            let _ = connection.write_all(b"c");
            return;
        }
    }
}

fn report(subjects: &[Subject<'_>], rounds: usize) -> Found {
    let shown = |it: &Spread| {
        format!(
            "{:.2} ({:.2} to {:.2})",
            it.median, it.quarter, it.three_quarters
        )
    };
    let body = subjects.iter().map(|it| {
        let times = it.costs.iter().flatten().map(|costs| shown(&walls(costs)));
        let rate = Spread::of(it.connections.clone());
        let gigabits = Spread::of(it.gigabits.clone());
        let mut row = vec![it.name.to_owned(), it.ports.to_string()];
        row.extend(times);
        row.push(megabytes(peak(it)));
        row.push(format!(
            "{:.0} ({:.0} to {:.0})",
            rate.median, rate.quarter, rate.three_quarters
        ));
        row.push(shown(&gigabits));
        row
    });
    let heads = [
        "plugin",
        "ports there",
        "ADD 1",
        "DEL 1",
        "ADD 5",
        "DEL 5",
        "peak",
        "connections/s",
        "Gbit/s",
    ];
    let heads = heads.map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(body).collect();
    let mut text = markdown(&rows);
    let _ = write!(
        text,
        "\nmilliseconds from spawn to exit, median (middle half), n = {rounds} each, interleaved; packets n = {}, {} ms each\n\n",
        rounds.div_ceil(4),
        SAMPLE.as_millis(),
    );
    text.push_str(&targets(subjects));
    Found {
        text,
        csv: csv(subjects),
        svg: None,
    }
}

fn walls(costs: &[Cost]) -> Spread {
    Spread::of(costs.iter().map(|it| milliseconds(it.wall)).collect())
}

fn peak(subject: &Subject<'_>) -> u64 {
    let all = subject.costs.iter().flatten().flatten();
    all.map(|cost| cost.peak).max().unwrap_or_default()
}

fn targets(subjects: &[Subject<'_>]) -> String {
    let mut text = String::new();
    let ours: Vec<_> = subjects.iter().filter(|it| it.name == "portmap").collect();
    for (index, count) in AT_ONCE.iter().enumerate() {
        for (place, verb) in ["ADD", "DEL"].iter().enumerate() {
            let medians: Vec<_> = ours
                .iter()
                .map(|it| walls(&it.costs[index][place]).median)
                .collect();
            let (low, high) = ends(&medians);
            let what = format!("{verb} of {count}: at most {MOST} ms");
            let _ = writeln!(
                text,
                "{}",
                target(&what, high <= MOST, &format!("{high:.2}"))
            );
            let what = format!("{verb} of {count}: flat from 10 to 20,000");
            let _ = writeln!(
                text,
                "{}",
                target(
                    &what,
                    high / low <= MOST_GROWTH,
                    &format!("{:.2}", high / low)
                )
            );
        }
    }
    let memory = ours.iter().map(|it| peak(it)).max().unwrap_or_default();
    let _ = writeln!(
        text,
        "{}",
        target("peak below 4 MB", memory < MOST_MEMORY, &megabytes(memory))
    );
    for (what, of) in [("connections", 0), ("throughput", 1)] {
        let medians: Vec<_> = ours
            .iter()
            .map(|it| {
                Spread::of(if of == 0 {
                    it.connections.clone()
                } else {
                    it.gigabits.clone()
                })
                .median
            })
            .collect();
        let (low, high) = ends(&medians);
        let said = format!("{:.2}", high / low);
        let _ = writeln!(
            text,
            "{}",
            target(&format!("{what}: flat"), high / low <= MOST_GROWTH, &said)
        );
    }
    text
}

/// A line about a target.
fn target(what: &str, holds: bool, is: &str) -> String {
    format!("{} {what}: {is}", verdict(holds))
}

fn ends(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    (low, values.iter().copied().fold(0.0, f64::max))
}

fn csv(subjects: &[Subject<'_>]) -> String {
    let mut text = "plugin,ports,verb,at_once,ms\n".to_owned();
    for it in subjects {
        for (index, count) in AT_ONCE.iter().enumerate() {
            for (place, verb) in ["ADD", "DEL"].iter().enumerate() {
                for cost in &it.costs[index][place] {
                    let (name, ports, ms) = (it.name, it.ports, milliseconds(cost.wall));
                    let _ = writeln!(text, "{name},{ports},{verb},{count},{ms:.3}");
                }
            }
        }
    }
    text
}
