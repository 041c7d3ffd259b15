//! What somebody damages on a host is mended by its watcher within a second, as the kernel tells it; and what others do to their
//! own costs it little.

use std::time::{Duration, Instant};

use integration::{
    Attachment, Backend, Host, Lab, OUTSIDE, Running, Watching, conflist, detach_all, spend, until,
};
use serde_json::json;

const NETWORK: &str = "ov_net1";
/// Mended in a quarter of a second where the machine has time; the fixed look comes 30 s after the last one.
const SOON: Duration = Duration::from_secs(5);

const SANDBOX: &str = "nsenter --net=/run/crosshost/netns/ov_net1";
const EGRESS: &str = "nsenter --net=/run/crosshost/egress-netns/ch-egress";

fn lab() -> Lab {
    Lab::with_network(2, Backend::Consul, &conflist(NETWORK, "10.0.0.0/24"))
}

/// How often the watcher has said that it mended something.
fn mended(watcher: &Watching) -> usize {
    watcher.times_said("forwarding entries changed") + watcher.times_said("is mended")
}

#[test]
fn damage_is_mended_within_a_second() {
    let lab = lab();
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", NETWORK);
    let t2 = Attachment::new(lab.host(2), "t2", NETWORK);
    let watcher = host.watch();
    watcher.settle();
    let idle = watcher.peak_memory();
    let list = "ip -br link | grep -o '^chp[0-9a-f]*'";
    let port = host.in_sandbox(NETWORK, &["sh", "-euc", list]);
    let port = port.trim();
    let damages = [
        "nft delete table inet crosshost".to_owned(),
        "nft flush ruleset".to_owned(),
        "nft flush chain inet crosshost $(nft list table inet crosshost | sed -n 's/.*chain \\([a-z_0-9-]*\\) .*/\\1/p' | head -n1)".to_owned(),
        format!("{SANDBOX} ip link delete br0"),
        format!("{SANDBOX} ip link delete vxlan0"),
        format!("{SANDBOX} bridge fdb flush dev vxlan0"),
        format!("{SANDBOX} ip link set {port} nomaster"),
        format!("{SANDBOX} ip link set vxlan0 down"),
        "ip link delete ch-egress".to_owned(),
        "ip link set ch-egress down".to_owned(),
        format!("{EGRESS} ip link delete br0"),
    ];
    for damage in damages {
        let before = mended(&watcher);
        host.script(&damage);
        let took = watcher.until(SOON, &damage, || mended(&watcher) > before);
        println!("{took:?}: {damage}");
        assert!(t1.container.pings(t2.address, &[]), "{damage}");
        assert!(t1.container.tcp_get(OUTSIDE).is_ok(), "{damage}");
    }
    // Not told by the lines above: it changes no entry and no rule.
    host.script(&format!("{SANDBOX} ip link set {port} down"));
    watcher.until(SOON, "the port up", || {
        t1.container.pings(t2.address, &["-W1"])
    });
    host.script("echo 0 > /proc/sys/net/ipv4/ip_forward");
    watcher.until(SOON, "forwarding on", || {
        let forwards = host.run("cat /proc/sys/net/ipv4/ip_forward");
        forwards.stdout.trim() == "1"
    });
    host.script("ip address flush dev ch-egress");
    watcher.until(SOON, "the address back", || {
        let addresses = host.run("ip -br address show ch-egress");
        addresses.stdout.contains("172.18.0.1/16")
    });
    assert!(t1.container.tcp_get(OUTSIDE).is_ok());
    // A sandbox that came after the watcher is listened to as well.
    let mut limited = conflist("ov_net2", "10.0.1.0/24");
    limited["plugins"][0]["bandwidth"] =
        json!({ "ingressRate": 100_000_000, "ingressBurst": 1_000_000 });
    host.install(&limited);
    let t3 = Attachment::new(host, "t3", "ov_net2");
    watcher.settle();
    let before = mended(&watcher);
    host.script("nsenter --net=/run/crosshost/netns/ov_net2 ip link delete br0");
    watcher.until(SOON, "br0 of ov_net2", || mended(&watcher) > before);
    let before = mended(&watcher);
    host.script(
        "nsenter --net=/run/crosshost/netns/ov_net2 sh -euc '
             tc qdisc delete dev $(ip -br link | grep -o \"^chp[0-9a-f]*\") root'",
    );
    watcher.until(SOON, "a token bucket", || mended(&watcher) > before);
    let more = watcher.peak_memory() - idle;
    assert!(more < 3_000_000, "{more} bytes more than at the start");
    detach_all([&t1, &t3]);
}

/// What the kernel tells while it runs.
fn monitor(host: &Host, command: &str, seconds: u32) -> Running {
    let mut shell = host.namespace().command("sh");
    shell.args(["-c", &format!("exec timeout {seconds} {command}")]);
    Running::start(shell, b"")
}

/// What these commands print while `meanwhile` runs, at most `seconds` long.
fn heard(host: &Host, commands: &[String], seconds: u32, meanwhile: impl FnOnce()) -> Vec<String> {
    let monitor = |command: &String| monitor(host, command, seconds);
    let monitors: Vec<_> = commands.iter().map(monitor).collect();
    meanwhile();
    let said = |monitor: Running| monitor.wait(Duration::from_secs(20)).stdout;
    monitors.into_iter().map(said).collect()
}

#[test]
fn a_look_that_finds_nothing_wrong_touches_nothing() {
    let lab = lab();
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", NETWORK);
    let watcher = host.watch();
    watcher.settle();
    let monitors = [
        format!("{SANDBOX} ip monitor link neigh address route"),
        format!("{SANDBOX} bridge monitor fdb"),
        format!("{EGRESS} ip monitor link"),
        "nft monitor".to_owned(),
    ];
    // The kernel tells of a link that came up, and of its bridge, up to a second later.
    until(Duration::from_secs(30), "silence", || {
        heard(host, &monitors, 2, || ()).concat().is_empty()
    });
    let before = mended(&watcher);
    // Ours is touched, and nothing is wrong.
    let said = heard(host, &monitors, 9, || {
        for number in 0..20 {
            host.script(&format!(
                "ip link set ch-egress alias touched{number}; sleep 0.3"
            ));
        }
    });
    assert_eq!(said, [""; 4], "{monitors:?}");
    assert_eq!(mended(&watcher), before, "{}", watcher.said());
    t1.detach().ok();
}

#[test]
fn a_program_that_makes_and_removes_things_all_the_time_costs_little_and_hides_no_damage() {
    let lab = lab();
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", NETWORK);
    let watcher = host.watch();
    watcher.settle();
    // Each ends by itself, whatever becomes of this test.
    let storms = [
        "while :; do
             echo link add storm0 type veth peer name storm1; echo link set storm0 up; echo link delete storm0
         done | ip -batch -",
        "while :; do
             echo link set ch-egress alias a; echo link set ch-egress alias b
             echo address add 203.0.113.77/32 dev lo; echo address delete 203.0.113.77/32 dev lo
         done | ip -batch -",
        "while :; do echo 'add table ip storm; delete table ip storm'; done | nft -i -f - >/dev/null 2>&1",
    ];
    let storms = storms.map(|script| {
        let mut storm = host.namespace().command("timeout");
        storm.args(["30", "bash", "-c", script]);
        Running::start(storm, b"")
    });
    let (before, begun) = (watcher.cpu(), Instant::now());
    spend(Duration::from_secs(12));
    let used = watcher.cpu().saturating_sub(before);
    let share = used.as_secs_f64() / begun.elapsed().as_secs_f64();
    host.script("ip link add probe type bridge");
    let index = host.run("ip -o link show probe").stdout;
    let made = index.split(':').next().and_then(|it| it.parse().ok());
    let made: u32 = made.expect("an index");
    println!("storm: {share:.3} of a processor, {made} links");
    assert!(storms.iter().all(Running::is_alive));
    assert!(made > 100, "{made} links are no storm");
    assert!(share < 0.25, "{used:?} in {:?}", begun.elapsed());

    let before = mended(&watcher);
    host.script("nft delete table inet crosshost");
    watcher.until(Duration::from_secs(12), "mended", || {
        mended(&watcher) > before
    });
    for storm in storms {
        storm.terminate();
        storm.wait(Duration::from_secs(40));
    }
    assert!(watcher.is_alive());
    t1.detach().ok();
}
