//! SIGKILL at fifty points of an ADD, to the one process that is `overlay` and `ipam-kv`, or to either of them where they are two:
//! DEL then leaves nothing, and an ADD that follows without a DEL repairs and completes.
//!
//! The points are spread over the time that the victim lives here, measured first and again whenever it
//! ended before its kill. Such a round is an ordinary ADD and is not counted. A kill lands where the
//! scheduler lets it, so no two runs of this test cut at the same instructions.

use std::time::{Duration, Instant};

use crate::store_reader::assert_no_lease;
use integration::{Backend, Call, Container, Finished, Lab, Programs, address_of, netconf};
use serde_json::{Value, json};

const POINTS: u32 = 50;
const SUBNET: &str = "10.0.0.0/24";
const LIMIT: Duration = Duration::from_secs(30);
const ID: &str = "killed-0123456789";

/// Whom a kill hits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    /// The process of both plugins.
    Both,
    /// The process of `overlay`, whose `ipam-kv` goes on.
    Overlay,
    /// The process of `ipam-kv`, whose `overlay` says so.
    Ipam,
}

#[test]
fn both_on_the_embedded_store() {
    sweep(Backend::Dir, Victim::Both);
}

#[test]
fn both_on_consul() {
    sweep(Backend::Consul, Victim::Both);
}

#[test]
fn overlay_on_the_embedded_store() {
    sweep(Backend::Dir, Victim::Overlay);
}

#[test]
fn overlay_on_consul() {
    sweep(Backend::Consul, Victim::Overlay);
}

#[test]
fn ipam_kv_on_the_embedded_store() {
    sweep(Backend::Dir, Victim::Ipam);
}

#[test]
fn ipam_kv_on_consul() {
    sweep(Backend::Consul, Victim::Ipam);
}

fn sweep(backend: Backend, victim: Victim) {
    let lab = Lab::new(1, backend);
    let host = lab.host(1);
    let apart = Programs::with_ipam_apart();
    if victim != Victim::Both {
        host.exchange_programs(Some(apart.path().to_owned()));
    }
    host.sync();
    host.create_network("ov_net1", SUBNET);
    let round = Round {
        lab: &lab,
        container: host.container("t1"),
        conf: netconf("ov_net1", SUBNET, "1.0.0"),
    };
    // The first ADD ever on this host also leaves what is meant to stay: a lock file, a snapshot.
    round.call("ADD").run().ok();
    round.call("DEL").run().ok();
    let untouched = lab.footprints();
    let mut span = round.lifetime(victim);

    let mut hits = 0;
    for turn in 0..5 * POINTS {
        // Steps of the golden section spread any number of points evenly.
        let after = span.mul_f64((f64::from(turn) * 0.618_034).fract());
        let what = format!("{victim:?} killed {after:?} after its start");

        let killed = round.killed(victim, after);
        round.call("DEL").run().ok();
        lab.assert_same_as(&untouched, &format!("{what}, then DEL"));
        round.assert_no_lease(&format!("{what}, then DEL"));
        if killed.status.success() {
            span = round.lifetime(victim);
            continue;
        }

        let killed = round.killed(victim, after);
        let add = round.call("ADD").run();
        // Only an ADD that had told its whole result may be called a duplicate. It need not: it may have died before it
        // noted that it had.
        let told = serde_json::from_str::<Value>(&killed.stdout);
        let told = told.is_ok_and(|it| it["ips"].is_array());
        if !told || add.status.success() {
            assert!(add.status.success(), "{what}, {killed}, then {add}");
            let address = address_of(&add.json(), "eth0");
            assert_eq!(round.container.address("eth0"), Some(address), "{what}");
        }
        round.call("DEL").run().ok();
        lab.assert_same_as(&untouched, &format!("{what}, ADD again, DEL"));
        round.assert_no_lease(&format!("{what}, ADD again, DEL"));
        hits += 1;
        if hits == POINTS {
            return;
        }
    }
    panic!("only {hits} kills hit a running {victim:?}");
}

struct Round<'lab> {
    lab: &'lab Lab,
    container: Container<'lab>,
    conf: Value,
}

impl Round<'_> {
    fn call(&self, verb: &str) -> Call<'_> {
        self.container.call(verb, &self.conf).id(ID)
    }

    /// How long `victim` lives in an ordinary ADD: the shortest of three.
    fn lifetime(&self, victim: Victim) -> Duration {
        let one = |_| {
            let add = self.call("ADD").start();
            // It may have come and gone before we looked.
            let child = (victim == Victim::Ipam).then(|| add.child("ipam-kv"));
            let lifetime = child.map(|child| {
                let seen = Instant::now();
                child
                    .is_some_and(|child| child.ends_within(LIMIT))
                    .then(|| seen.elapsed())
            });
            let took = add.wait(LIMIT).ok().took;
            self.call("DEL").run().ok();
            lifetime.unwrap_or(Some(took))
        };
        let mut lifetimes: Vec<_> = (0..30).filter_map(one).take(3).collect();
        lifetimes.sort();
        *lifetimes.first().expect("overlay runs its IPAM plugin")
    }

    /// An ADD whose `victim` gets SIGKILL `after` its start.
    fn killed(&self, victim: Victim, after: Duration) -> Finished {
        let add = self.call("ADD").start();
        if victim != Victim::Ipam {
            add.kill_after(after);
        } else if let Some(child) = add.child("ipam-kv") {
            child.kill_after(after);
        }
        let finished = add.wait(LIMIT);
        if victim == Victim::Ipam && !finished.status.success() {
            let error = finished.json();
            assert!(
                error["code"].is_u64(),
                "ipam-kv died, overlay says so: {finished}"
            );
        }
        finished
    }

    fn assert_no_lease(&self, when: &str) {
        assert_no_lease(self.lab, when);
        let listed = self.lab.host(1).listed("endpoint ls");
        assert_eq!(listed, json!([]), "{when}");
    }
}
