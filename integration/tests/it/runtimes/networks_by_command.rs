//! One command makes a network, and the runtimes of all hosts find it at once: nerdctl in each of its namespaces, and podman.

use std::time::Duration;

use integration::{Backend, Containerd, Finished, LIMIT, Lab, Podman, Runtime, until};
use serde_json::json;

use crate::runtimes::lifecycle::{address_on, assert_nothing_left, assert_reached, held_by, run};

/// The last host gets to know of a network: its watcher writes the file within a second.
const SOON: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });

#[test]
fn each_runtime_has_a_network_as_soon_as_a_command_has_made_it() {
    let lab = Lab::registered(3, Backend::Consul);
    let watchers: Vec<_> = (lab.hosts().iter())
        .map(|host| {
            host.keep_conflists(&json!({}));
            host.watch()
        })
        .collect();
    let [one, two, three] = [1, 2, 3].map(|number| lab.host(number));
    let runtimes = [one, two].map(Containerd::start);
    let podman = Podman::start(three);
    let before = lab.footprints();

    one.crosshost("network create ov_net1 --label team=blue")
        .ok();
    // On the creating host when the command returns.
    run(&runtimes[0], "web", &["--net", "ov_net1"]);
    let there = |host: &integration::Host| {
        let file = ["test", "-e", "/etc/cni/net.d/ov_net1.conflist"];
        host.run(&file).status.success()
    };
    until(SOON, "on the other hosts", || there(two) && there(three));
    run(&runtimes[1], "web", &["--net", "ov_net1"]);
    run(&podman, "web", &["--network", "ov_net1"]);
    let addresses = [
        address_on(&runtimes[0], "web", "eth0"),
        address_on(&runtimes[1], "web", "eth0"),
        address_on(&podman, "web", "eth0"),
    ];
    for address in &addresses {
        assert!(address.starts_with("10.0.0."), "{address}");
        assert_reached(&runtimes[0], "web", address);
        assert_reached(&runtimes[1], "web", address);
        assert_reached(&podman, "web", address);
    }

    for runtime in &runtimes {
        runtime.nerdctl("network ls").ok().says(&["ov_net1"]);
        // In every namespace of containerd.
        let elsewhere = runtime.nerdctl("--namespace other network ls");
        elsewhere.ok().says(&["ov_net1"]);
        let known = runtime.nerdctl("network inspect ov_net1").ok().json();
        assert_eq!(known[0]["Name"], "ov_net1", "{known:#}");
    }
    let labelled = "network ls --format {{.Name}} --filter label=team=blue";
    assert_eq!(podman.podman(labelled).ok().stdout, "ov_net1\n");
    let spared = "network prune -f --filter label!=crosshost";
    assert_eq!(podman.podman(spared).ok().stdout, "");

    // It says who is in the way, on whichever host.
    let refused = three.crosshost("network rm ov_net1").failed();
    let [at_one, at_two, at_three] = addresses.each_ref().map(String::as_str);
    refused.warns(&["docker01", at_one, "docker02", at_two, "docker03", at_three]);
    for runtime in &runtimes {
        runtime.nerdctl("rm -f web").ok();
    }
    podman.podman("rm -f web").ok();
    three.crosshost("network rm ov_net1").ok();
    until(SOON, "gone from all hosts", || !there(one) && !there(two));
    for runtime in &runtimes {
        let listed = runtime.nerdctl("network ls").ok().stdout;
        assert!(!listed.contains("ov_net1"), "{listed}");
    }
    let listed = podman.podman("network ls").ok().stdout;
    assert!(!listed.contains("ov_net1"), "{listed}");
    drop(watchers);
    assert_nothing_left(&lab, &runtimes, &before);
}

/// `crosshost network WORDS` where a runtime's processes and its plugins are seen.
#[track_caller]
fn network<'lab>(runtime: &impl Runtime<'lab>, words: &str) -> Finished {
    let path = format!("CNI_PATH={}", runtime.host().cni_path());
    let crosshost = runtime.host().program("crosshost");
    let crosshost = crosshost.to_str().expect("a path");
    let mut line = vec!["env", &path, crosshost, "network"];
    line.extend(words.split(' '));
    runtime.processes().run(&line)
}

#[test]
fn running_containers_are_connected_by_their_names_and_ids() {
    let lab = Lab::registered(2, Backend::Consul);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    for host in [one, two] {
        host.keep_conflists(&json!({}));
    }
    let (nerdctl, podman) = (Containerd::start(one), Podman::start(two));
    for name in ["ov_net1", "ov_net2"] {
        one.crosshost(&["network", "create", name]).ok();
    }
    two.sync();
    let before = lab.footprints();
    let watchers = [one, two].map(integration::Host::watch);
    run(&nerdctl, "web", &["--net", "ov_net1"]);
    // On a network of its runtime's own, and on none.
    run(&nerdctl, "apart", &["--net", "none"]);
    run(&podman, "db", &["--network", "ov_net1"]);

    network(&nerdctl, "connect --ip 10.0.1.50 ov_net2 web").ok();
    assert_eq!(address_on(&nerdctl, "web", "eth1"), "10.0.1.50");
    let id = nerdctl.inspect("apart")["Id"].clone();
    let id = id.as_str().expect("an id");
    let short = &id[..12];
    network(&nerdctl, &format!("connect ov_net2 {short}")).ok();
    network(&podman, "connect ov_net2 db").ok();
    let apart = address_on(&nerdctl, "apart", "eth0");
    let db = address_on(&podman, "db", "eth1");
    for address in ["10.0.1.50", &apart, &db] {
        assert!(address.starts_with("10.0.1."), "{address}");
        assert_reached(&nerdctl, "web", address);
        assert_reached(&nerdctl, "apart", address);
        assert_reached(&podman, "db", address);
    }
    let said = network(&podman, "disconnect ov_net2 db").ok().stdout;
    assert_eq!(said, "");
    let left = held_by(two);
    assert_eq!(left.len(), 1, "{left:#?}");

    // What is connected goes with its container, though no runtime knows of it.
    nerdctl.nerdctl("rm -f web apart").ok();
    podman.podman("rm -f db").ok();
    until(LIMIT, "swept", || held_by(one).is_empty());
    drop(watchers);
    one.sync();
    assert_nothing_left(&lab, std::slice::from_ref(&nerdctl), &before);
}
