//! What the scenarios with nerdctl share: their network, a container on it, and that nothing is left.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each scenario uses a part; and it stops where it broke"
)]

use integration::{Containerd, Footprint, Lab, workspace};
use serde_json::{Value, json};

/// The shipped network of both versions of IP with published ports; `number` tells its subnets from others'.
#[track_caller]
pub fn conflist(name: &str, number: u8) -> Value {
    let shipped = std::fs::read_to_string(workspace().join("cni-conf/nerdctl.conflist"));
    let mut conflist: Value = shipped.expect("a file").parse().expect("JSON");
    conflist["name"] = name.into();
    if number > 0 {
        conflist["plugins"][0]["ipam"]["ranges"] = json!([
            [{ "subnet": format!("10.0.{number}.0/24") }],
            [{ "subnet": format!("fd00:{number}::/64") }],
        ]);
    }
    conflist
}

/// containerd on each host, the hosts known to each other, the networks `ov_net1` and `ov_net2`; and what there is then.
#[track_caller]
pub fn prepared(lab: &Lab) -> (Vec<Containerd<'_>>, Vec<Footprint>) {
    let runtimes: Vec<_> = lab.hosts().iter().map(Containerd::start).collect();
    for runtime in &runtimes {
        runtime.crosshost(&["sync"]).ok();
        runtime.host().install(&conflist("ov_net1", 0));
        runtime.host().install(&conflist("ov_net2", 1));
    }
    (runtimes, lab.footprints())
}

/// `nerdctl run -d --name NAME WORDS busybox`.
#[track_caller]
pub fn run(runtime: &Containerd, name: &str, words: &[&str]) {
    let mut line = vec!["run", "-d", "--name", name];
    line.extend(words);
    line.push(Containerd::IMAGE);
    runtime.nerdctl(&line).ok();
}

/// The first IPv4 address of a container's interface, as the container sees it.
#[track_caller]
pub fn address_on(runtime: &Containerd, name: &str, ifname: &str) -> String {
    let ip = ["exec", name, "ip", "-4", "address", "show", "dev", ifname];
    let said = runtime.nerdctl(&ip).ok().stdout;
    let address = said
        .split_whitespace()
        .skip_while(|word| *word != "inet")
        .nth(1);
    let address = address.unwrap_or_else(|| panic!("no address of {ifname} in {said}"));
    address.split('/').next().unwrap_or_default().to_owned()
}

/// Insists that each host is as it was and that the store has no lease.
#[track_caller]
pub fn assert_nothing_left(lab: &Lab, runtimes: &[Containerd], before: &[Footprint]) {
    lab.assert_same_as(before, "after the last container");
    for runtime in runtimes {
        let all = runtime.nerdctl(&["ps", "-aq"]).ok().stdout;
        assert_eq!(all, "", "containers of {}", runtime.host().name());
    }
    let endpoints = lab.host(1).listed(&["endpoint", "ls"]);
    assert_eq!(endpoints.as_array().map(Vec::len), Some(0), "{endpoints:#}");
}
