//! What a thousand watching hosts cost a Consul when one of them changes what they all watch.
//!
//! The hosts are records and connections (`seed`, `watcher`), all on this one machine, which reads all their answers beside
//! the Consul that writes them: on as many machines the last would have its answer sooner. The change is written as
//! the product writes it. A lease is written too, and must wake nobody.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use integration::{Backend, Consul, Lab};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::watcher::{Answered, Herd};
use super::{Found, report::cell, seed};
use crate::spread::{Spread, milliseconds};
use crate::table::markdown;

const HOSTS: u32 = 1_000;
const NETWORK: &str = "herd";
const ROOT: &str = "crosshost/v1";
/// Until all queries wait at Consul, and until it has finished what answers left to do.
const SETTLE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_mins(1);

/// One change, and what came of it.
struct Sample {
    answered: Answered,
    /// Until the writer had its own answer.
    write: Duration,
    /// Of the Consul process.
    cpu: Duration,
}

/// What is watched and how.
struct Scene {
    name: &'static str,
    prefix: &'static str,
    gzip: bool,
    /// The transaction of change number `n`.
    change: fn(&Consul, usize) -> Value,
}

const SCENES: [Scene; 3] = [
    Scene {
        name: "a block is claimed; all watch blocks/",
        prefix: "blocks/herd",
        gzip: false,
        change: claim,
    },
    Scene {
        name: "the same, if they asked for gzip",
        prefix: "blocks/herd",
        gzip: true,
        change: claim,
    },
    Scene {
        name: "a host syncs; all watch nodes/",
        prefix: "nodes",
        gzip: false,
        change: contact,
    },
];

/// All scenes, `rounds` changes each.
pub fn run(rounds: usize, say: &dyn Fn(&str)) -> Found {
    // A socket a host, and some.
    let mut files: Rlimit = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).expect("more open files");

    let lab = Lab::new(1, Backend::Consul);
    let host = lab.host(1);
    host.sync();
    let create = format!("network create {NETWORK} --subnet 10.0.0.0/8 --block-prefix 24");
    host.crosshost(&create).ok();
    let consul = lab.consul();
    seed::seed(consul, seed::nodes(HOSTS - 1));
    let blocks = seed::free_blocks(consul, NETWORK, "10.0.0.0", 24, 8).zip(0..HOSTS - 1);
    let blocks: Vec<_> = blocks.collect();
    seed::seed(
        consul,
        blocks.iter().map(|(block, number)| {
            seed::block(NETWORK, &format!("{block}_24"), &seed::node(*number))
        }),
    );
    assert_eq!(
        host.listed("node ls").as_array().map(Vec::len),
        Some(HOSTS as usize)
    );
    let process = process_of(consul);
    let idle = memory(process);

    let mut rows = vec![
        [
            "1,000 hosts",
            "bytes sent by Consul",
            "a host",
            "Consul's CPU ms",
            "ms to the write's answer",
            "to the first host's",
            "to the last host's",
        ]
        .map(str::to_owned),
    ];
    let mut csv = "scene,round,bytes,cpu_ms,write_ms,first_ms,last_ms\n".to_owned();
    for scene in SCENES {
        say(scene.name);
        let (arrival, samples) = play(&lab, &scene, rounds, process);
        rows.push(row(&format!("all arrive: {}", scene.prefix), &[arrival]));
        rows.push(row(scene.name, &samples));
        for (round, it) in samples.iter().enumerate() {
            let times = [it.cpu, it.write, it.answered.first, it.answered.last];
            let times = times
                .map(|time| format!("{:.3}", milliseconds(time)))
                .join(",");
            let _ = writeln!(
                csv,
                "\"{}\",{round},{},{times}",
                scene.name, it.answered.bytes
            );
        }
    }
    let text = format!(
        "{}\nmedian (middle half), n = {rounds} changes; arrivals n = 1; payload without TCP's and IP's part; a lease written woke nobody\n\
         Consul's resident memory: {idle} MB with the records, {} MB after all this\n",
        markdown(&rows),
        memory(process)
    );
    Found {
        text,
        csv,
        svg: None,
    }
}

/// The herd arrives, then `rounds` changes are made.
fn play(lab: &Lab, scene: &Scene, rounds: usize, process: u32) -> (Sample, Vec<Sample>) {
    let consul = lab.consul();
    let path = format!("{ROOT}/{}", scene.prefix);
    lab.host(1).namespace().net().run(|| {
        let mut herd = Herd::connect(consul.address(), HOSTS as usize, &path, scene.gzip);
        let before = cpu(process);
        herd.ask();
        let answered = complete(herd.gather(LIMIT));
        std::thread::sleep(SETTLE);
        let arrival = Sample {
            answered,
            write: Duration::ZERO,
            cpu: cpu(process).saturating_sub(before),
        };
        let mut samples = Vec::new();
        for round in 0..rounds {
            let change = (scene.change)(consul, round);
            herd.ask();
            std::thread::sleep(SETTLE);
            if round == 0 {
                write(consul.address(), &lease(scene));
                let woken = herd.gather(SETTLE).count;
                assert_eq!(woken, 0, "a lease woke somebody");
            }
            let before = cpu(process);
            let (answered, write) = std::thread::scope(|scope| {
                let writing = scope.spawn(|| write(consul.address(), &change));
                let answered = herd.gather(LIMIT);
                (answered, writing.join().expect("the writer"))
            });
            std::thread::sleep(SETTLE);
            samples.push(Sample {
                answered: complete(answered),
                write,
                cpu: cpu(process).saturating_sub(before),
            });
        }
        (arrival, samples)
    })
}

fn complete(answered: Answered) -> Answered {
    assert_eq!(answered.count, u64::from(HOSTS), "within {LIMIT:?}");
    answered
}

/// A claim in the product's words: the network is as known, the block is nobody's.
fn claim(consul: &Consul, _: usize) -> Value {
    let network = format!("{ROOT}/networks/{NETWORK}");
    let free = seed::free_blocks(consul, NETWORK, "10.0.0.0", 24, 8).next();
    let block = format!("{}_24", free.expect("a block that nobody has"));
    let (key, record) = seed::block(NETWORK, &block, "docker01");
    json!([
        { "KV": { "Verb": "check-index", "Key": network, "Index": revision(consul, &network) } },
        seed::create(&format!("{ROOT}/{key}"), &record),
    ])
}

/// What `crosshost sync` writes of its host each time.
fn contact(consul: &Consul, round: usize) -> Value {
    let (key, mut record) = seed::nodes(1).next().expect("a node");
    record["lastContact"] = (1_790_000_001 + round).into();
    let key = format!("{ROOT}/{key}");
    let mut operation = seed::create(&key, &record);
    operation["KV"]["Index"] = revision(consul, &key).into();
    json!([operation])
}

/// A lease that nobody has to know of.
fn lease(scene: &Scene) -> Value {
    let number = scene.name.len().try_into().expect("a short name");
    let address = seed::address("10.200.0.0", number);
    let (key, record) = seed::lease(NETWORK, address, "sim0000", &seed::boot_id(0), number);
    json!([seed::create(&format!("{ROOT}/{key}"), &record)])
}

fn revision(consul: &Consul, key: &str) -> u64 {
    let (_, said) = consul.request("GET", &format!("/v1/kv/{key}"), "");
    let pairs: Value = serde_json::from_str(&said).expect("a pair");
    pairs[0]["ModifyIndex"].as_u64().expect("an index")
}

/// One transaction on a connection of its own; how long until its answer.
fn write(consul: SocketAddr, transaction: &Value) -> Duration {
    let body = transaction.to_string();
    let mut connection = TcpStream::connect(consul).expect("a connection to consul");
    let started = Instant::now();
    let length = body.len();
    let sent = write!(
        connection,
        "PUT /v1/txn HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    sent.expect("consul reads");
    let mut head = [0; 12];
    connection.read_exact(&mut head).expect("consul answers");
    let took = started.elapsed();
    assert!(head.ends_with(b"200"), "{}", String::from_utf8_lossy(&head));
    took
}

fn row(name: &str, samples: &[Sample]) -> [String; 7] {
    let of = |value: fn(&Sample) -> f64| cell(&Spread::of(samples.iter().map(value).collect()));
    let bytes = samples
        .iter()
        .map(|it| it.answered.bytes)
        .max()
        .unwrap_or(0);
    [
        name.to_owned(),
        grouped(bytes),
        grouped(bytes / u64::from(HOSTS)),
        of(|it| milliseconds(it.cpu)),
        if samples.iter().all(|it| it.write.is_zero()) {
            "-".to_owned()
        } else {
            of(|it| milliseconds(it.write))
        },
        of(|it| milliseconds(it.answered.first)),
        of(|it| milliseconds(it.answered.last)),
    ]
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The agent in the namespace of this Consul.
fn process_of(consul: &Consul) -> u32 {
    let identity = consul.namespace().identity();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut numbers = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let found = numbers.find(|number| {
        let name = std::fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
        let namespace = std::fs::read_link(format!("/proc/{number}/ns/net")).unwrap_or_default();
        name.trim() == "consul" && namespace.to_string_lossy() == identity
    });
    found.expect("a process of consul")
}

/// User and system time of all threads so far (proc(5), fields 14 and 15), in the kernel's hundredths of a second.
fn cpu(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a living consul");
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields = after_name.split(' ').skip(11).take(2);
    let ticks: u64 = fields.filter_map(|it| it.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Resident megabytes.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|it| it.trim().split(' ').next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024 / 1_000_000
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_grouped() {
        assert_eq!(super::grouped(1_234_567), "1,234,567");
        assert_eq!(super::grouped(999), "999");
    }
}
