//! podman with its CNI backend on two hosts: a network over them, in podman's own words.

use crate::runtimes::lifecycle::{
    address_on, assert_nothing_left, assert_reached, held_by, ip_in, page_at, prepared, run,
    shipped,
};
use integration::{Backend, Footprint, LIMIT, Lab, Podman, Runtime, until};

/// podman on each host, whose networks are podman's own file and a second one.
#[track_caller]
fn with_podman(lab: &Lab) -> (Vec<Podman<'_>>, Vec<Footprint>) {
    let (runtimes, _) = prepared(lab);
    lab.install(&shipped("podman.conflist"));
    (runtimes, lab.footprints())
}

#[test]
fn containers_of_two_hosts_reach_each_other_and_their_ports() {
    let lab = Lab::new(2, Backend::Consul);
    let (runtimes, before) = with_podman(&lab);
    for runtime in &runtimes {
        run(runtime, "web", &["--network", "ov_net1", "-p", "8080:80"]);
    }
    for runtime in &runtimes {
        for other in &runtimes {
            assert_reached(runtime, "web", &address_on(other, "web", "eth0"));
            let page = page_at(runtime.host(), &format!("{}:8080", other.host().vtep()));
            assert_eq!(page.as_deref(), Some("busybox\n"));
        }
        let said = runtime.podman("inspect web").ok().json();
        let known = &said[0]["NetworkSettings"]["Networks"]["ov_net1"];
        let address = address_on(runtime, "web", "eth0");
        assert_eq!(known["IPAddress"], *address, "{known:#}");
    }
    // podman chooses a port for each that the image exposes.
    let [runtime, other] = &runtimes[..] else {
        panic!("two hosts")
    };
    run(runtime, "free", &["--network", "ov_net1", "-P"]);
    let said = runtime.podman("port free 80/tcp").ok().stdout;
    let port = said.trim().rsplit(':').next().unwrap_or_default();
    let published = format!("{}:{port}", runtime.host().vtep());
    let page = page_at(other.host(), &published);
    assert_eq!(page.as_deref(), Some("busybox\n"), "{published}");

    for runtime in &runtimes {
        runtime.podman("rm -f -a").ok();
    }
    assert_nothing_left(&lab, &runtimes, &before);
}

#[test]
fn podman_lists_the_network_and_spares_it_by_its_label() {
    let lab = Lab::new(1, Backend::Dir);
    let (runtimes, before) = with_podman(&lab);
    let runtime = &runtimes[0];
    let listed = |words: &[&str]| {
        let format = ["network", "ls", "--format", "{{.Name}} {{.Driver}}"];
        runtime.podman(&[&format, words].concat()).ok().stdout
    };
    let all = "ov_net1 overlay\nov_net2 overlay\npodman bridge\n";
    assert_eq!(listed(&[]), all);
    assert_eq!(
        listed(&["--filter", "label=crosshost"]),
        "ov_net1 overlay\n"
    );
    let inspect = "network inspect ov_net1";
    let network = runtime.podman(inspect).ok().json();
    assert_eq!(network[0]["name"], "ov_net1", "{network:#}");
    assert_eq!(network[0]["driver"], "overlay", "{network:#}");
    let prune = "network prune -f --filter label!=crosshost";
    assert_eq!(runtime.podman(prune).ok().stdout, "ov_net2\n");
    assert_eq!(listed(&[]), "ov_net1 overlay\npodman bridge\n", "pruned");
    lab.assert_same_as(&before, "after the listings");
}

#[test]
fn a_container_stops_starts_and_dies() {
    let lab = Lab::new(2, Backend::Consul);
    let (runtimes, before) = with_podman(&lab);
    let [runtime, other] = &runtimes[..] else {
        panic!("two hosts")
    };
    run(other, "peer", &["--network", "ov_net1"]);
    run(runtime, "web", &["--network", "ov_net1", "-p", "8080:80"]);
    let reached = || {
        assert_reached(other, "peer", &address_on(runtime, "web", "eth0"));
        let page = page_at(other.host(), &format!("{}:8080", runtime.host().vtep()));
        assert_eq!(page.as_deref(), Some("busybox\n"));
    };
    reached();
    runtime.podman("stop web").ok();
    assert_eq!(held_by(runtime.host()).len(), 0, "after stop");
    runtime.podman("start web").ok();
    reached();
    runtime.podman("restart web").ok();
    reached();

    // Whoever watches a container sees its end, and podman's clean-up sends the DEL.
    let pid = runtime.podman("inspect web").ok().json()[0]["State"]["Pid"].clone();
    runtime.processes().script(&format!("kill -KILL {pid}"));
    until(LIMIT, "the DEL", || held_by(runtime.host()).is_empty());
    runtime.podman("start web").ok();
    reached();

    // Nobody saw this one: the next command does.
    let state = runtime.podman("inspect web").ok().json()[0]["State"].clone();
    let (monitor, pid) = (&state["ConmonPid"], &state["Pid"]);
    runtime
        .processes()
        .script(&format!("kill -KILL {monitor} {pid}"));
    runtime.podman("rm -f web").ok();
    other.podman("rm -f peer").ok();
    assert_nothing_left(&lab, &runtimes, &before);
}

#[test]
fn a_container_gets_what_it_asks_for_or_nothing() {
    let lab = Lab::new(1, Backend::Consul);
    let (runtimes, before) = with_podman(&lab);
    let runtime = &runtimes[0];
    let words = [
        &[
            "--network",
            "ov_net1",
            "--ip",
            "10.0.0.77",
            "--ip6",
            "fd00::77",
        ][..],
        &["--mac-address", "02:11:22:33:44:55", "-p", "8080:80"],
    ];
    run(runtime, "asks", &words.concat());
    assert_eq!(address_on(runtime, "asks", "eth0"), "10.0.0.77");
    let shown = ip_in(runtime, "asks", &["address", "show", "dev", "eth0"]);
    for given in ["fd00::77/64", "02:11:22:33:44:55"] {
        assert!(shown.contains(given), "{given}: {shown}");
    }
    // Which network is on which interface is podman's free choice.
    run(runtime, "two", &["--network", "ov_net1,ov_net2"]);
    let mut addresses = ["eth0", "eth1"].map(|ifname| address_on(runtime, "two", ifname));
    addresses.sort();
    let [first, second] = &addresses;
    assert!(first.starts_with("10.0.0."), "{addresses:?}");
    assert!(second.starts_with("10.0.1."), "{addresses:?}");
    assert_eq!(held_by(runtime.host()).len(), 6, "two for each interface");

    let id = runtime.podman(&["inspect", "asks", "--format", "{{.Id}}"]);
    let holder = format!("eth0 of container {}", id.ok().stdout.trim());
    for words in [["--ip", "10.0.0.77"], ["-p", "8080:80"]] {
        let line = ["run", "-d", "--name", "late", "--network", "ov_net1"];
        let said = runtime
            .podman(&[&line[..], &words, &["busybox"]].concat())
            .failed();
        assert!(said.stderr.contains(&holder), "{holder} has it: {said}");
        assert_eq!(
            held_by(runtime.host()).len(),
            6,
            "podman takes back what there was"
        );
        runtime.podman("rm -f late").ok();
    }
    runtime.podman("rm -f asks two").ok();
    assert_nothing_left(&lab, &runtimes, &before);
}
