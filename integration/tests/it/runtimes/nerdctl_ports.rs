//! Ports as people type them to nerdctl. nerdctl 2.1 chooses the port of `-p 80` by the sockets of the host: the watcher reserves
//! each published port by one.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::portmap::reserved::reserved;
use crate::runtimes::lifecycle::{assert_nothing_left, held_by, page_at, prepared, run, said_in};
use integration::{Backend, Containerd, Host, Lab, Runtime, Watching};

/// What the web server of a container answers.
const PAGE: &str = "busybox\n";

/// The number of the host's port that leads to this one of the container.
#[track_caller]
fn port(runtime: &Containerd, container: &str, inner: &str) -> u16 {
    let said = runtime.nerdctl(&["port", container, inner]).ok();
    let port = said.stdout.trim().rsplit(':').next();
    let port = port.and_then(|it| it.parse().ok());
    port.unwrap_or_else(|| panic!("no port in {said}"))
}

#[track_caller]
fn assert_page(from: &Host, address: &str, port: u16) {
    let address = format!("{address}:{port}");
    let page = page_at(from, &address);
    assert_eq!(page.as_deref(), Some(PAGE), "{} to {address}", from.name());
}

/// Waits until exactly these ports are reserved.
#[track_caller]
fn until_reserved(host: &Host, watcher: &Watching, ports: &[[u16; 2]]) {
    let of = |[tcp, udp]: &[u16; 2]| [format!("tcp 0.0.0.0:{tcp}"), format!("udp 0.0.0.0:{udp}")];
    let mut wanted: Vec<_> = ports.iter().flat_map(of).collect();
    wanted.sort();
    let limit = Duration::from_secs(5);
    watcher.until(limit, &format!("reserved {wanted:?}"), || {
        reserved(host) == wanted
    });
}

#[test]
fn each_container_gets_a_port_of_its_own_while_a_watcher_runs() {
    let lab = Lab::new(2, Backend::Consul);
    let (runtimes, before) = prepared::<Containerd>(&lab);
    let [runtime, other] = &runtimes[..] else {
        panic!("two hosts")
    };
    let (host, far) = (runtime.host(), other.host());
    let mut watcher = host.watch();
    let mut ports = Vec::new();
    for name in ["one", "two", "three"] {
        run(
            runtime,
            name,
            &["--net", "ov_net1", "-p", "80", "-p", "53/udp"],
        );
        ports.push(["80/tcp", "53/udp"].map(|inner| port(runtime, name, inner)));
        if name == "two" {
            // The one that comes back reserves what is published.
            watcher.stop().ok();
            assert!(reserved(host).is_empty());
            watcher = host.watch();
            until_reserved(host, &watcher, &ports);
        }
    }
    let [tcp, udp]: [BTreeSet<_>; 2] =
        [0, 1].map(|protocol| ports.iter().map(|it| it[protocol]).collect());
    assert_eq!((tcp.len(), udp.len()), (3, 3), "{ports:?}");

    // What is reserved is in nobody's way: not from outside, nor from the host itself, nor from a container to its own port and
    // to a neighbour's.
    for port in &tcp {
        assert_page(far, host.vtep(), *port);
        assert_page(host, "127.0.0.1", *port);
        assert_page(host, host.vtep(), *port);
        let url = format!("http://{}:{port}/", host.vtep());
        let said = said_in(runtime, "one", &["curl", "-s", "--max-time", "5", &url]);
        assert_eq!(said, PAGE, "from a container to {url}");
    }
    // A program of the host is told that the port is taken. Before, it would have waited for packets that never come.
    let program = host.run(&["perl", "-e", LISTENS, &ports[0][0].to_string()]);
    program.failed().warns(&["Address already in use"]);

    // nerdctl takes the port of a container that stops, and of one that starts again.
    for what in ["restart", "stop", "start"] {
        runtime.nerdctl(&[what, "two"]).ok();
        let without = [ports[0], ports[2]];
        let there = if what == "stop" { &without[..] } else { &ports };
        until_reserved(host, &watcher, there);
    }
    assert_page(far, host.vtep(), ports[1][0]);

    runtime.nerdctl("rm -f one two three").ok();
    until_reserved(host, &watcher, &[]);
    watcher.stop().ok();
    assert_nothing_left(&lab, &runtimes, &before);
}

const LISTENS: &str =
    "use Socket; socket(S, PF_INET, SOCK_STREAM, 0) and setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1)
    and bind(S, sockaddr_in($ARGV[0], INADDR_ANY)) and listen(S, 1) or die qq($!\n)";

#[test]
fn ports_by_number_and_ranges_of_them() {
    let lab = Lab::new(2, Backend::Consul);
    let (runtimes, before) = prepared::<Containerd>(&lab);
    let runtime = &runtimes[0];
    let (host, far) = (runtime.host(), lab.host(2));
    let mut watcher = host.watch();
    run(runtime, "number", &["--net", "ov_net1", "-p", "90:80"]);
    run(runtime, "udp", &["--net", "ov_net1", "-p", "90:80/udp"]);
    run(
        runtime,
        "range",
        &["--net", "ov_net1", "-p", "8000-8005:78-83"],
    );
    // Ranges of the container's ports alone: nerdctl chooses as many.
    run(runtime, "first", &["--net", "ov_net1", "-p", "80-82"]);
    run(runtime, "second", &["--net", "ov_net1", "-p", "80-82"]);
    assert_page(far, host.vtep(), 90);
    assert_page(far, host.vtep(), 8002);
    let chosen = ["first", "second"].map(|name| port(runtime, name, "80/tcp"));
    assert_eq!(chosen, [49153, 49156]);
    for port in chosen {
        assert_page(far, host.vtep(), port);
    }
    for taken in ["90:80", "8003:80", "8005-8006:80-81"] {
        let line = [
            "run", "-d", "--name", "late", "--net", "ov_net1", "-p", taken, "busybox",
        ];
        runtime
            .nerdctl(&line)
            .failed()
            .warns(&["host port", "has it"]);
        runtime.nerdctl("rm -f late").ok();
    }
    runtime.nerdctl("rm -f number udp range first second").ok();
    watcher.stop().ok();
    runtime.processes().crosshost("gc").ok();
    assert_nothing_left(&lab, &runtimes, &before);
}

/// nerdctl sends no DEL for a container whose ports were refused, not even at `rm -f`.
#[test]
fn what_nerdctl_does_not_remove_is_swept_within_a_minute() {
    let lab = Lab::new(1, Backend::Consul);
    let (runtimes, before) = prepared::<Containerd>(&lab);
    let runtime = &runtimes[0];
    let mut watcher = runtime.host().watch();
    run(runtime, "first", &["--net", "ov_net1", "-p", "90:80"]);
    let line = "run -d --name late --net ov_net1 -p 90:80 busybox";
    runtime.nerdctl(line).failed().warns(&["has it"]);
    runtime.nerdctl("rm -f late").ok();
    let held = || held_by(runtime.host()).len();
    assert_eq!(held(), 4, "two of IPv4, two of IPv6");
    watcher.until(Duration::from_mins(1), "swept", || held() == 2);
    assert_page(runtime.host(), "127.0.0.1", 90);
    runtime.nerdctl("rm -f first").ok();
    watcher.stop().ok();
    assert_nothing_left(&lab, &runtimes, &before);
}
