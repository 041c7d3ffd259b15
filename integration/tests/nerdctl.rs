//! The tutorial with a runtime that people use: containerd and nerdctl on three hosts, one conflist, Consul.
#![allow(clippy::expect_used, reason = "a test: it stops where it broke")]

mod runtime;

use integration::{Backend, Containerd, Lab};
use runtime::{address_on, assert_nothing_left, conflist, run};

#[test]
fn containers_of_three_hosts_reach_each_other() {
    let lab = Lab::new(3, Backend::Consul);
    let runtimes: Vec<_> = lab.hosts().iter().map(Containerd::start).collect();
    for runtime in &runtimes {
        runtime.host().install(&conflist("ov_net1", 0));
    }
    let before = lab.footprints();

    let addresses: Vec<_> = runtimes
        .iter()
        .map(|runtime| {
            run(runtime, "web", &["--net", "ov_net1"]);
            address_on(runtime, "web", "eth0")
        })
        .collect();
    for runtime in &runtimes {
        for address in &addresses {
            let ping = ["exec", "web", "ping", "-c", "1", "-W", "2", address];
            runtime.nerdctl(&ping).ok();
        }
        let listed = runtime.nerdctl(&["network", "ls"]).ok().stdout;
        assert!(listed.contains("ov_net1"), "{listed}");
        let network = runtime
            .nerdctl(&["network", "inspect", "ov_net1"])
            .ok()
            .json();
        assert_eq!(network[0]["Name"], "ov_net1", "{network:#}");
    }
    for runtime in &runtimes {
        runtime.nerdctl(&["rm", "-f", "web"]).ok();
    }
    assert_nothing_left(&lab, &runtimes, &before);
}
