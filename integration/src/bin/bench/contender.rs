//! Who runs: each plugin and store that is compared, on a host of its own where it finds what it would find in daily life.
//!
//! Warm contenders have one resident endpoint, so that our sandbox and egress bridge, or the reference's `cni0`, are there
//! and stay. A cold contender's ADD is the first on its host and its DEL the last, so each makes all that and takes it down.
//! The hosts of our contenders are two of three that have the network, as forwarding costs something for each of the others.

use std::path::{Path, PathBuf};

use integration::{Footprint, Host, Lab, Programs, netconf};
use serde_json::{Value, json};

use crate::inside::{Answer, Cost, Order, Runner};
use crate::trace::{self, Trace};

/// Large enough that all rounds of a host fit into its first block.
const SUBNET: &str = "10.0.0.0/16";
const NETWORK: &str = "bench";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
        }
    }
}

/// What a contender executes.
enum Work {
    Plugin { file: PathBuf, conf: Value },
    Floor(PathBuf),
    Nothing,
}

pub struct Contender<'lab> {
    pub name: &'static str,
    /// Whether its ADD is the first on its host.
    cold: bool,
    host: &'lab Host,
    runner: Runner,
    work: Work,
    /// To be as before once everything is detached.
    before: Option<Footprint>,
}

/// The contenders' names by which the targets refer to them.
pub const OURS: &str = "overlay + ipam-kv, Consul";
pub const REFERENCE: &str = "bridge + host-local";
/// An [`earlier`] build, beside which a change is measured.
pub const EARLIER: &str = "overlay + ipam-kv of AGAINST, Consul";

/// The folder of the environment variable `AGAINST`, which has the binaries of an earlier `make build`.
pub fn earlier() -> Option<PathBuf> {
    let folder = std::env::var_os("AGAINST").filter(|folder| !folder.is_empty());
    folder.map(PathBuf::from)
}

/// All contenders, unprepared. `plain` has four hosts, the others three.
pub fn line_up<'lab>(
    consul: &'lab Lab,
    dir: &'lab Lab,
    plain: &'lab Lab,
    floor: &Path,
) -> Vec<Contender<'lab>> {
    for lab in [consul, dir] {
        lab.sync();
        lab.host(1).create_network(NETWORK, SUBNET);
    }
    let contender = |name, host: &'lab Host, cold, work| Contender {
        name,
        cold,
        runner: Runner::start(host),
        host,
        work,
        before: None,
    };
    let reference = |masquerade| Work::Plugin {
        file: Path::new(Programs::REFERENCE).join("bridge"),
        conf: reference_conf(masquerade),
    };
    let ours_in = |folder: PathBuf| Work::Plugin {
        file: folder.join("overlay"),
        conf: netconf(NETWORK, SUBNET, "1.0.0"),
    };
    let ours = || ours_in(Programs::product_folder());
    let earlier =
        earlier().map(|folder| contender(EARLIER, consul.host(3), false, ours_in(folder)));
    let mut all = vec![
        contender(OURS, consul.host(1), false, ours()),
        contender("overlay + ipam-kv, dir", dir.host(1), false, ours()),
        contender(REFERENCE, plain.host(1), false, reference(false)),
        contender(
            "bridge + host-local, ipMasq",
            plain.host(2),
            false,
            reference(true),
        ),
        contender(
            "floor: the kernel work alone",
            plain.host(3),
            false,
            Work::Floor(floor.to_owned()),
        ),
        contender(
            "nothing: exec of /bin/true",
            plain.host(3),
            false,
            Work::Nothing,
        ),
        contender(
            "overlay + ipam-kv, Consul: first, last",
            consul.host(2),
            true,
            ours(),
        ),
        contender(
            "overlay + ipam-kv, dir: first, last",
            dir.host(2),
            true,
            ours(),
        ),
        contender(
            "bridge + host-local: first, last",
            plain.host(4),
            true,
            reference(false),
        ),
    ];
    all.extend(earlier);
    all
}

/// What Debian's users of containerd and podman have, with or without masquerading.
fn reference_conf(masquerade: bool) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "ipMasq": masquerade,
        "ipam": {
            "type": "host-local",
            "ranges": [[{ "subnet": SUBNET }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    })
}

impl Contender<'_> {
    /// Makes the containers 0 to `containers` - 1, and attaches number 0 as the resident.
    pub fn prepare(&mut self, containers: usize) {
        if matches!(self.work, Work::Nothing) {
            return;
        }
        let last = containers - 1;
        let make = format!("for i in $(seq 0 {last}); do ip netns add c$i; done");
        self.host.script(&make);
        if let Work::Floor(file) = &self.work {
            let setup = [&file.to_string_lossy(), "setup"];
            self.host.run(&setup).ok();
        }
        if self.is_ours() {
            self.before = Some(self.host.footprint());
        }
        if !self.cold {
            self.run(Verb::Add, 0);
        }
    }

    /// Detaches the resident. Insists, for our plugins, that the host is as it was before the first ADD.
    pub fn finish(&mut self) {
        if !self.cold {
            self.run(Verb::Del, 0);
        }
        if let Some(before) = &self.before {
            self.host.footprint().assert_same_as(before, self.name);
        }
    }

    /// One call for container `number`.
    pub fn run(&mut self, verb: Verb, number: usize) -> Cost {
        let order = self.order(verb, number);
        let answer = self.runner.run(&order);
        self.check(verb, &answer);
        self.after(verb);
        answer.cost
    }

    /// One call under `strace`: what it and all that it started did. `None` if there is no strace.
    pub fn trace(&mut self, verb: Verb, number: usize) -> Option<Trace> {
        let Some(order) = trace::traced(self.order(verb, number)) else {
            self.run(verb, number);
            return None;
        };
        let answer = self.runner.run(&order);
        self.check(verb, &answer);
        self.after(verb);
        Some(trace::of_last(self.host))
    }

    fn order(&self, verb: Verb, number: usize) -> Order {
        let container = format!("c{number}");
        let netns = self.host.existing(&container).netns();
        match &self.work {
            Work::Nothing => Order::program("/bin/true", &[]),
            Work::Floor(file) => {
                let address = (number + 2).to_string();
                let arguments: &[&str] = match verb {
                    Verb::Add => &["add", &netns, &address],
                    Verb::Del => &["del", &netns],
                };
                Order::program(file, arguments)
            }
            Work::Plugin { file, conf } => {
                Order::plugin(file, verb.name(), &container, netns, conf)
            }
        }
    }

    /// A plugin that ended well but did nothing must not win.
    fn check(&self, verb: Verb, answer: &Answer) {
        if matches!(self.work, Work::Plugin { .. }) && verb == Verb::Add {
            let result: Value = serde_json::from_str(&answer.stdout).expect("a CNI result");
            assert!(
                result["ips"][0]["address"].is_string(),
                "{}: {result}",
                self.name
            );
        }
    }

    /// The reference never takes down its bridge, so that a cold one has to be helped.
    fn after(&self, verb: Verb) {
        if self.cold && verb == Verb::Del && !self.is_ours() {
            self.host.script("ip link delete cni0");
        }
    }

    fn is_ours(&self) -> bool {
        matches!(&self.work, Work::Plugin { file, .. } if file.ends_with("overlay"))
    }
}
