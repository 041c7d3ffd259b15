//! What the segment lets through between containers of two hosts, beside the least that a VXLAN can cost: a bridge and a tunnel
//! made by hand in the host's own namespace, of the same MTU; the same on hosts with the one rule that containers' way out
//! needs, since the kernel's hooks for it cost every packet of the host something; and beside the underlay itself.
//!
//! The contenders take turns within each round and start with another one each time, and what counts is the ratio within
//! a round: a machine that has something else to do then has it in both. The hand-made ones have hosts of their own, so that
//! nobody's firewall is in their way.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::{Backend, Container, Host, Lab, Net, Programs, netconf};
use serde_json::Value;

use super::{Found, report::cell};
use crate::contender;
use crate::inside::{Order, Runner};
use crate::spread::Spread;
use crate::table::{markdown, verdict};

/// Before anything is counted: a TCP connection finds its window.
const WARM_UP: Duration = Duration::from_millis(60);
const COUNTED: Duration = Duration::from_millis(200);
/// Bytes of a write, and of a small packet's payload.
const CHUNK: usize = 64 << 10;
const SMALL: usize = 64;
/// So many packets are one sample of what they cost.
const ONE_BY_ONE: u32 = 4_000;
/// What is wanted: our throughput over that of the hand-made tunnel.
const LEAST_OF_FLOOR: f64 = 0.97;

const OURS: &str = "ours";
const FLOOR: &str = "VXLAN and bridge by hand";
/// Ours, of an earlier build.
const EARLIER: &str = "ours of AGAINST";
/// The way out of containers on a subnet that nobody has, as any runtime with a bridge makes it.
const NAT: &str = "nft add table ip nat
    nft add chain ip nat postrouting '{ type nat hook postrouting priority srcnat; }'
    nft add rule ip nat postrouting ip saddr 172.31.0.0/16 masquerade";

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    /// So many TCP streams at once.
    Streams(usize),
    /// UDP packets, as many as come through.
    Small,
    /// UDP packets one after the other, by what they cost the processor: whatever else runs is not in it.
    OneByOne,
}

const LOADS: [Load; 4] = [
    Load::Streams(1),
    Load::Streams(4),
    Load::Small,
    Load::OneByOne,
];

impl Load {
    fn name(self) -> String {
        match self {
            Self::Streams(1) => "TCP, 1 stream, Gbit/s".to_owned(),
            Self::Streams(many) => format!("TCP, {many} streams, Gbit/s"),
            Self::Small => format!("UDP of {SMALL} bytes, 1,000 packets/s"),
            Self::OneByOne => "the same one by one, 1,000 packets for a second of CPU".to_owned(),
        }
    }
}

/// From one namespace to an address of another.
struct Way {
    name: &'static str,
    from: Net,
    to: Net,
    address: IpAddr,
}

/// `rounds` rounds of each load on each way.
pub fn run(rounds: usize, say: &dyn Fn(&str)) -> Found {
    let lab = Lab::new(8, Backend::Dir);
    say("two hosts with containers on our segment, four with a bridge and a VXLAN made by hand");
    let mut ways = vec![
        ours(&lab, OURS, &Programs::product_folder(), [1, 2]),
        by_hand(&lab, FLOOR, [3, 4], "true"),
        by_hand(&lab, "the same beside NAT", [5, 6], NAT),
        underlay(&lab),
    ];
    ways.extend(contender::earlier().map(|folder| ours(&lab, EARLIER, &folder, [7, 8])));
    say(&format!(
        "{rounds} rounds of {} loads on {} ways",
        LOADS.len(),
        ways.len()
    ));
    // By load, then by way.
    let mut samples = LOADS.map(|_| vec![Vec::new(); ways.len()]);
    for round in 0..rounds {
        for (load, samples) in LOADS.iter().zip(&mut samples) {
            for turn in 0..ways.len() {
                let chosen = (round + turn) % ways.len();
                samples[chosen].push(ways[chosen].carries(*load));
            }
        }
    }
    told(&ways, &samples, rounds)
}

/// By the binaries of a folder.
fn ours(lab: &Lab, name: &'static str, folder: &Path, pair: [usize; 2]) -> Way {
    let (network, subnet) = (format!("path{}", pair[0]), format!("10.8.{}.0/24", pair[0]));
    let conf = netconf(&network, &subnet, "1.0.0");
    let program = folder.join("overlay");
    for number in pair {
        let sync = folder.join("crosshost").display().to_string();
        lab.host(number).run(&[&sync, "sync"]).ok();
    }
    let add = |number| {
        let host = lab.host(number);
        let container = host.container("ours");
        let order = Order::plugin(&program, "ADD", "ours", container.netns(), &conf);
        let said = Runner::start(host).run(&order).stdout;
        let result: Value = serde_json::from_str(&said).expect("a result");
        let address = result["ips"][0]["address"].as_str().and_then(|it| {
            let (address, _) = it.split_once('/')?;
            address.parse().ok()
        });
        (container, address.expect("an address"))
    };
    let ((from, _), (to, address)) = (add(pair[0]), add(pair[1]));
    assert_eq!(mtu(&from), 1450, "as the hand-made one");
    way(name, &from, &to, address)
}

fn by_hand(lab: &Lab, name: &'static str, pair: [usize; 2], before: &str) -> Way {
    let make = |number: usize, peer: usize| {
        let host = lab.host(number);
        let container = host.container("floor");
        let (local, remote) = (host.vtep(), lab.host(peer).vtep());
        host.script(&format!(
            "{before}
             ip link add br0 type bridge
             ip link add vx0 mtu 1450 type vxlan id 7 dstport 4789 local {local} remote {remote} dev ens3
             ip link add p0 mtu 1450 type veth peer name eth0 mtu 1450 netns floor
             for link in vx0 p0; do ip link set $link master br0 up; done
             ip link set br0 up
             ip -n floor address add 10.9.0.{number}/24 dev eth0
             ip -n floor link set eth0 up"
        ));
        container
    };
    let (from, to) = (make(pair[0], pair[1]), make(pair[1], pair[0]));
    assert_eq!(mtu(&from), 1450, "as ours");
    let last = u8::try_from(pair[1]).expect("a host's number");
    way(name, &from, &to, [10, 9, 0, last].into())
}

fn way(name: &'static str, from: &Container<'_>, to: &Container<'_>, address: IpAddr) -> Way {
    assert!(from.pings(address, &[]), "{name}: no way to {address}");
    let (from, to) = (from.net(), to.net());
    Way {
        name,
        from,
        to,
        address,
    }
}

fn underlay(lab: &Lab) -> Way {
    let net = |host: &Host| host.namespace().net();
    let address = lab.host(4).vtep().parse().expect("a VTEP");
    Way {
        name: "the underlay itself",
        from: net(lab.host(3)),
        to: net(lab.host(4)),
        address,
    }
}

fn mtu(container: &Container<'_>) -> u64 {
    container.link("eth0")["mtu"].as_u64().expect("an MTU")
}

impl Way {
    /// Gigabits or thousands of packets that arrive in a second.
    fn carries(&self, load: Load) -> f64 {
        match load {
            Load::Streams(many) => self.streams(many) * 8.0 / 1e9,
            Load::Small => self.packets() / 1e3,
            Load::OneByOne => self.packets_for_a_second_of_cpu() / 1e3,
        }
    }

    /// The kernel carries a packet from socket to socket in the time of the thread that sends it.
    fn packets_for_a_second_of_cpu(&self) -> f64 {
        let (sending, receiving) = self.sockets();
        let thread = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::try_from(time).expect("a time since the thread began")
        };
        let before = thread();
        let (mut buffer, mut arrived) = ([0; SMALL], 0);
        for _ in 0..ONE_BY_ONE {
            sending.send(&[0; SMALL]).expect("sent");
            arrived += u32::from(receiving.recv(&mut buffer).is_ok());
        }
        f64::from(arrived) / thread().saturating_sub(before).as_secs_f64()
    }

    fn streams(&self, many: usize) -> f64 {
        let listening = self.to.run(|| TcpListener::bind((self.address, 0)));
        let listening = listening.expect("listen");
        let at = listening.local_addr().expect("an address");
        let pair = |_| {
            let sending = self.from.run(|| TcpStream::connect(at)).expect("connect");
            (sending, listening.accept().expect("accept").0)
        };
        let pairs: Vec<_> = (0..many).map(pair).collect();
        let (arrived, over) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for (mut sending, mut receiving) in pairs {
                let (arrived, over) = (&arrived, &over);
                scope.spawn(move || {
                    let chunk = vec![0; CHUNK];
                    while !over.load(Ordering::Relaxed) && sending.write_all(&chunk).is_ok() {}
                    let _ = sending.shutdown(Shutdown::Both);
                });
                scope.spawn(move || {
                    let mut buffer = vec![0; CHUNK];
                    while let Ok(some @ 1..) = receiving.read(&mut buffer) {
                        arrived.fetch_add(some as u64, Ordering::Relaxed);
                    }
                });
            }
            rate(&arrived, &over)
        })
    }

    /// Of a sender and its receiver, which waits for a moment.
    fn sockets(&self) -> (UdpSocket, UdpSocket) {
        let bound = |net: &Net, to: SocketAddr| net.run(|| UdpSocket::bind(to)).expect("bind");
        let receiving = bound(&self.to, (self.address, 0).into());
        let sending = bound(&self.from, ([0, 0, 0, 0], 0).into());
        let at = receiving.local_addr().expect("an address");
        sending.connect(at).expect("connect");
        // Else it would never look whether it is over.
        let briefly = Some(Duration::from_millis(20));
        receiving.set_read_timeout(briefly).expect("a timeout");
        (sending, receiving)
    }

    fn packets(&self) -> f64 {
        let (sending, receiving) = self.sockets();
        let (arrived, over) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = sending.send(&[0; SMALL]);
                }
            });
            scope.spawn(|| {
                let mut buffer = [0; SMALL];
                while !over.load(Ordering::Relaxed) {
                    if receiving.recv(&mut buffer).is_ok() {
                        arrived.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            rate(&arrived, &over)
        })
    }
}

/// What arrives in a second; then it is over.
fn rate(arrived: &AtomicU64, over: &AtomicBool) -> f64 {
    thread::sleep(WARM_UP);
    let (begun, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
    thread::sleep(COUNTED);
    let (took, after) = (begun.elapsed(), arrived.load(Ordering::Relaxed));
    over.store(true, Ordering::Relaxed);
    let counted = u32::try_from((after - before) >> 6).unwrap_or(u32::MAX);
    f64::from(counted) * 64.0 / took.as_secs_f64()
}

fn told(ways: &[Way], samples: &[Vec<Vec<f64>>; LOADS.len()], rounds: usize) -> Found {
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(LOADS.map(Load::name));
    for (number, way) in ways.iter().enumerate() {
        let mut row = vec![way.name.to_owned()];
        row.extend((samples.iter()).map(|of| cell(&Spread::of(of[number].clone()))));
        rows.push(row);
    }
    let mut text = markdown(&rows);
    let _ = writeln!(
        text,
        "\nmedian (middle half), n = {rounds} each of {} ms, interleaved\n",
        COUNTED.as_millis()
    );
    let mut csv = "load,way,round,value\n".to_owned();
    for (load, samples) in LOADS.iter().zip(samples) {
        let of = |other: &[f64]| {
            let pairs = samples[0].iter().zip(other);
            Spread::of(pairs.map(|(ours, other)| ours / other).collect())
        };
        let [floor, nat, plain] = [1, 2, 3].map(|way| of(&samples[way]));
        let _ = writeln!(
            text,
            "{} {}: {:.3} ({:.3}-{:.3}) of the hand-made one's in the same round, at least {LEAST_OF_FLOOR}; \
             {:.3} ({:.3}-{:.3}) of that beside NAT; {:.2} of the underlay's",
            verdict(floor.median >= LEAST_OF_FLOOR),
            load.name(),
            floor.median,
            floor.quarter,
            floor.three_quarters,
            nat.median,
            nat.quarter,
            nat.three_quarters,
            plain.median,
        );
        if let Some(earlier) = samples.get(4).map(|earlier| of(earlier)) {
            let _ = writeln!(
                text,
                "{} {}: {:.3} ({:.3}-{:.3}) of the earlier build's in the same round, at least {LEAST_OF_FLOOR}",
                verdict(earlier.median >= LEAST_OF_FLOOR),
                load.name(),
                earlier.median,
                earlier.quarter,
                earlier.three_quarters,
            );
        }
        for (way, values) in ways.iter().zip(samples) {
            for (round, value) in values.iter().enumerate() {
                let (load, way) = (load.name(), way.name);
                let _ = writeln!(csv, "\"{load}\",{way},{round},{value:.4}");
            }
        }
    }
    Found {
        text,
        csv,
        svg: None,
    }
}
