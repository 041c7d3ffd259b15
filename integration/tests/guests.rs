//! The main job on kernels of Debian, each its own: two guests of qemu on one network, and a power cut of one of them. `make
//! test-vm` runs it, `make test` does not. Each kernel is once the one that loses its power and once the one that stays.
#![allow(clippy::expect_used, reason = "a test: it stops where it broke")]

use std::collections::BTreeSet;
use std::process::Command;

use integration::{Backend, Finished, Guest, Image, Lab, addresses_in, workspace};
use serde_json::{Value, json};

/// The largest payload of an echo request that fits into the containers' MTU, by version of IP.
const FULL: [u16; 2] = [1422, 1402];

#[test]
#[ignore = "make test-vm"]
fn a_host_of_5_10_loses_its_power_beside_one_of_6_1() {
    story(["5.10", "6.1"]);
}

#[test]
#[ignore = "make test-vm"]
fn a_host_of_6_1_loses_its_power_beside_one_of_the_newest() {
    story(["6.1", "newest"]);
}

#[test]
#[ignore = "make test-vm"]
fn a_host_of_the_newest_loses_its_power_beside_one_of_5_10() {
    story(["newest", "5.10"]);
}

#[test]
fn without_qemu_the_command_says_what_it_needs_and_is_no_failure() {
    let said = Command::new("make")
        // The recipe needs no program before it has found qemu.
        .args(["--no-print-directory", "test-vm", "PATH=/nowhere"])
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .current_dir(workspace())
        .output()
        .expect("make");
    assert!(said.status.success(), "{said:?}");
    let line = String::from_utf8_lossy(&said.stdout);
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(
        line.contains("SKIPPED") && line.contains("qemu-system-x86"),
        "{line}"
    );
}

fn story(kernels: [&str; 2]) {
    let lab = Lab::new(0, Backend::GuardedConsul);
    let images = kernels.map(Image::new);
    let mut one = Guest::start(&lab, &images[0], 1);
    let two = Guest::start(&lab, &images[1], 2);
    for guest in [&one, &two] {
        furnish(&lab, guest);
    }
    let untouched = [&one, &two].map(Guest::footprint);
    let c1 = Container::new(&one, "c1");
    let c2 = Container::new(&two, "c2");
    two.run("crosshost sync --watch >/tmp/watch 2>&1 & echo $! >/tmp/watcher")
        .ok();
    all_is_well((&one, &c1), (&two, &c2));
    walls_hold((&one, &c1), (&two, &c2));
    walls_hold((&two, &c2), (&one, &c1));
    let entries = forwarding(&two);

    let first = boot_id(&one);
    one.power_cut();
    assert!(!pings(&two, "c2", &c1.addresses[0]), "it is off");
    one.power_on();
    assert_ne!(boot_id(&one), first);
    one.footprint()
        .assert_same_as(&untouched[0], "after the boot");
    let both = [&one, &two].map(|guest| guest.name().to_owned());
    assert_eq!(holders(&two), BTreeSet::from(both), "nobody has told yet");
    one.run("crosshost sync").ok();
    let left = BTreeSet::from([two.name().to_owned()]);
    assert_eq!(holders(&two), left, "after the sync");
    // A runtime finds that its container is gone, and deletes it.
    c1.detach(&one);

    let c3 = Container::new(&one, "c3");
    all_is_well((&one, &c3), (&two, &c2));
    for old in c1.addresses.iter().filter(|it| !c3.addresses.contains(it)) {
        assert!(!pings(&two, "c2", old), "nobody has {old} now");
    }
    assert_eq!(forwarding(&two), entries, "by block, whoever has which");

    two.run("kill $(cat /tmp/watcher)").ok();
    for (container, guest) in [(&c3, &one), (&c2, &two)] {
        container.detach(guest);
        container.detach(guest);
        guest
            .run(&format!(
                "kill $(pidof httpd)\nip netns delete {}",
                container.name
            ))
            .ok();
    }
    assert_eq!(holders(&one), BTreeSet::new());
    for (guest, before) in [&one, &two].into_iter().zip(&untouched) {
        guest.footprint().assert_same_as(before, guest.name());
    }
    for network in ["ov_net1", "ov_net2"] {
        one.run(&format!("crosshost network rm {network}")).ok();
    }
}

/// Makes a host known, and configures it and two networks, which between them ask for what the kernel has to do: a second NIC with NAT
/// and published ports, the host as gateway and on the segment, a MAC of its own.
fn furnish(lab: &Lab, guest: &Guest) {
    let rules = r#"key_prefix "crosshost/" { policy = "write" }"#;
    let token = "/etc/crosshost/token";
    guest.write(token, &lab.consul().token(guest.name(), rules));
    guest.run(&format!("chmod 600 {token}")).ok();
    let config = json!({ "store": { "url": lab.store_url(), "tokenFile": token } });
    guest.write("/etc/crosshost/config.json", &config.to_string());
    let network = |number: u8, plugin: &Value, others: &[Value]| {
        let ranges = json!([
            [{ "subnet": format!("10.{number}.0.0/24") }],
            [{ "subnet": format!("fd00:{number}::/64") }],
        ]);
        let mut plugin = plugin.clone();
        plugin["type"] = "overlay".into();
        plugin["ipam"] = json!({ "type": "ipam-kv", "ranges": ranges });
        let plugins = [&[plugin], others].concat();
        let name = format!("ov_net{number}");
        let conflist = json!({
            "cniVersion": "1.0.0", "cniVersions": ["1.1.0"], "name": name, "plugins": plugins,
        });
        guest.write(
            &format!("/etc/cni/net.d/{name}.conflist"),
            &conflist.to_string(),
        );
    };
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    network(1, &json!({}), &[portmap]);
    let capabilities = json!({ "mac": true });
    let gateway = json!({ "egress": "gateway", "hostAccess": true, "capabilities": capabilities });
    network(2, &gateway, &[]);
    guest.run("crosshost sync").ok();
}

/// A container on both networks.
struct Container {
    name: String,
    /// Of `eth0` by IPv4 and IPv6, then of `eth1`.
    addresses: Vec<String>,
}

impl Container {
    /// Makes a namespace, attaches it, and serves there: who asks is told by which address it is seen.
    #[track_caller]
    fn new(guest: &Guest, name: &str) -> Container {
        guest.run(&format!("ip netns add {name}")).ok();
        let mut container = Container {
            name: name.to_owned(),
            addresses: Vec::new(),
        };
        for said in container.cnitool(guest, "add") {
            // The first network's last two are those of `gw0`.
            for address in addresses_in(&said.json()).iter().take(2) {
                let bare = address.split('/').next().unwrap_or_default();
                container.addresses.push(bare.to_owned());
            }
        }
        guest
            .run(&format!(
                "mkdir -p /srv/cgi-bin
                 printf '#!/bin/sh\\necho\\necho $REMOTE_ADDR\\n' >/srv/cgi-bin/who
                 chmod +x /srv/cgi-bin/who
                 ip netns exec {name} httpd -p 80 -h /srv"
            ))
            .ok();
        container
    }

    /// A verb for each attachment, as a runtime calls it; none may fail.
    #[track_caller]
    fn cnitool(&self, guest: &Guest, verb: &str) -> [Finished; 2] {
        let port =
            |protocol| json!({ "hostPort": 8080, "containerPort": 80, "protocol": protocol });
        let ports = json!({ "portMappings": [port("tcp"), port("udp")] });
        // One for each host: who starts its containers anew asks for what they had.
        let mac = json!({ "mac": guest.address().replace("192.168.1.", "02:11:22:33:44:") });
        [("ov_net1", "eth0", ports), ("ov_net2", "eth1", mac)].map(|(network, ifname, asked)| {
            guest
                .run(&format!(
                    "CNI_IFNAME={ifname} CAP_ARGS='{asked}' cnitool {verb} {network} /run/netns/{}",
                    self.name
                ))
                .ok()
        })
    }

    /// DEL, whether or not the container is still there.
    #[track_caller]
    fn detach(&self, guest: &Guest) {
        self.cnitool(guest, "del");
    }
}

/// All that two containers on two hosts can do, on both at once.
fn all_is_well(one: (&Guest, &Container), two: (&Guest, &Container)) {
    std::thread::scope(|scope| {
        scope.spawn(|| its_side_is_well(one, two));
        scope.spawn(|| its_side_is_well(two, one));
    });
}

fn its_side_is_well((guest, own): (&Guest, &Container), (other, far): (&Guest, &Container)) {
    let inside = format!("ip netns exec {}", own.name);
    for (at, address) in far.addresses.iter().enumerate() {
        let (full, more) = (FULL[at % 2], FULL[at % 2] + 1);
        // What is too large its own kernel refuses: no answer has to be awaited.
        let pings = guest.run(&format!(
            "ping='{inside} ping -n -c1 -W2'
             $ping {address}
             $ping -s 1000 {address}
             $ping -M do -s {full} {address}
             $ping -M do -s {more} -W0.1 {address} 2>&1 | grep 'too long'"
        ));
        pings.ok();
    }
    // The way out, over NAT.
    for (outside, seen) in [
        ("203.0.113.9", guest.address().to_owned()),
        ("2001:db8:203:0:113::9", guest.address6()),
    ] {
        let said = guest.run(&format!("{inside} nc -w 5 {outside} 80"));
        assert_eq!(said.ok().stdout, seen, "{} to {outside}", own.name);
    }
    // The way in, by the published port: from the other host, and from the container itself.
    assert_eq!(seen_at(other, "", guest.address()), other.address());
    assert_eq!(seen_at(other, "", &guest.address6()), other.address6());
    assert!(seen_at(guest, &inside, guest.address()).starts_with("172."));
    // The host is on the second segment itself.
    for address in own.addresses[2..].iter().chain(&far.addresses[2..]) {
        guest.run(&format!("ping -n -c1 -W2 {address}")).ok();
    }
    own.cnitool(guest, "check");
    own.cnitool(guest, "status");
    guest.run("crosshost doctor").ok();
}

/// What keeps containers apart stands on this kernel's features: a container is heard with its own addresses, and with no others, and its
/// own tunnel brings nothing into a network by the other host.
fn walls_hold((guest, own): (&Guest, &Container), (other, far): (&Guest, &Container)) {
    let inside = format!("ip netns exec {}", own.name);
    let address = &far.addresses[0];
    let forged = "10.1.0.250";
    let echoes = || {
        let counted = other.run(&format!(
            "ip netns exec {} awk '/^Icmp: [0-9]/ {{ print $10 }}' /proc/net/snmp",
            far.name
        ));
        let counted = counted.ok().stdout;
        counted.trim().parse::<u64>().expect("a number of echoes")
    };
    let before = echoes();
    guest
        .run(&format!("{inside} ping -n -c2 -W2 {address}"))
        .ok();
    assert_eq!(echoes(), before + 2, "what is its own is heard");

    guest
        .run(&format!(
            "{inside} /bin/ip address add {forged}/24 dev eth0"
        ))
        .ok();
    let said = guest.run(&format!("{inside} ping -n -c3 -W1 -I {forged} {address}"));
    assert!(!said.status.success(), "{said}");
    assert_eq!(echoes(), before + 2, "an address that it took is not heard");
    guest
        .run(&format!(
            "{inside} /bin/ip address del {forged}/24 dev eth0
             {inside} /bin/ip link add vx0 type vxlan id 4097 remote {} dstport 4789 dev gw0
             {inside} /bin/ip address add {forged}/32 dev vx0
             {inside} /bin/ip link set vx0 up
             {inside} /bin/ip route add {address} dev vx0 src {forged}
             {inside} /bin/ip neighbour replace {address} dev vx0 lladdr {}",
            other.address(),
            mac_of(address),
        ))
        .ok();
    let said = guest.run(&format!("{inside} ping -n -c3 -W1 {address}"));
    assert!(!said.status.success(), "{said}");
    assert_eq!(
        echoes(),
        before + 2,
        "nor what comes by a tunnel of its own"
    );
    guest.run(&format!("{inside} /bin/ip link del vx0")).ok();
    guest
        .run(&format!("{inside} ping -n -c1 -W2 {address}"))
        .ok();
}

/// The MAC that follows from an address of IPv4.
fn mac_of(address: &str) -> String {
    let address = address.parse::<std::net::Ipv4Addr>().expect("of IPv4");
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Whether an address answers the container.
#[track_caller]
fn pings(guest: &Guest, container: &str, address: &str) -> bool {
    let ping = format!("ip netns exec {container} ping -n -c1 -W2 {address}");
    guest.run(&ping).status.success()
}

/// By which address who asks at a published port of `host` is seen in the container.
#[track_caller]
fn seen_at(guest: &Guest, inside: &str, host: &str) -> String {
    let asked = guest.run(&format!(
        "printf 'GET /cgi-bin/who HTTP/1.0\\r\\n\\r\\n' | {inside} nc -w 5 {host} 8080 | tail -n 1"
    ));
    let seen = asked.ok().stdout;
    let bare = seen.trim().trim_matches(['[', ']']);
    bare.trim_start_matches("::ffff:").to_owned()
}

#[track_caller]
fn boot_id(guest: &Guest) -> String {
    let id = guest.run("cat /proc/sys/kernel/random/boot_id");
    id.ok().stdout
}

/// The hosts that have leases.
#[track_caller]
fn holders(guest: &Guest) -> BTreeSet<String> {
    let listed = guest.run("crosshost endpoint ls --json").ok().answer();
    let nodes = listed.as_array().expect("a list").iter();
    let names = nodes.filter_map(|one| one["node"].as_str());
    names.map(str::to_owned).collect()
}

/// The sandboxes' entries for addresses of other hosts.
#[track_caller]
fn forwarding(guest: &Guest) -> BTreeSet<String> {
    let listed = guest.run(
        "for network in ov_net1 ov_net2; do
             inside=\"nsenter --net=/run/crosshost/netns/$network\"
             $inside /bin/bridge fdb show dev vxlan0
             $inside /bin/ip neighbour show nud permanent
         done",
    );
    listed.ok().stdout.lines().map(str::to_owned).collect()
}
