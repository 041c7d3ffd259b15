//! The host stays as it was. Every setting below `/proc/sys/net`, and all links, addresses, routes, routing rules, firewall rules,
//! queues, permanent neighbours and forwarding entries are compared before the first ADD and after the last DEL, on networks of
//! every egress mode, with host access, published ports, rates and a requested MAC. What stays is a list.

use std::collections::BTreeSet;

use integration::{Backend, Host, Lab, conflist};
use serde_json::{Value, json};

/// What stays of IPv4. Switching on `ip_forward`, the kernel itself sets the other ones.
const IPV4: [&str; 6] = [
    "ipv4/conf/all/accept_redirects 0",
    "ipv4/conf/all/forwarding 1",
    "ipv4/conf/default/forwarding 1",
    "ipv4/conf/ens3/forwarding 1",
    "ipv4/conf/lo/forwarding 1",
    "ipv4/ip_forward 1",
];

/// What stays of IPv6 beside it. The kernel sets `forwarding` of each interface with that of `all`. `ens3` has a route from a router,
/// which it would lose as long as the host forwards.
const IPV6: [&str; 5] = [
    "ipv6/conf/all/forwarding 1",
    "ipv6/conf/default/forwarding 1",
    "ipv6/conf/ens3/accept_ra 2",
    "ipv6/conf/ens3/forwarding 1",
    "ipv6/conf/lo/forwarding 1",
];

/// Names of the networks, with the egress mode of each.
const MODES: [(&str, &str); 3] = [("n0", "gwbridge"), ("n1", "gateway"), ("n2", "none")];

/// All settings of the kernel that a host's network namespace has. The number of tracked connections is no setting.
fn settings(host: &Host) -> BTreeSet<String> {
    let read = "cd /proc/sys/net; find . -type f ! -name nf_conntrack_count -exec grep -H '' {} + 2>/dev/null || true";
    let said = host.run(&["sh", "-c", read]).ok().stdout;
    let line = |line: &str| {
        let (key, value) = line.split_once(':')?;
        Some(format!("{} {value}", key.trim_start_matches("./")))
    };
    let settings: BTreeSet<_> = said.lines().filter_map(line).collect();
    assert!(settings.len() > 500, "{settings:?}");
    settings
}

/// All objects of a host's network. Neighbours that the kernel asks for by itself come and go; those that are set are permanent.
/// With forwarding of IPv6 the kernel hears anycasts.
fn objects(host: &Host) -> BTreeSet<String> {
    let list = "set -e
        ip -o -details link | sed 's/^[0-9]*: /link /'
        ip -o address | grep -v 'inet6 fe80:' | sed 's/^[0-9]*: /address /; s/ valid_lft.*//'
        ip route show table all | grep -v -e '^anycast ' -e fe80: -e ff00::/8 | sed 's/^/route /'
        ip -6 route show table all | grep -v -e '^anycast ' -e fe80: -e ff00::/8 | sed 's/^/route /; s/ expires .*//'
        ip rule | sed 's/^/rule /'
        ip -6 rule | sed 's/^/rule of IPv6 /'
        ip neigh show nud permanent | sed 's/^/neighbour /'
        ip neigh show proxy | sed 's/^/proxied neighbour /'
        bridge fdb show | grep -v -e ' dev ens3 ' -e '^33:33:' -e '^01:00:5e' | sed 's/^/entry /' || true
        tc qdisc show | sed 's/^/queue /'
        nft list ruleset | sed 's/^/nft /'
        ls /run/netns | sed 's/^/namespace /'";
    let said = host.run(&["sh", "-c", list]).ok().stdout;
    said.lines().map(|line| line.trim().to_owned()).collect()
}

/// What is in `after` and not in `before`, and what has gone. A setting that has another value is shown with the new one.
fn changes(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let key = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let new: Vec<_> = after.difference(before).cloned().collect();
    let changed: BTreeSet<_> = new.iter().map(key).collect();
    let gone = before.difference(after);
    let gone = gone.filter(|line| !changed.contains(&key(line)));
    let gone = gone.map(|line| format!("gone: {line}")).collect();
    [new, gone].concat()
}

/// A network with all that a host does for one: its own link, published ports, rates.
fn network(number: usize, (name, mode): (&str, &str), dual: bool) -> Value {
    let mut conf = conflist(name, &format!("10.0.{number}.0/24"));
    let plugins = conf["plugins"].as_array_mut().expect("plugins");
    plugins[0]["egress"] = json!({ "mode": mode });
    plugins[0]["hostAccess"] = true.into();
    plugins[0]["capabilities"] = json!({ "mac": true, "bandwidth": true });
    let mut ranges = vec![
        json!([{ "subnet": format!("10.0.{number}.0/24"), "gateway": format!("10.0.{number}.1") }]),
    ];
    if dual {
        ranges.push(
            json!([{ "subnet": format!("fd00:{number}::/64"), "gateway": format!("fd00:{number}::1") }]),
        );
    }
    plugins[0]["ipam"]["ranges"] = ranges.into();
    plugins
        .push(json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } }));
    conf
}

/// All verbs of a container's life on each network of each host.
fn live(lab: &Lab) {
    let asked = |number: usize| {
        let port = 8080 + number;
        let mut ports = vec![json!({ "hostPort": port, "containerPort": 80, "protocol": "tcp" })];
        if number == 0 {
            ports.push(json!({ "hostPort": 9090, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1" }));
        }
        let rates = json!({ "ingressRate": 80_000_000, "ingressBurst": 8_000_000,
            "egressRate": 80_000_000, "egressBurst": 8_000_000 });
        let ports = if MODES[number].1 == "none" {
            vec![]
        } else {
            ports
        };
        json!({ "portMappings": ports, "bandwidth": rates })
    };
    for host in lab.hosts() {
        for (number, (name, _)) in MODES.into_iter().enumerate() {
            let mut asked = asked(number);
            asked["mac"] = format!("02:11:22:{number:02x}:44:{}", &host.name()[6..]).into();
            host.container(name);
            host.cnitool_asking("add", name, (name, "eth0"), &asked)
                .ok();
        }
        host.sync();
    }
    for (name, _) in MODES {
        let there = lab.host(2).existing(name).address("eth0");
        let there = there.expect("an address");
        assert!(lab.host(1).existing(name).pings(there, &[]), "{name}");
    }
    for host in lab.hosts() {
        for (number, (name, _)) in MODES.into_iter().enumerate() {
            let asked = asked(number);
            for verb in ["check", "del"] {
                host.cnitool_asking(verb, name, (name, "eth0"), &asked).ok();
            }
            host.existing(name).remove();
        }
    }
}

#[test]
fn what_containers_leave_on_a_host_is_forwarding_and_nothing_else() {
    for (dual, stays) in [(false, IPV4.to_vec()), (true, [&IPV4[..], &IPV6].concat())] {
        let lab = Lab::registered(2, Backend::Dir);
        for host in lab.hosts() {
            host.script(
                "echo 0 > /proc/sys/net/ipv4/ip_forward
                 echo 0 > /proc/sys/net/ipv6/conf/all/forwarding
                 # The firewall of a host that Docker or a person set up, and an interface of another program.
                 nft add table inet theirs
                 nft add chain inet theirs in '{ type filter hook input priority 0; policy accept; }'
                 nft add rule inet theirs in tcp dport 22 accept
                 ip link add docker0 type bridge
                 ip rule add from 10.9.9.9 table 7
                 ip neigh add 192.168.1.77 lladdr 02:00:00:00:00:77 dev ens3 nud permanent
                 ip -6 route del default
                 ip -6 route add default via 2001:db8:192:168:1::1 dev ens3 proto ra",
            );
            for (number, mode) in MODES.into_iter().enumerate() {
                host.install(&network(number, mode, dual));
            }
        }
        let before: Vec<_> = (lab.hosts().iter())
            .map(|host| (settings(host), objects(host)))
            .collect();
        // The bridge of the other program forwards with all others.
        let of_docker0 = |it: &&str| it.contains("/ens3/forwarding");
        let of_docker0 = stays.iter().copied().filter(of_docker0);
        let mut stays: Vec<_> = (of_docker0.map(|it| it.replace("ens3", "docker0")))
            .chain(stays.iter().map(|it| (*it).to_owned()))
            .collect();
        stays.sort_unstable();
        // Twice: the second time nothing at all changes.
        for _ in 0..2 {
            live(&lab);
            for (host, (settings_before, objects_before)) in lab.hosts().iter().zip(&before) {
                let changed = changes(settings_before, &settings(host));
                assert_eq!(changed, stays, "{}, dual stack {dual}", host.name());
                let changed = changes(objects_before, &objects(host));
                assert_eq!(changed, [""; 0], "{}, dual stack {dual}", host.name());
            }
        }
    }
}
