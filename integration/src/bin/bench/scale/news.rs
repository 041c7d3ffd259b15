//! How long others take to hear of a host that nobody knew: from its first ADD on a network to the entry by which another
//! host, on which nothing runs but a watcher, sends to it.
//!
//! The new host is the same one each time, removed from the cluster and booted anew. The kernel itself says when the entry
//! is there: `bridge monitor` runs in the sandbox of each host that watches.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use integration::{Attachment, Backend, Host, Lab, Watching, conflist};

use super::{Found, report::cell, seed};
use crate::spread::{Spread, milliseconds};
use crate::table::{markdown, megabytes, verdict};

const NETWORK: &str = "news";
const SUBNET: &str = "10.0.0.0/16";
/// Hosts that watch.
const WATCHING: usize = 3;
const LIMIT: Duration = Duration::from_secs(10);
/// What a removal leaves to do, and a query's rest after its answer.
const SETTLE: Duration = Duration::from_millis(1500);
/// What is wanted, in milliseconds after the ADD.
const MOST: f64 = 100.0;
/// What is wanted, in bytes.
const MOST_MEMORY: u64 = 10_000_000;
/// Hosts beside these in the large cluster.
const CROWD: u32 = 1_000;

/// A host's kernel, asked to say what changes in its sandbox.
struct Monitor {
    process: Child,
    lines: Receiver<(Instant, String)>,
}

/// What one cluster showed.
struct Scene {
    hosts: usize,
    samples: Vec<Sample>,
    /// Peak of any watcher, in bytes.
    memory: u64,
}

/// One first ADD.
struct Sample {
    /// Until it was answered.
    add: Duration,
    /// From its start until each watching host had its entry.
    heard: Vec<Duration>,
}

/// A cluster of few hosts and one of many, `rounds` new ones in the first and a third as many in the second.
pub fn run(rounds: usize, say: &dyn Fn(&str)) -> Found {
    let scenes = [(0, rounds), (CROWD, rounds.div_ceil(3))];
    found(&scenes.map(|(crowd, rounds)| scene(crowd, rounds, say)))
}

/// One cluster, in which `crowd` hosts are known besides, with a block each, and do nothing.
fn scene(crowd: u32, rounds: usize, say: &dyn Fn(&str)) -> Scene {
    let lab = Lab::new(u8::try_from(WATCHING + 1).expect("few"), Backend::Consul);
    let (old, new) = lab.hosts().split_at(WATCHING);
    let new = &new[0];
    for host in old {
        host.sync();
    }
    let create = ["network", "create", NETWORK, "--subnet", SUBNET];
    let create = [&create[..], &["--block-prefix", "29"]].concat();
    old[0].crosshost(&create).ok();
    let consul = lab.consul();
    seed::seed(consul, seed::nodes(crowd));
    let blocks = seed::free_blocks(consul, NETWORK, "10.0.0.0", 16, 3).zip(0..crowd);
    let blocks: Vec<_> = blocks.collect();
    let block = |(first, number): &(std::net::Ipv4Addr, u32)| {
        seed::block(NETWORK, &format!("{first}_29"), &seed::node(*number))
    };
    seed::seed(consul, blocks.iter().map(block));
    lab.install(&conflist(NETWORK, SUBNET));
    let _containers: Vec<_> = old
        .iter()
        .map(|host| Attachment::new(host, "t1", NETWORK))
        .collect();
    let watchers: Vec<_> = old.iter().map(Host::watch).collect();
    let monitors: Vec<_> = old.iter().map(Monitor::start).collect();
    std::thread::sleep(SETTLE);

    say(&format!(
        "{rounds} new hosts, {WATCHING} that watch, {crowd} more"
    ));
    let samples = (0..rounds).map(|_| sample(&old[0], new, &monitors));
    Scene {
        hosts: crowd as usize + WATCHING,
        samples: samples.collect(),
        memory: watchers
            .iter()
            .map(Watching::peak_memory)
            .max()
            .unwrap_or(0),
    }
}

fn sample(any: &Host, new: &Host, monitors: &[Monitor]) -> Sample {
    for monitor in monitors {
        while monitor.lines.try_recv().is_ok() {}
    }
    let begun = Instant::now();
    let attached = Attachment::new(new, "t1", NETWORK);
    let add = begun.elapsed();
    let heard = monitors.iter().map(|it| it.await_entry(new) - begun);
    let heard = heard.collect();
    attached.detach().ok();
    new.reboot();
    any.crosshost(&["node", "rm", new.name(), "--force"]).ok();
    std::thread::sleep(SETTLE);
    Sample { add, heard }
}

impl Monitor {
    fn start(host: &Host) -> Monitor {
        let mut command = host.namespace().command("nsenter");
        command.arg(format!("--net=/run/crosshost/netns/{NETWORK}"));
        // A line at a time: a pipe would otherwise be filled first.
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]);
        command.args(["stdbuf", "-oL", "bridge", "monitor", "fdb"]);
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = started.expect("bridge, of iproute2, and stdbuf");
        let output = process.stdout.take().expect("a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send((Instant::now(), line));
            }
        });
        Monitor { process, lines }
    }

    /// When the first entry towards a host was made.
    fn await_entry(&self, host: &Host) -> Instant {
        let to = format!("dst {}", host.vtep());
        loop {
            let (at, line) = self.lines.recv_timeout(LIMIT).expect("news in time");
            if line.contains(&to) && !line.starts_with("Deleted") {
                return at;
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn found(scenes: &[Scene]) -> Found {
    let head = [
        "first ADD of a new host",
        "n",
        "median ms (middle half)",
        "p99",
        "max",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let mut said = String::new();
    let mut csv = "hosts,round,host,add_ms,heard_ms\n".to_owned();
    for scene in scenes {
        let hosts = scene.hosts;
        let adds: Vec<_> = (scene.samples.iter())
            .map(|it| milliseconds(it.add))
            .collect();
        let each = |value: fn(&Sample, Duration) -> Duration| -> Vec<f64> {
            let of = |it: &Sample| {
                let values = it.heard.iter().map(|at| milliseconds(value(it, *at)));
                values.collect::<Vec<_>>()
            };
            scene.samples.iter().flat_map(of).collect()
        };
        // Where the entry was there first, packets of the new container found it.
        let after = each(|it, at| at.saturating_sub(it.add));
        for (name, values) in [
            ("until the ADD is answered", &adds),
            ("until another host has the entry", &each(|_, at| at)),
            ("that is, after the answer", &after),
        ] {
            let spread = Spread::of(values.clone());
            rows.push([
                format!("{hosts} hosts: {name}"),
                values.len().to_string(),
                cell(&spread),
                format!("{:.1}", percentile(values, 0.99)),
                format!("{:.1}", spread.max),
            ]);
        }
        let late = percentile(&after, 0.99);
        let _ = writeln!(
            said,
            "{}  {hosts} hosts: entry on others at most {MOST} ms after the first ADD: p99 {late:.1}\n\
             {}  {hosts} hosts: a watcher has at most {} MB resident: {} MB",
            verdict(late <= MOST),
            verdict(scene.memory < MOST_MEMORY),
            megabytes(MOST_MEMORY),
            megabytes(scene.memory),
        );
        for (round, it) in scene.samples.iter().enumerate() {
            for (host, at) in it.heard.iter().enumerate() {
                let (add, at) = (milliseconds(it.add), milliseconds(*at));
                let _ = writeln!(csv, "{hosts},{round},{host},{add:.3},{at:.3}");
            }
        }
    }
    Found {
        text: format!(
            "{}\n{WATCHING} of the hosts run, and watch\n\n{said}",
            markdown(&rows)
        ),
        csv,
        svg: None,
    }
}

/// The smallest value that this part of all does not exceed.
fn percentile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let above = values.iter().enumerate().find(|(at, _)| {
        #[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
        let share = (*at + 1) as f64 / values.len() as f64;
        share >= part
    });
    above.map_or(f64::NAN, |(_, value)| *value)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert!((super::percentile(&values, 0.99) - 198.0).abs() < f64::EPSILON);
        assert!((super::percentile(&[5.0], 0.99) - 5.0).abs() < f64::EPSILON);
    }
}
