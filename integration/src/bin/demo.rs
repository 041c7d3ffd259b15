//! `make demo`: the product shown on three hosts of the laboratory, as a tour. Each step is what a user
//! would type, and what came back. It ends by checking that nothing is left, on the hosts, in the store and
//! on this machine; a difference is printed and the exit code says so.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a tour is told on standard output, and stops where something broke"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use integration::{
    Attachment, Backend, Footprint, Host, Lab, OUTSIDE, comes_within, conflist, inhabited,
};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";

fn main() -> ExitCode {
    let backend = match std::env::args().nth(1).as_deref() {
        None | Some("dir") => Backend::Dir,
        Some("consul") => Backend::Consul,
        Some(other) => {
            println!("demo: STORE is dir or consul, not {other}");
            return ExitCode::FAILURE;
        }
    };
    let tour = Tour {
        started: Instant::now(),
    };
    let machine = Footprint::of_this_machine();

    tour.step("Three hosts on an underlay segment, each a machine of its own");
    let lab = Lab::new(3, backend);
    let untouched = lab.footprints();
    for host in lab.hosts() {
        println!(
            "   {}  {}  boot id {}",
            host.name(),
            host.vtep(),
            host.boot_id()
        );
    }
    println!("   the store they share: {}", lab.store_url());

    tour.step("The hosts make themselves known; from now on no daemon of ours runs anywhere");
    for host in lab.hosts() {
        show(host, &["sync"]);
    }
    show(lab.host(1), &["node", "ls"]);

    tour.step("A network is made on docker02, and is there on docker01");
    show(
        lab.host(2),
        &["network", "create", NETWORK, "--subnet", SUBNET],
    );
    show(lab.host(1), &["network", "ls"]);

    tour.step("A container on each host, attached by the CNI project's own cnitool");
    let conflist = conflist(NETWORK, SUBNET);
    println!("   /etc/cni/net.d/{NETWORK}.conflist, the same on each host:");
    let text = conflist.to_string();
    let text = text.replace("\"plugins\":[", "\n  \"plugins\":[\n    ");
    indent(&text.replace("\"ipam\"", "\n     \"ipam\""));
    let attached = attach(&lab, &conflist);

    tour.step("Each reaches each on the first packet");
    ping_all(&attached);

    tour.step("Each reaches the outside, which sees the host's address");
    for one in &attached {
        let seen = one
            .container
            .tcp_get(OUTSIDE)
            .expect("an answer from outside");
        assert_eq!(seen, one.host().vtep(), "masqueraded to its host's address");
        println!(
            "   {} -> {OUTSIDE}: \"you are {seen}\"",
            one.container.name()
        );
    }

    tour.step("Who is where, as every host knows it");
    show(lab.host(3), &["network", "inspect", NETWORK]);

    tour.step("All of it is taken down again");
    for one in &attached {
        let took = one.detach().ok().took;
        one.container.remove();
        let (host, name) = (one.host().name(), one.container.name());
        println!("   {host}# cnitool del {NETWORK} /run/netns/{name}   ({took:.0?})");
    }
    show(lab.host(1), &["network", "rm", NETWORK]);
    show(lab.host(3), &["network", "ls"]);

    let mut left = left_on_the_hosts(&lab, &untouched);
    left.extend(left_in_the_store(&lab));
    let identities = lab.identities();
    drop(attached);
    drop(lab);
    left.extend(left_on_this_machine(&machine, &identities));
    tour.end(&left, untouched.iter().map(Footprint::len).sum())
}

struct Tour {
    started: Instant,
}

impl Tour {
    fn step(&self, title: &str) {
        println!("\n[{:4.1} s] {title}", self.started.elapsed().as_secs_f32());
    }

    fn end(&self, left: &[String], compared: usize) -> ExitCode {
        let took = self.started.elapsed().as_secs_f32();
        if left.is_empty() {
            println!(
                "\n[{took:4.1} s] Nothing is left: {compared} links, addresses, routes, nftables lines, \
                 mounts and files of three hosts are as before, the store knows no {NETWORK}, \
                 and this machine is as it was."
            );
            return ExitCode::SUCCESS;
        }
        for line in left {
            println!("   {line}");
        }
        println!(
            "\n[{took:4.1} s] {} things are left, listed above.",
            left.len()
        );
        ExitCode::FAILURE
    }
}

fn attach<'lab>(lab: &'lab Lab, conflist: &serde_json::Value) -> Vec<Attachment<'lab>> {
    let mut attached = Vec::new();
    for (host, name) in lab.hosts().iter().zip(["t1", "t2", "t3"]) {
        host.install(conflist);
        let start = Instant::now();
        let one = Attachment::new(host, name, NETWORK);
        let took = start.elapsed();
        println!(
            "   {}# cnitool add {NETWORK} /run/netns/{name}   ({took:.0?})",
            host.name()
        );
        for ifname in ["eth0", "gw0"] {
            let link = one.container.link(ifname);
            let address = one.container.address(ifname).expect("an address");
            let mac = link["address"].as_str().unwrap_or_default();
            println!(
                "      {ifname:4}  {address:<12}  {mac}  MTU {}",
                link["mtu"]
            );
        }
        attached.push(one);
    }
    attached
}

fn ping_all(attached: &[Attachment]) {
    for one in attached {
        for other in attached.iter().filter(|other| other.address != one.address) {
            let said = one.container.ping(other.address, &[]).ok().stdout;
            let time = said
                .split("time=")
                .nth(1)
                .and_then(|rest| rest.lines().next());
            let (from, to) = (one.container.name(), other.container.name());
            println!(
                "   {from} -> {to} ({}): {}",
                other.address,
                time.unwrap_or("answered")
            );
        }
    }
}

/// Runs the operator's command and shows it with its answer, as on a terminal.
fn show(host: &Host, words: &[&str]) {
    println!("   {}# crosshost {}", host.name(), words.join(" "));
    let said = host.crosshost(words).ok();
    indent(&said.stdout);
}

fn indent(text: &str) {
    for line in text.lines() {
        println!("      {line}");
    }
}

fn left_on_the_hosts(lab: &Lab, untouched: &[Footprint]) -> Vec<String> {
    let hosts = lab.hosts().iter().zip(untouched);
    hosts
        .flat_map(|(host, before)| {
            let lines = host.footprint().since(before);
            lines
                .into_iter()
                .map(|line| format!("{}: {line}", host.name()))
        })
        .collect()
}

/// Every record that names the network but the note of its removal, read past our own code.
fn left_in_the_store(lab: &Lab) -> Vec<String> {
    let keys: Vec<String> = if lab.backend() == Backend::Dir {
        lab.stored_files().into_keys().collect()
    } else {
        let (_, body) = lab.consul().request("GET", "/v1/kv/crosshost?keys", "");
        serde_json::from_str(&body).expect("a list of keys")
    };
    assert!(
        keys.iter().any(|key| key.contains("nodes/docker01")),
        "the store was read"
    );
    // The removal stays noted, so that no host restores the network.
    let named =
        (keys.into_iter()).filter(|key| key.contains(NETWORK) && !key.contains("/v1/removed/"));
    named.map(|key| format!("store: {key}")).collect()
}

/// What differs on this machine, and which of the world's namespaces still have a process after a while.
fn left_on_this_machine(before: &Footprint, identities: &[String]) -> Vec<String> {
    let mut left = Vec::new();
    comes_within(Duration::from_secs(5), || {
        let inhabited = inhabited();
        let alive = identities.iter().filter(|it| inhabited.contains(*it));
        left = alive
            .map(|it| format!("this machine: {it} is alive"))
            .collect();
        let lines = Footprint::of_this_machine().since(before);
        left.extend(
            lines
                .into_iter()
                .map(|line| format!("this machine: {line}")),
        );
        left.is_empty()
    });
    left
}
