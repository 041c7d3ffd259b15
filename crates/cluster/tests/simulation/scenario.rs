//! What a seed draws before it begins: the number of hosts, the pool, the faults and their frequency. Each run has only some of
//! the faults, because two at once can hide what either would show.

use cluster::{LeaseOwner, NetworkSpec};
use ipam::RangeSet;

use crate::{lies::Planted, random::Random};

/// Names of the networks; most runs have only the first.
pub const NETWORKS: [&str; 2] = ["net", "two"];
/// The interface of a container on each network; a container is on one network only.
const INTERFACES: [&str; 2] = ["eth0", "eth1"];

/// A container of a network.
pub fn owner(network: &str, container: String) -> LeaseOwner {
    let index = usize::from(network == NETWORKS[1]);
    LeaseOwner {
        container,
        ifname: INTERFACES[index].to_owned(),
    }
}

/// The network of a container.
pub fn network_of(owner: &LeaseOwner) -> &'static str {
    NETWORKS[usize::from(owner.ifname == INTERFACES[1])]
}

/// The conditions of a run.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub hosts: usize,
    /// The networks, which share no address.
    pub specs: Vec<NetworkSpec>,
    /// Whether hosts forward, as with `overlay`. Otherwise the plugin runs under a foreign interface plugin.
    pub forwards: bool,
    pub planted: Option<Planted>,
    /// How many acts the runtimes and the operator perform before the end.
    pub acts: u64,
    /// Longest pause between two of them, in ms.
    pub pause: u64,
    /// Containers of a host.
    pub containers: u64,
    /// The longest delay of a message in one direction, in ms.
    pub delay: u64,
    /// How long a verb waits for other hosts, in ms.
    pub patience: u64,
    /// Seconds for which an address rests.
    pub cool_down: u64,
    /// Interval at which a host syncs by itself, in ms; 0: only on command.
    pub watcher: u64,
    pub faults: Faults,
}

/// The frequency of each fault, per mille.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// A request is lost.
    pub lost_request: u64,
    /// An answer is lost.
    pub lost_answer: u64,
    /// A request whose sender gave up arrives late, or a second time.
    pub late: u64,
    /// A process sleeps long between an answer and what it does about it.
    pub stall: u64,
    /// A process dies at a call of the store.
    pub crash: u64,
    /// A process dies between two writes of its own documents.
    pub crash_writing: u64,
    /// The caller is gone when it is told its address.
    pub untold: u64,
    /// Among the acts: a host is cut off; the store is away; a clock jumps; a host dies; the store is restored; a long time
    /// passes.
    pub partition: u64,
    pub outage: u64,
    pub clock_jump: u64,
    pub host_death: u64,
    pub restore: u64,
    pub long_pause: u64,
    /// An operator removes a network: its containers end, and then it goes.
    pub removal: u64,
}

impl Scenario {
    /// The conditions of a seed.
    pub fn draw(random: &mut Random, planted: Option<Planted>) -> Self {
        let hosts = usize::try_from(random.between(2, 5)).unwrap_or(2);
        let reclaims = random.chance(250);
        let mut scenario = Self {
            hosts,
            specs: vec![NetworkSpec {
                name: NETWORKS[0].to_owned(),
                id: Some(format!("id-{}", random.below(1000))),
                reclaim_after: reclaims.then(|| *random.pick(&[120, 300, 900])),
                ..pool(random, str::to_owned)
            }],
            forwards: random.chance(700),
            planted,
            acts: random.between(20, 70),
            pause: *random.pick(&[50, 500, 5_000, 30_000]),
            containers: random.between(3, 8),
            delay: *random.pick(&[2, 20, 500]),
            patience: *random.pick(&[0, 2_000, 20_000]),
            cool_down: *random.pick(&[0, 5, 60]),
            watcher: *random.pick(&[0, 0, 7_000, 30_000]),
            faults: Faults::draw(random),
        };
        if random.chance(200) {
            let apart = |ranges: &str| {
                let ranges = ranges.replace("10.1.", "10.3.").replace("10.2.", "10.4.");
                ranges.replace("fd00:1:", "fd00:3:")
            };
            scenario.specs.push(NetworkSpec {
                name: NETWORKS[1].to_owned(),
                id: Some("two".to_owned()),
                reclaim_after: None,
                ..pool(random, apart)
            });
        }
        for spec in &mut scenario.specs {
            spec.segment = scenario.forwards;
        }
        if planted == Some(Planted::ReclaimUnfenced) {
            // This needs a host that is cut off, and others that wait long enough and need addresses.
            scenario.specs[0].reclaim_after = Some(30);
            (scenario.pause, scenario.acts, scenario.containers) = (5_000, 120, 8);
            (scenario.faults.partition, scenario.faults.long_pause) = (60, 20);
            (scenario.faults.outage, scenario.faults.restore) = (0, 0);
        }
        if planted == Some(Planted::RestoreRemoved) {
            // This needs a host that gives out an address while it is cut off, and an operator who removes the network.
            (scenario.pause, scenario.acts, scenario.containers) = (5_000, 120, 3);
            (scenario.faults.partition, scenario.faults.removal) = (60, 60);
            (scenario.faults.outage, scenario.faults.restore) = (0, 0);
            scenario.watcher = 7_000;
        }
        scenario
    }

    /// The spec of a network.
    pub fn spec(&self, network: &str) -> &NetworkSpec {
        let spec = self.specs.iter().find(|spec| spec.name == network);
        spec.unwrap()
    }

    /// The networks of this run.
    pub fn networks(&self) -> &'static [&'static str] {
        &NETWORKS[..self.specs.len()]
    }
}

impl Faults {
    fn draw(random: &mut Random) -> Self {
        let mut all = Self::default();
        // One run in six has no faults: it shows what a quiet cluster does.
        if random.chance(160) {
            return all;
        }
        let mut some = |fault: &mut u64, of: [u64; 3]| {
            if random.chance(400) {
                *fault = *random.pick(&of);
            }
        };
        some(&mut all.lost_request, [5, 30, 150]);
        some(&mut all.lost_answer, [5, 30, 150]);
        some(&mut all.late, [10, 100, 500]);
        some(&mut all.stall, [3, 20, 60]);
        some(&mut all.crash, [5, 20, 80]);
        some(&mut all.crash_writing, [5, 20, 80]);
        some(&mut all.untold, [10, 50, 200]);
        some(&mut all.partition, [20, 50, 100]);
        some(&mut all.outage, [10, 30, 60]);
        some(&mut all.clock_jump, [10, 30, 60]);
        some(&mut all.host_death, [10, 30, 60]);
        some(&mut all.restore, [5, 15, 30]);
        some(&mut all.long_pause, [10, 30, 60]);
        some(&mut all.removal, [10, 30, 100]);
        all
    }
}

/// One of the pools. They are small, because the interesting cases come when addresses run out.
fn pool(random: &mut Random, place: impl Fn(&str) -> String) -> NetworkSpec {
    let pools: [(&str, Option<u8>); 10] = [
        (r#"[[{"subnet":"10.1.0.0/28"}]]"#, None),
        (
            r#"[[{"subnet":"10.1.0.0/28","exclude":["10.1.0.4/31"]}]]"#,
            None,
        ),
        (
            r#"[[{"subnet":"10.1.0.0/28","rangeStart":"10.1.0.3","rangeEnd":"10.1.0.9"}]]"#,
            Some(30),
        ),
        (r#"[[{"subnet":"10.1.0.0/27"}]]"#, Some(30)),
        (
            r#"[[{"subnet":"10.1.0.0/27","exclude":["10.1.0.8/30","10.1.0.17"]}]]"#,
            Some(29),
        ),
        (r#"[[{"subnet":"10.1.0.0/26"}]]"#, Some(29)),
        (
            r#"[[{"subnet":"10.1.0.0/28"},{"subnet":"10.2.0.0/29"}]]"#,
            None,
        ),
        (
            r#"[[{"subnet":"10.1.0.0/28"}],[{"subnet":"fd00:1::/120"}]]"#,
            None,
        ),
        (
            r#"[[{"subnet":"10.1.0.0/28"}],[{"subnet":"10.2.0.0/28"}]]"#,
            None,
        ),
        (
            r#"[[{"subnet":"10.1.0.0/27"}],[{"subnet":"fd00:1::/64"}]]"#,
            None,
        ),
    ];
    let (ranges, block_prefix) = random.pick(&pools);
    let ranges: Vec<RangeSet> = serde_json::from_str(&place(ranges)).unwrap();
    let checked = ranges.into_iter().map(|set| {
        set.into_iter()
            .map(|range| range.check().unwrap())
            .collect()
    });
    NetworkSpec {
        ranges: checked.collect(),
        block_prefix: *block_prefix,
        ..NetworkSpec::default()
    }
}
