//! Bandwidth: a container receives and sends at the rates that were asked for it, by its segment and by its way out, and
//! no other container is held back. A missing limit is noticed and put back, and the limits go with the container.

#![allow(clippy::print_stdout, reason = "says what it measured")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use integration::{Attachment, Backend, Container, Finished, Host, Lab, Net, conflist, netconf};
use serde_json::{Value, json};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
const PATIENCE: Duration = Duration::from_secs(20);
/// The burst of all rates here, in bits.
const BURST: f64 = 1e6;

fn lab(hosts: u8) -> Lab {
    let lab = Lab::new(hosts, Backend::Dir);
    let mut list = conflist(NETWORK, SUBNET);
    list["plugins"][0]["capabilities"]["bandwidth"] = true.into();
    lab.sync();
    lab.install(&list);
    lab
}

/// Rates towards the container and from it, in bits a second, with a burst of 1 Mbit.
fn rates(ingress: u64, egress: u64) -> Value {
    json!({ "ingressRate": ingress, "ingressBurst": 1_000_000, "egressRate": egress, "egressBurst": 1_000_000 })
}

/// A new container that the runtime asks these rates for.
fn limited<'h>(host: &'h Host, name: &str, asked: &Value) -> Container<'h> {
    let container = host.container(name);
    let asked = json!({ "bandwidth": asked });
    host.cnitool_asking("add", NETWORK, (name, "eth0"), &asked)
        .ok();
    container
}

/// The bits a second that come, but for one burst, over a connection from `client` to `server`, over which the former, or with
/// `uploads` false the latter, sends all that it can. Measured until the rate is as `wanted`, for 2 to 10 seconds.
fn measured(
    (client, server, at): (&Net, &Net, SocketAddr),
    uploads: bool,
    wanted: impl Fn(f64) -> bool,
) -> f64 {
    let listener = server.run(|| TcpListener::bind(at)).expect("listen");
    std::thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept().expect("a client").0);
        let near = client.run(|| TcpStream::connect_timeout(&at, PATIENCE));
        let near = near.expect("connect");
        let far = accepted.join().expect("accepted");
        let (mut from, mut to) = if uploads { (near, far) } else { (far, near) };
        scope.spawn(move || while from.write_all(&[0; 16 << 10]).is_ok() {});
        to.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let (begun, mut bits, mut piece) = (Instant::now(), -BURST, vec![0; 64 << 10]);
        for seconds in 2..=10 {
            while begun.elapsed().as_secs() < seconds {
                let bytes = to.read(&mut piece).expect("bytes");
                bits += 8.0 * f64::from(u32::try_from(bytes).expect("a piece"));
            }
            if wanted(bits / begun.elapsed().as_secs_f64()) {
                break;
            }
        }
        bits / begun.elapsed().as_secs_f64()
    })
}

/// Insists on the asked rate but for a tenth.
#[track_caller]
fn assert_kept(way: (&Net, &Net, SocketAddr), uploads: bool, asked: u32, what: &str) {
    let kept = |rate: f64| (0.9..=1.1).contains(&(rate / f64::from(asked)));
    let rate = measured(way, uploads, kept);
    println!("{what}: {rate:.0} of {asked} bits/s");
    assert!(kept(rate), "{what}: {rate:.0} of {asked} bits/s");
}

/// Both directions, over hosts and to the outside, one after the other.
fn keeps(asked: u32) {
    let lab = lab(2);
    let host = lab.host(1);
    let slow = limited(host, "slow", &rates(asked.into(), asked.into()));
    let far = Attachment::new(lab.host(2), "far", NETWORK);
    let near = Attachment::new(host, "near", NETWORK);
    let [net, far_net, near_net] = [&slow, &far.container, &near.container].map(Container::net);
    let outside = lab.outside().net();
    let beyond = |port| SocketAddr::new([203, 0, 113, 9].into(), port);
    let own = SocketAddr::new(slow.address("eth0").expect("an address"), 5001);
    for (peer, peer_net) in [("another host", &far_net), ("the same host", &near_net)] {
        let way = (peer_net, &net, own);
        assert_kept(way, true, asked, &format!("from {peer} to the container"));
        assert_kept(way, false, asked, &format!("from the container to {peer}"));
    }
    let way = (&net, &outside, beyond(5001));
    assert_kept(way, true, asked, "from the container to the outside");
    assert_kept(way, false, asked, "from the outside to the container");

    // Another container of the host is not held back, not even while this one sends all that it may.
    let other = SocketAddr::new(near.address, 5002);
    let enough = |rate: f64| rate > 3.0 * f64::from(asked).max(50e6);
    let free = std::thread::scope(|scope| {
        scope.spawn(|| measured(way, true, |_| false));
        let ways = [
            ((&far_net, &near_net, other), true),
            ((&far_net, &near_net, other), false),
            ((&near_net, &outside, beyond(5002)), true),
        ];
        ways.map(|(way, uploads)| measured(way, uploads, enough))
    });
    println!("neighbours: {free:.0?}");
    assert!(free.into_iter().all(enough), "neighbours: {free:.0?}");
}

#[test]
fn a_rate_of_8_megabits_is_kept_in_both_directions_and_neighbours_have_none() {
    keeps(8_000_000);
}

#[test]
fn a_rate_of_80_megabits_is_kept_in_both_directions_and_neighbours_have_none() {
    keeps(80_000_000);
}

/// What tc shows in a namespace: `words` enter it.
fn shown(host: &Host, words: &str) -> String {
    let script = format!(
        "for link in $({words} ip -o link | cut -d' ' -f2 | cut -d@ -f1 | tr -d : | sort); do
             {words} tc qdisc show dev $link; {words} tc filter show dev $link ingress
         done"
    );
    host.run(&["sh", "-euc", &script]).ok().stdout
}

const SANDBOX: &str = "nsenter --net=/run/crosshost/netns/ov_net1";
const EGRESS: &str = "nsenter --net=/run/crosshost/egress-netns/ch-egress";

#[test]
fn no_other_interface_is_touched_and_a_del_leaves_nothing() {
    let lab = lab(1);
    let host = lab.host(1);
    host.script("tc qdisc add dev ens3 root tbf rate 500mbit burst 100kb limit 200kb");
    let _near = Attachment::new(host, "near", NETWORK);
    let look = || {
        let near = shown(host, "nsenter --net=/run/netns/near");
        [
            shown(host, ""),
            near,
            shown(host, SANDBOX),
            shown(host, EGRESS),
        ]
    };
    let (before, footprint) = (look(), host.footprint());
    let container = limited(host, "slow", &rates(8_000_000, 4_000_000));
    let with = look();
    assert_eq!(with[..2], before[..2], "the host and another container");
    assert!(!shown(host, "nsenter --net=/run/netns/slow").contains("tbf"));
    for inside in &with[2..] {
        assert_eq!(inside.matches("qdisc tbf c055:").count(), 2, "{inside}");
        assert!(
            inside.contains("rate 8Mbit") && inside.contains("rate 4Mbit"),
            "{inside}"
        );
    }
    let call = |verb| {
        let call = host.cnitool_asking(
            verb,
            NETWORK,
            ("slow", "eth0"),
            &json!({ "bandwidth": rates(8_000_000, 4_000_000) }),
        );
        call.ok()
    };
    call("check");
    container.remove();
    call("del");
    assert_eq!(look(), before);
    host.existing("slow");
    let left = host.footprint().since(&footprint);
    assert!(left.is_empty(), "{left:?}");
    call("del");
}

/// Calls of `overlay` itself, as a runtime makes them.
struct Direct<'h> {
    container: Container<'h>,
    conf: Value,
}

impl<'h> Direct<'h> {
    fn new(host: &'h Host, name: &str) -> Self {
        Self {
            container: host.container(name),
            conf: netconf(NETWORK, SUBNET, "1.1.0"),
        }
    }

    fn call(&self, verb: &str, ifname: &str) -> Finished {
        let call = self.container.call(verb, &self.conf);
        call.ifname(ifname).run()
    }
}

#[test]
fn what_limits_a_container_is_missed_by_check_and_doctor_and_put_back() {
    let lab = lab(1);
    let host = lab.host(1);
    let mut slow = Direct::new(host, "slow");
    slow.conf["runtimeConfig"] = json!({ "bandwidth": rates(8_000_000, 4_000_000) });
    slow.conf["prevResult"] = slow.call("ADD", "eth0").ok().json();
    let look = || [SANDBOX, EGRESS].map(|namespace| numberless(&shown(host, namespace)));
    let whole = look();
    slow.call("CHECK", "eth0").ok();
    let missed = |damage: &str, words: &[&str]| {
        let script = format!(
            "S='{SANDBOX}'; E='{EGRESS}'
             P=$($S ip -o link | grep -o 'chp[0-9a-f]*' | head -1); I=chi${{P#chp}}
             Q=$($E ip -o link | grep -o 'che[0-9a-f]*' | head -1); J=chi${{Q#che}}
             {damage}"
        );
        host.script(&script);
        let doctor = host.crosshost("doctor");
        assert!(!doctor.status.success(), "{damage}: {doctor}");
        assert!(
            words.iter().all(|word| doctor.stdout.contains(word)),
            "{damage}: {doctor}"
        );
        // The way out is put back by CHECK itself.
        if damage.starts_with("$S") {
            slow.call("CHECK", "eth0").refused(110, words);
            host.sync();
        }
        slow.call("CHECK", "eth0").ok();
        assert_eq!(look(), whole, "{damage}");
        host.crosshost("doctor").ok();
    };
    for (enter, port, ifb) in [("$S", "$P", "$I"), ("$E", "$Q", "$J")] {
        let (ingress, egress) = ("ingress rate is not kept", "egress rate is not kept");
        let damages = [
            (format!("tc qdisc del dev {port} root"), ingress),
            (
                format!("tc qdisc replace dev {port} root tbf rate 9mbit burst 25000 limit 200kb"),
                ingress,
            ),
            (format!("tc qdisc del dev {port} ingress"), egress),
            (format!("tc filter del dev {port} ingress"), egress),
            (
                format!(
                    "sh -c \"tc qdisc del dev {port} ingress; tc qdisc add dev {port} clsact\""
                ),
                egress,
            ),
            (format!("tc qdisc del dev {ifb} root"), egress),
            (format!("ip link set {ifb} down"), "is down: nothing"),
            (format!("ip link delete {ifb}"), "is gone: nothing"),
        ];
        for (damage, word) in damages {
            missed(&format!("{enter} {damage}"), &[word]);
        }
    }
    // What the DEL of an older version would leave, which knows of no such device.
    let stray = "ip link add chi012345678901 up type ifb";
    host.script(&format!("{SANDBOX} {stray}; {EGRESS} {stray}"));
    host.sync();
    for namespace in [SANDBOX, EGRESS] {
        assert!(
            !shown(host, namespace).contains("chi012345678901"),
            "{namespace}"
        );
    }
    slow.call("DEL", "eth0").ok();
}

/// Without the numbers that the kernel gives and that do not come back.
fn numberless(shown: &str) -> String {
    let words = shown
        .split_whitespace()
        .filter(|it| !it.starts_with("refcnt"));
    let mut all: Vec<_> = words.map(str::to_owned).collect();
    all.retain(|word| word.parse::<u64>().is_err());
    all.join(" ")
}

#[test]
fn the_configurations_rates_count_where_the_runtime_names_none() {
    let lab = lab(1);
    let host = lab.host(1);
    let mut slow = Direct::new(host, "slow");
    slow.conf["bandwidth"] = rates(3_000_000, 5_000_000);
    // As containerd sends it: in its own spelling, with a burst that was not asked for, and zero for a direction without limit.
    slow.conf["runtimeConfig"] = json!({ "bandwidth": {
        "IngressRate": 7_000_000, "IngressBurst": u32::MAX, "EgressRate": 0, "EgressBurst": 0,
    } });
    slow.call("ADD", "eth0").ok();
    let inside = shown(host, SANDBOX);
    let rates: Vec<_> = ["3Mbit", "5Mbit", "7Mbit"]
        .iter()
        .filter(|it| inside.contains(**it))
        .collect();
    assert_eq!(rates, [&"5Mbit", &"7Mbit"], "{inside}");
    assert!(
        inside.contains("burst 128Kb"),
        "not half a gigabyte at once: {inside}"
    );
    slow.call("DEL", "eth0").ok();
}

#[test]
fn the_way_out_of_a_container_on_two_networks_has_the_lower_rates_of_both() {
    let lab = lab(1);
    let host = lab.host(1);
    let mut one = Direct::new(host, "slow");
    one.conf["bandwidth"] = rates(8_000_000, 40_000_000);
    one.call("ADD", "eth0").ok();
    let mut two = Direct {
        container: host.existing("slow"),
        conf: netconf("ov_net2", "10.0.1.0/24", "1.1.0"),
    };
    let egress = || {
        let all = shown(host, EGRESS);
        let words = all.split_whitespace().filter(|word| word.ends_with("bit"));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(egress(), ["8Mbit", "40Mbit"]);
    two.conf["bandwidth"] = rates(16_000_000, 20_000_000);
    two.call("ADD", "eth1").ok();
    assert_eq!(egress(), ["8Mbit", "20Mbit"]);
    one.call("DEL", "eth0").ok();
    assert_eq!(egress(), ["16Mbit", "20Mbit"]);
    one.conf["bandwidth"] = Value::Null;
    one.call("ADD", "eth0").ok();
    two.call("DEL", "eth1").ok();
    assert_eq!(egress(), [""; 0], "{}", shown(host, EGRESS));
    assert!(
        !shown(host, EGRESS).contains("chi"),
        "{}",
        shown(host, EGRESS)
    );
    one.call("DEL", "eth0").ok();
}

#[test]
fn rates_that_cannot_be_meant_are_refused_before_anything_is_made() {
    let lab = lab(1);
    let host = lab.host(1);
    let before = host.footprint();
    let cases: [(u32, Value, &[&str]); 9] = [
        (
            7,
            json!({ "ingressRate": 1000 }),
            &["ingressBurst: 0", "ingressRate 1000"],
        ),
        (
            7,
            json!({ "egressBurst": 1000 }),
            &["egressRate: 0", "egressBurst 1000"],
        ),
        (
            7,
            json!({ "egressRate": 7, "egressBurst": 1000 }),
            &["egressRate: 7"],
        ),
        (
            7,
            json!({ "ingressRate": 8, "ingressBurst": 34_359_738_360_u64 }),
            &["ingressBurst: 34359738360"],
        ),
        (7, json!({ "ingressRate": -1 }), &["ingressRate", "-1"]),
        (7, json!({ "ingressRate": "10M" }), &["ingressRate", "10M"]),
        (7, json!("10M"), &["bandwidth", "10M"]),
        (
            2,
            json!({ "shapedSubnets": ["10.0.0.0/8"] }),
            &["shapedSubnets", "10.0.0.0/8"],
        ),
        (
            2,
            json!({ "unshapedSubnets": ["10.0.0.0/8"] }),
            &["unshapedSubnets", "10.0.0.0/8"],
        ),
    ];
    let mut slow = Direct::new(host, "slow");
    for (code, asked, words) in cases {
        for key in ["bandwidth", "runtimeConfig"] {
            slow.conf = netconf(NETWORK, SUBNET, "1.1.0");
            slow.conf[key] = match key {
                "bandwidth" => asked.clone(),
                _ => json!({ "bandwidth": asked }),
            };
            let text = slow.call("ADD", "eth0").refused(code, words);
            assert!(text.starts_with(key), "{text}");
        }
    }
    slow.conf["bandwidth"] = json!({ "ingresRate": 1000 });
    slow.conf["runtimeConfig"] = Value::Null;
    slow.call("ADD", "eth0")
        .refused(7, &["bandwidth.ingresRate: 1000: unknown key"]);
    slow.conf["bandwidth"] = Value::Null;
    slow.conf["runtimeConfig"] = json!({ "bandwidth": { "ingressRat": 1000 } });
    slow.call("ADD", "eth0").refused(
        7,
        &["runtimeConfig.bandwidth.ingressRat: 1000: unknown key"],
    );
    slow.call("DEL", "eth0").ok();
    slow.container.remove();
    host.assert_same_as(&before, "refused");
}

#[test]
fn killed_at_any_moment_it_leaves_no_limits_and_the_next_add_has_them() {
    let lab = lab(1);
    let host = lab.host(1);
    let _near = Attachment::new(host, "near", NETWORK);
    let look = || [shown(host, SANDBOX), shown(host, EGRESS)];
    let mut slow = Direct::new(host, "slow");
    slow.conf["bandwidth"] = rates(8_000_000, 4_000_000);
    slow.call("ADD", "eth0").ok();
    slow.call("DEL", "eth0").ok();
    let before = look();
    for step in 0..24_u64 {
        let killed = slow.container.call("ADD", &slow.conf).start();
        killed.kill_after(Duration::from_micros(2000 + 1500 * step));
        killed.wait(PATIENCE);
        let when = format!("killed in step {step}");
        if step % 2 == 0 {
            slow.call("DEL", "eth0").ok();
            assert_eq!(look(), before, "{when}, then DEL");
        }
        let again = slow.call("ADD", "eth0");
        let told = again.status.success() || again.stdout.contains("\"code\":100");
        assert!(told, "{when}: {again}");
        for inside in look() {
            assert_eq!(
                inside.matches("qdisc tbf c055:").count(),
                2,
                "{when}: {inside}"
            );
            assert_eq!(
                inside.matches("qdisc ingress").count(),
                1,
                "{when}: {inside}"
            );
        }
        slow.call("DEL", "eth0").ok();
        assert_eq!(look(), before, "{when}, added, then DEL");
    }
}

#[test]
fn a_container_is_not_judged_by_rates_that_were_misspelt_after_it() {
    let lab = lab(1);
    let mut slow = Direct::new(lab.host(1), "slow");
    slow.conf["bandwidth"] = rates(8_000_000, 4_000_000);
    let result = slow.call("ADD", "eth0").ok().json();
    slow.conf["prevResult"] = result;
    slow.conf["bandwidth"] = json!({ "ingresRate": 1000 });
    slow.call("CHECK", "eth0").ok();
    slow.call("DEL", "eth0").ok();
}
