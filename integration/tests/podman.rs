//! podman with its CNI backend on two hosts: the same network as nerdctl's, in podman's own words.
#![allow(clippy::expect_used, reason = "a test: it stops where it broke")]

mod runtime;

use integration::{Backend, Lab, Podman, Runtime};
use runtime::{address_on, assert_nothing_left, assert_reached, page_at, prepared, run};

#[test]
fn containers_of_two_hosts_reach_each_other() {
    let lab = Lab::new(2, Backend::Consul);
    let (runtimes, before) = prepared::<Podman>(&lab);
    for runtime in &runtimes {
        run(runtime, "web", &["--network", "ov_net1", "-p", "8080:80"]);
        println!("{}", runtime.podman(&["network", "ls"]).ok());
        println!("{}", runtime.podman(&["network", "inspect", "ov_net1"]).ok());
        println!("{}", runtime.podman(&["inspect", "web", "--format", "{{json .NetworkSettings}}"]).ok());
        println!("{}", runtime.podman(&["exec", "web", "ip", "a"]).ok());
        println!("{}", runtime.podman(&["exec", "web", "ip", "r"]).ok());
        println!("{}", runtime.podman(&["exec", "web", "cat", "/etc/hosts", "/etc/resolv.conf"]).ok());
    }
    for runtime in &runtimes {
        for other in &runtimes {
            assert_reached(runtime, "web", &address_on(other, "web", "eth0"));
            println!("{:?}", page_at(runtime.host(), &format!("{}:8080", other.host().vtep())));
        }
    }
    for runtime in &runtimes {
        runtime.podman(&["rm", "-f", "web"]).ok();
    }
    assert_nothing_left(&lab, &runtimes, &before);
}
