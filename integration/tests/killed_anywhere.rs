//! SIGKILL at fifty points of an ADD, to `overlay` or to the `ipam-kv` that it runs: DEL then leaves
//! nothing, and an ADD that follows without a DEL repairs and completes.
//!
//! The points are spread over the time that an ADD takes here, measured first. A kill lands where the
//! scheduler lets it, so no two runs cut at the same instructions; a round whose ADD completed before
//! the kill counts as an ordinary ADD.
#![allow(clippy::expect_used, reason = "a test: it stops where it broke")]

mod reader;

use std::time::{Duration, Instant};

use integration::{Backend, Call, Container, Finished, Lab, address_of, netconf};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

const POINTS: u32 = 50;
const SUBNET: &str = "10.0.0.0/24";
const ID: &str = "killed-0123456789";

#[test]
fn overlay_on_the_embedded_store() {
    sweep(Backend::Dir, "overlay");
}

#[test]
fn overlay_on_consul() {
    sweep(Backend::Consul, "overlay");
}

#[test]
fn ipam_kv_on_the_embedded_store() {
    sweep(Backend::Dir, "ipam-kv");
}

#[test]
fn ipam_kv_on_consul() {
    sweep(Backend::Consul, "ipam-kv");
}

fn sweep(backend: Backend, victim: &str) {
    let lab = Lab::new(1, backend);
    let host = lab.host(1);
    host.crosshost(&["sync"]).ok();
    let create = ["network", "create", "ov_net1", "--subnet", SUBNET];
    host.crosshost(&create).ok();
    let round = Round {
        lab: &lab,
        container: host.container("t1"),
        conf: netconf("ov_net1", SUBNET, "1.0.0"),
    };
    // The first ADD ever on this host also leaves what is meant to stay: lock file, copy of the news.
    round.call("ADD").run().ok();
    round.call("DEL").run().ok();
    let untouched = lab.footprints();
    let span = round.measured(victim);

    let mut cut_short = 0;
    for point in 0..POINTS {
        // A little beyond the median, so that the end of a slow ADD is hit too.
        let after = span.mul_f64(1.2 * f64::from(point) / f64::from(POINTS));
        let what = format!("{victim} killed {after:?} after its start");

        let killed = round.killed(victim, after);
        cut_short += u32::from(!killed.status.success());
        round.call("DEL").run().ok();
        lab.assert_same_as(&untouched, &format!("{what}, then DEL"));
        round.assert_no_lease(&format!("{what}, then DEL"));

        let killed = round.killed(victim, after);
        let add = round.call("ADD").run();
        // Only an ADD that had told its whole result may be called a duplicate.
        if serde_json::from_str::<Value>(&killed.stdout).is_ok_and(|it| it["ips"].is_array()) {
            assert!(!add.status.success(), "{what}: a second ADD: {add}");
        } else {
            let result = add.ok().json();
            let address = address_of(&result, "eth0");
            assert_eq!(round.container.address("eth0"), Some(address), "{what}");
        }
        round.call("DEL").run().ok();
        lab.assert_same_as(&untouched, &format!("{what}, ADD again, DEL"));
        round.assert_no_lease(&format!("{what}, ADD again, DEL"));
    }
    assert!(
        cut_short > POINTS / 4,
        "only {cut_short} of {POINTS} kills hit a running ADD"
    );
}

struct Round<'lab> {
    lab: &'lab Lab,
    container: Container<'lab>,
    conf: Value,
}

impl Round<'_> {
    fn call(&self, verb: &str) -> Call<'_> {
        let call = self.lab.host(1).call("overlay", verb).id(ID);
        call.netns(&self.container.netns()).conf(&self.conf)
    }

    /// How long `victim` lives in an ordinary ADD: the median of five.
    fn measured(&self, victim: &str) -> Duration {
        let mut spans: Vec<_> = (0..5)
            .map(|_| {
                let start = Instant::now();
                let mut add = self.call("ADD").start();
                let mut born = Duration::ZERO;
                if victim != "overlay" {
                    add.child(victim).expect("overlay runs its IPAM plugin");
                    born = start.elapsed();
                }
                let took = add.wait(Duration::from_secs(30)).ok().took;
                self.call("DEL").run().ok();
                took.saturating_sub(born)
            })
            .collect();
        spans.sort();
        spans[2]
    }

    /// An ADD whose `victim` gets SIGKILL `after` its start.
    fn killed(&self, victim: &str, after: Duration) -> Finished {
        let mut add = self.call("ADD").start();
        if victim == "overlay" {
            std::thread::sleep(after);
            add.kill();
        } else if let Some(child) = add.child(victim) {
            std::thread::sleep(after);
            // It may have ended by itself; its id is not reused this quickly.
            let _ = kill_process(child, Signal::KILL);
        }
        let finished = add.wait(Duration::from_secs(30));
        if victim != "overlay" && !finished.status.success() {
            let error = finished.json();
            assert!(
                error["code"].is_u64(),
                "{victim} died, overlay says so: {finished}"
            );
        }
        finished
    }

    fn assert_no_lease(&self, when: &str) {
        let leases = reader::keys_below(&reader::records(self.lab), "leases/");
        assert!(leases.is_empty(), "{when}: {leases:?}");
        let listed = self.lab.host(1).listed(&["endpoint", "ls"]);
        assert_eq!(listed, json!([]), "{when}");
    }
}
