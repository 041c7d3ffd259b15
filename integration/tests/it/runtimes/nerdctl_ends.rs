//! How a container of nerdctl ends and comes back, in order and not: what it had is given back each time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::runtimes::lifecycle::{
    address_on, assert_nothing_left, assert_reached, held_by, prepared, run,
};
use integration::{Backend, Containerd, LIMIT, Lab, Runtime, until};

#[test]
fn a_container_stops_starts_and_restarts() {
    let lab = Lab::new(2, Backend::Consul);
    let (runtimes, before) = prepared::<Containerd>(&lab);
    let [runtime, other] = &runtimes[..] else {
        panic!("two hosts")
    };
    run(other, "peer", &["--net", "ov_net1"]);
    run(runtime, "web", &["--net", "ov_net1"]);
    assert_reached(other, "peer", &address_on(runtime, "web", "eth0"));

    runtime.nerdctl("stop web").ok();
    let held = held_by(runtime.host());
    assert_eq!(held.len(), 0, "{held:#?}");
    runtime.nerdctl("start web").ok();
    assert_reached(other, "peer", &address_on(runtime, "web", "eth0"));
    runtime.nerdctl("restart web").ok();
    assert_reached(other, "peer", &address_on(runtime, "web", "eth0"));

    runtime.nerdctl("rm -f web").ok();
    other.nerdctl("rm -f peer").ok();
    assert_nothing_left(&lab, &runtimes, &before);
}

#[test]
fn whatever_is_killed_gives_back_what_it_had() {
    let lab = Lab::new(1, Backend::Consul);
    let (runtimes, before) = prepared::<Containerd>(&lab);
    let runtime = &runtimes[0];

    run(runtime, "process", &["--net", "ov_net1", "-p", "8080:80"]);
    runtime.kill_process("process");
    until_ended(runtime, "process");
    run(runtime, "after", &["--net", "ov_net1"]);
    runtime.nerdctl("start process").ok();
    address_on(runtime, "process", "eth0");

    run(runtime, "shim", &["--net", "ov_net1", "-p", "8081:80"]);
    runtime.kill_shim("shim");
    until_ended(runtime, "shim");
    // What that shim had to do containerd does: one that is killed on the way never says DEL, and only `crosshost gc` would.
    until_attached(runtime, 2);

    runtime.kill_daemon();
    runtime.start_daemon();
    address_on(runtime, "after", "eth0");
    runtime.nerdctl("rm -f process shim after").ok();
    assert_nothing_left(&lab, &runtimes, &before);
}

/// Waits until only so many attachments are left on the host: their record is the last that a DEL removes.
#[track_caller]
fn until_attached(runtime: &Containerd, count: usize) {
    let records = runtime
        .host()
        .namespace()
        .path("/run/crosshost/journal/overlay");
    until(LIMIT, &format!("{count} records"), || {
        std::fs::read_dir(&records).expect("records").count() == count
    });
}

#[test]
fn twenty_containers_start_at_once() {
    let lab = Lab::new(2, Backend::Consul);
    let (runtimes, before) = prepared::<Containerd>(&lab);
    // No name may be the beginning of an id, which is hexadecimal: nerdctl takes either.
    let names: Vec<_> = (0..20).map(|number| format!("run{number}")).collect();
    let placed: Vec<_> = names.iter().zip(runtimes.iter().cycle()).collect();
    let started: Vec<_> = placed
        .iter()
        .map(|(name, on)| {
            on.start_client(&["run", "-d", "--name", name, "--net", "ov_net1", "busybox"])
        })
        .collect();
    for one in started {
        one.wait(Duration::from_mins(2)).ok();
    }
    let addresses: BTreeSet<_> = placed
        .iter()
        .map(|(name, on)| address_on(*on, name, "eth0"))
        .collect();
    assert_eq!(addresses.len(), names.len(), "{addresses:?}");
    for (at, runtime) in runtimes.iter().enumerate() {
        let mine: Vec<_> = names
            .iter()
            .skip(at)
            .step_by(2)
            .map(String::as_str)
            .collect();
        runtime.nerdctl(&[&["rm", "-f"], &mine[..]].concat()).ok();
    }
    assert_nothing_left(&lab, &runtimes, &before);
}

#[track_caller]
fn until_ended(runtime: &Containerd, container: &str) {
    until(LIMIT, &format!("the end of {container}"), || {
        runtime.inspect(container)["State"]["Status"] != "running"
    });
}
