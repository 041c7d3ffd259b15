//! The tutorial with a runtime that people use: containerd and nerdctl on three hosts, one conflist, Consul.

use crate::runtimes::lifecycle::{
    address_on, assert_nothing_left, assert_reached, ip_in, page_at, prepared, run,
};
use integration::{Backend, Containerd, Lab, Runtime};

#[test]
fn containers_of_three_hosts_reach_each_other() {
    let lab = Lab::new(3, Backend::Consul);
    let (runtimes, before) = prepared::<Containerd>(&lab);

    let addresses: Vec<_> = runtimes
        .iter()
        .map(|runtime| {
            run(runtime, "web", &["--net", "ov_net1"]);
            address_on(runtime, "web", "eth0")
        })
        .collect();
    for runtime in &runtimes {
        for address in &addresses {
            assert_reached(runtime, "web", address);
        }
        runtime.nerdctl("network ls").ok().says(&["ov_net1"]);
        let network = runtime.nerdctl("network inspect ov_net1").ok().json();
        assert_eq!(network[0]["Name"], "ov_net1", "{network:#}");
    }
    for runtime in &runtimes {
        runtime.nerdctl("rm -f web").ok();
    }
    assert_nothing_left(&lab, &runtimes, &before);
}

#[test]
fn a_container_gets_the_addresses_and_networks_that_it_asks_for() {
    let lab = Lab::new(1, Backend::Consul);
    let (runtimes, before) = prepared::<Containerd>(&lab);
    let runtime = &runtimes[0];

    run(runtime, "v4", &["--net", "ov_net1", "--ip", "10.0.0.77"]);
    assert_eq!(address_on(runtime, "v4", "eth0"), "10.0.0.77");
    run(runtime, "v6", &["--net", "ov_net1", "--ip6", "fd00::77"]);
    let said = ip_in(runtime, "v6", &["-6", "address"]);
    assert!(said.contains("fd00::77/64"), "{said}");
    let both = ["--net", "ov_net1", "--ip", "10.0.0.78", "--ip6", "fd00::78"];
    run(runtime, "both", &both);
    let said = ip_in(runtime, "both", &["address"]);
    assert!(said.contains("10.0.0.78/24"), "{said}");
    assert!(said.contains("fd00::78/64"), "{said}");
    let taken = "run -d --name late --net ov_net1 --ip 10.0.0.77 busybox";
    runtime.nerdctl(taken).failed().warns(&["10.0.0.77"]);
    runtime.nerdctl("rm -f late");

    run(runtime, "two", &["--net", "ov_net1", "--net", "ov_net2"]);
    assert!(address_on(runtime, "two", "eth0").starts_with("10.0.0."));
    assert!(address_on(runtime, "two", "eth1").starts_with("10.0.1."));
    let shell = ["--net", "container:v4", "--entrypoint", "sleep"];
    let mut line = vec!["run", "-d", "--name", "beside"];
    line.extend(shell);
    runtime
        .nerdctl(&[&line[..], &["busybox", "1000"]].concat())
        .ok();
    assert_eq!(address_on(runtime, "beside", "eth0"), "10.0.0.77");

    runtime.nerdctl("rm -f beside two both v6 v4").ok();
    assert_nothing_left(&lab, &runtimes, &before);
}

// nerdctl v2.1.2 has no `-P`. It chooses the port of `-p 80` itself.
#[test]
fn ports_are_published_asked_for_and_free_ones() {
    let lab = Lab::new(2, Backend::Consul);
    let (runtimes, before) = prepared::<Containerd>(&lab);
    let [runtime, other] = &runtimes[..] else {
        panic!("two hosts")
    };

    for (name, words, given) in [
        ("fixed", &["-p", "8080:80"][..], Some(8080)),
        ("free", &["-p", "80"], None),
    ] {
        run(runtime, name, &[&["--net", "ov_net1"], words].concat());
        let said = runtime.nerdctl(&["port", name, "80/tcp"]).ok();
        let port = said
            .stdout
            .trim()
            .rsplit(':')
            .next()
            .and_then(|it| it.parse::<u16>().ok());
        let port = port.unwrap_or_else(|| panic!("no port in {said}"));
        assert!(given.is_none_or(|given| given == port), "{said}");
        let address = format!("{}:{port}", runtime.host().vtep());
        let page = page_at(other.host(), &address);
        assert_eq!(page, Some("busybox\n".to_owned()), "{name} at {address}");
    }
    let twice = "run -d --name late --net ov_net1 -p 8080:80 busybox";
    runtime.nerdctl(twice).failed().warns(&["8080"]);
    runtime.nerdctl("rm -f late").ok();
    // nerdctl sends no DEL when a later plugin of the chain refuses, nor at `rm -f`: the address waits for `gc`.
    let freed = runtime.processes().crosshost("gc").ok().stdout;
    assert_eq!(freed.lines().count(), 1, "{freed}");

    runtime.nerdctl("restart fixed").ok();
    let address = format!("{}:8080", runtime.host().vtep());
    let page = page_at(other.host(), &address);
    assert_eq!(page, Some("busybox\n".to_owned()), "after a restart");
    runtime.nerdctl("rm -f fixed free").ok();
    assert_nothing_left(&lab, &runtimes, &before);
}
