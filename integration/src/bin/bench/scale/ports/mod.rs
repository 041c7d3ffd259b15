//! Does publishing a port become slower as more are published, and does the way of packets through one? Each number of
//! ports is a host of its own, for our plugin and for the reference with each of its backends; all take turns in every round.
//!
//! A port is published as nerdctl asks for it, with `hostIP` 0.0.0.0, for a container at an address of a bridge. The plugin looks
//! at its `prevResult` and at the host, never into the container; so the ports that are only there to be many are of
//! containers that are addresses alone. One that is measured by packets has a server behind it. It comes when half of the others are
//! there: on average a packet meets half of a list.

mod by_hand;
mod report;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use by_hand::{PATTERN, Rules};
use integration::{Backend, Host, Lab, Net, Programs, Server};
use serde_json::{Value, json};

use super::Found;
use crate::inside::{Cost, Order, Runner};
use crate::trace;

/// Ports that are there already.
const SIZES: [u32; 4] = [10, 500, 2_000, 20_000];
/// Ours, and the reference on each of its backends.
const PLUGINS: [Option<Rules>; 3] = [None, Some(Rules::Iptables), Some(Rules::Nftables)];
/// Ports in one call.
const AT_ONCE: [u32; 2] = [1, 5];
/// So long one subject's calls may take before it leaves the rounds, after this many at least.
const PATIENCE: Duration = Duration::from_secs(45);
const LEAST_ROUNDS: usize = 3;
/// What the kernel has to do after a call is nobody's time.
const SETTLE: Duration = Duration::from_millis(20);
/// How long packets are counted for one sample.
const SAMPLE: Duration = Duration::from_millis(400);
/// So many ports are compared when rules are made by hand.
const COMPARED: u32 = 5;

/// A container that is an address, with one published port.
struct Mapping {
    id: String,
    address: Ipv4Addr,
    host_port: u32,
}

impl Mapping {
    fn numbered(number: u32) -> Self {
        Mapping {
            id: format!("c{number}"),
            // 10.1.0.1 is the bridge, 10.1.0.2 the container that serves.
            address: Ipv4Addr::from(0x0a01_0003 + number),
            host_port: 10_000 + number,
        }
    }

    /// The one that has a server behind it.
    fn served() -> Self {
        Mapping {
            id: "served".to_owned(),
            address: Ipv4Addr::new(10, 1, 0, 2),
            host_port: 39_999,
        }
    }
}

struct Subject<'lab> {
    /// Whose rules, if they are the reference's.
    rules: Option<Rules>,
    ports: u32,
    lab: &'lab Lab,
    host: &'lab Host,
    runner: Runner,
    /// By number of ports at once: ADD, DEL.
    costs: [[Vec<Cost>; 2]; 2],
    /// Programs that ADD and DEL of one port start.
    children: [Option<u32>; 2],
    connections: Vec<f64>,
    gigabits: Vec<f64>,
    _server: Server,
}

/// Measures `rounds` ADDs and DELs of each, fewer of those that take too long.
pub fn run(rounds: usize, say: &dyn Fn(&str)) -> Found {
    for rules in PLUGINS.into_iter().flatten() {
        say(&format!("rules of {} by hand", rules.backend()));
        let lab = Lab::new(2, Backend::Dir);
        let mut made = [1, 2].map(|number| Subject::bare(Some(rules), COMPARED, &lab, number));
        for number in 0..COMPARED {
            made[0].publish(&Mapping::numbered(number));
        }
        made[1].publish(&Mapping::numbered(PATTERN));
        rules.load(lab.host(2), PATTERN + 1..COMPARED);
        by_hand::alike(rules, lab.host(1), lab.host(2));
    }
    let all: Vec<_> = PLUGINS
        .into_iter()
        .flat_map(|rules| SIZES.map(|size| (rules, size)))
        .collect();
    let labs: Vec<_> = all.iter().map(|_| Lab::new(2, Backend::Dir)).collect();
    let mut subjects: Vec<_> = all
        .iter()
        .zip(&labs)
        .map(|((rules, ports), lab)| {
            let mut subject = Subject::bare(*rules, *ports, lab, 1);
            say(&format!("{ports} ports by {}", subject.name()));
            subject.fill();
            subject
        })
        .collect();
    say(&format!("{rounds} rounds of {}", subjects.len()));
    for round in 0..rounds {
        for subject in turns(&mut subjects, round) {
            if round < LEAST_ROUNDS || subject.spent() < PATIENCE {
                subject.add_and_del(round);
            }
        }
    }
    say("packets");
    for round in 0..rounds.div_ceil(4).max(LEAST_ROUNDS) {
        for subject in turns(&mut subjects, round) {
            subject.send(&subject.lab.host(2).namespace().net());
        }
    }
    say("programs that are started");
    for subject in &mut subjects {
        subject.count_children();
    }
    report::report(&subjects)
}

fn turns<'a, 'lab>(subjects: &'a mut [Subject<'lab>], round: usize) -> Vec<&'a mut Subject<'lab>> {
    let mut turns: Vec<_> = subjects.iter_mut().collect();
    if round % 2 == 1 {
        turns.reverse();
    }
    turns
}

impl<'lab> Subject<'lab> {
    /// On a host without any port.
    fn bare(rules: Option<Rules>, ports: u32, lab: &'lab Lab, number: usize) -> Self {
        let host = lab.host(number);
        // A bridge as the reference makes one, and one container that is there.
        let served = host.container("served");
        host.script(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             ip link add br0 up type bridge
             ip address add 10.1.0.1/16 dev br0
             ip link add v0 master br0 up type veth peer eth0 netns served",
        );
        served.run("ip address add 10.1.0.2/16 dev eth0").ok();
        served.run("ip link set eth0 up").ok();
        served.run("ip route add default via 10.1.0.1").ok();
        Self {
            rules,
            ports,
            lab,
            host,
            runner: Runner::start(host),
            costs: Default::default(),
            children: [None; 2],
            connections: Vec::new(),
            gigabits: Vec::new(),
            _server: Server::start(served.net(), "0.0.0.0:80".parse().expect("all"), serve),
        }
    }

    fn name(&self) -> String {
        match self.rules {
            None => "portmap".to_owned(),
            Some(rules) => format!("reference, {}", rules.backend()),
        }
    }

    /// Publishes all ports that are to be there, the served one among them.
    fn fill(&mut self) {
        let (half, all) = (self.ports / 2, self.ports - 1);
        if let Some(rules) = self.rules {
            self.publish(&Mapping::numbered(PATTERN));
            rules.load(self.host, PATTERN + 1..half);
            self.publish(&Mapping::served());
            rules.load(self.host, half..all);
        } else {
            for number in 0..half {
                self.publish(&Mapping::numbered(number));
            }
            self.publish(&Mapping::served());
            for number in half..all {
                self.publish(&Mapping::numbered(number));
            }
        }
    }

    fn publish(&mut self, port: &Mapping) {
        let order = self.order("ADD", &port.id, port.address, &[port.host_port]);
        self.runner.run(&order);
    }

    fn order(&self, verb: &str, id: &str, address: Ipv4Addr, ports: &[u32]) -> Order {
        let mapping = |port| json!({ "hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0" });
        let mappings: Vec<_> = ports.iter().map(mapping).collect();
        let netns = "/run/netns/served";
        let mut conf: Value = json!({
            "cniVersion": "1.0.0", "name": "br", "type": "portmap",
            "runtimeConfig": { "portMappings": mappings },
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [{ "name": "eth0", "sandbox": netns }],
                "ips": [{ "address": format!("{address}/16"), "gateway": "10.1.0.1", "interface": 0 }],
                "routes": [{ "dst": "0.0.0.0/0", "gw": "10.1.0.1" }],
            },
        });
        let program = match self.rules {
            None => Programs::product("portmap"),
            Some(rules) => {
                conf["backend"] = rules.backend().into();
                Programs::upstream_portmap()
            }
        };
        Order::plugin(&program, verb, id, netns.to_owned(), &conf)
    }

    /// One more container, which comes and goes.
    fn coming(&self, verb: &str, id: &str, count: u32) -> Order {
        let ports: Vec<_> = (0..count).map(|port| 40_100 + port).collect();
        self.order(verb, id, Ipv4Addr::new(10, 1, 234, 96), &ports)
    }

    fn add_and_del(&mut self, round: usize) {
        for (index, count) in AT_ONCE.into_iter().enumerate() {
            let id = format!("r{round}x{count}");
            for (verb, place) in [("ADD", 0), ("DEL", 1)] {
                let order = self.coming(verb, &id, count);
                self.costs[index][place].push(self.runner.run(&order).cost);
                std::thread::sleep(SETTLE);
            }
        }
    }

    /// What its calls took so far.
    fn spent(&self) -> Duration {
        let all = self.costs.iter().flatten().flatten();
        all.map(|cost| cost.wall).sum()
    }

    fn count_children(&mut self) {
        self.children = ["ADD", "DEL"].map(|verb| {
            let order = trace::traced(self.coming(verb, "traced", 1))?;
            self.runner.run(&order);
            let execs = trace::of_last(self.host).programs;
            // One is the plugin's own.
            Some(execs - 1)
        });
    }

    /// Connections that one client after the other makes, and then bytes over one.
    fn send(&mut self, client: &Net) {
        let port = u16::try_from(Mapping::served().host_port).expect("a port");
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
