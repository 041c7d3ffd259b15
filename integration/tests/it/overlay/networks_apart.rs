//! Networks are apart at layer 3: no host forwards to a container what nothing led there, whichever way its network has out, nor
//! anything from a container that has an address which is not its own, by either version of IP. What arrives is counted, not what is
//! answered.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use integration::{
    Attachment, Backend, Container, Host, Lab, Namespace, Net, OUTSIDE, OUTSIDE6, conflist, end_all,
};
use serde_json::{Value, json};

const PORT: u16 = 9999;

/// All addresses of the version of IP that this one has.
fn any(of: IpAddr) -> IpAddr {
    if of.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    }
}

/// Whether a datagram from there arrives here.
fn arrives(from: &Net, to: &Net, at: IpAddr) -> bool {
    let from_any = any(at);
    let at = SocketAddr::new(at, PORT);
    let listener = to.run(|| UdpSocket::bind(at).expect("a socket"));
    let patience = Some(Duration::from_millis(400));
    listener.set_read_timeout(patience).expect("a time-out");
    from.run(|| {
        let socket = UdpSocket::bind((from_any, 0)).expect("a socket");
        // A host may refuse it at once.
        let _ = socket.send_to(b"hello", at);
    });
    listener.recv(&mut [0; 16]).is_ok()
}

/// The same of what should arrive: the machine may have much else to do.
fn reaches(from: &Net, to: &Net, at: IpAddr) -> bool {
    (0..25).any(|_| arrives(from, to, at))
}

/// A network whose way out is by the egress NIC, one by the gateway, and one on which each host has an address.
fn networks() -> [(&'static str, Value); 3] {
    let with = |name, subnet, keys: Value| {
        let mut conflist = conflist(name, subnet);
        for (key, value) in keys.as_object().expect("keys") {
            conflist["plugins"][0][key] = value.clone();
        }
        (name, conflist)
    };
    [
        with("nat", "10.0.6.0/24 fd00:6::/64", json!({})),
        with(
            "gateway",
            "10.0.7.0/24 fd00:7::/64",
            json!({ "egress": "gateway" }),
        ),
        with(
            "access",
            "10.0.8.0/24 fd00:8::/64",
            json!({ "hostAccess": true }),
        ),
    ]
}

fn lab() -> Lab {
    let lab = Lab::registered(2, Backend::Dir);
    for (_, conflist) in networks() {
        lab.install(&conflist);
    }
    lab
}

fn on_each<'lab>(lab: &'lab Lab, name: &str) -> [Attachment<'lab>; 2] {
    [1, 2].map(|n| Attachment::new(lab.host(n), &format!("{name}{n}"), name))
}

/// The addresses of an interface, but for link-local ones; none if it is not there.
fn addresses_of(container: &Container<'_>, ifname: &str) -> Vec<IpAddr> {
    let links = container.ip("address show scope global");
    let links = links.as_array().into_iter().flatten();
    let its = links.filter(|link| link["ifname"] == ifname);
    let its = its.flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    let its = its.filter_map(|it| it["local"].as_str()?.parse().ok());
    its.collect()
}

/// All addresses by which the container could be reached.
fn addresses(attached: &Attachment<'_>) -> Vec<IpAddr> {
    let links = ["eth0", "gw0"].into_iter();
    let all: Vec<_> = links
        .flat_map(|link| addresses_of(&attached.container, link))
        .collect();
    assert!(all.iter().any(IpAddr::is_ipv6), "{all:?}");
    all
}

#[test]
fn no_container_reaches_another_network_by_a_host() {
    let lab = lab();
    let names = networks().map(|(name, _)| name);
    let all = names.map(|name| on_each(&lab, name));
    for (from, senders) in names.iter().zip(&all) {
        let [first, second] = senders;
        let (net, other) = (first.container.net(), second.container.net());
        for at in addresses_of(&second.container, "eth0") {
            assert!(reaches(&net, &other, at), "{from}: its own network by {at}");
        }
        for outside in [OUTSIDE, OUTSIDE6] {
            let said = first.container.tcp_get(outside);
            assert!(said.is_ok(), "{from}: {outside}");
        }
        for (to, receivers) in names.iter().zip(&all).filter(|(to, _)| *to != from) {
            for receiver in receivers {
                for at in addresses(receiver) {
                    let host = receiver.host().name();
                    let found = arrives(&net, &receiver.container.net(), at);
                    assert!(!found, "{from} reaches {to} on {host} at {at}");
                }
            }
        }
    }
    // The neighbours of one network, by the bridge of their way out.
    let [first, _] = &all[0];
    let beside = Attachment::new(lab.host(1), "beside", "nat");
    let ways = addresses_of(&beside.container, "gw0");
    assert_eq!(ways.len(), 2, "{ways:?}");
    for at in ways {
        let net = first.container.net();
        assert!(!arrives(&net, &beside.container.net(), at), "{at}");
    }
    beside.end();
    // The hosts themselves reach what they have links to.
    let [here, there] = &all[2];
    for receiver in [here, there] {
        let net = lab.host(1).namespace().net();
        for at in addresses_of(&receiver.container, "eth0") {
            assert!(reaches(&net, &receiver.container.net(), at), "{at}");
        }
    }
    for attached in all {
        end_all(attached);
    }
}

/// A container, and what leaves its host with the address of a version of IP: the one by which its way out leads back does, and others
/// do not. The guard of the container's ports stops these, and so does the host's table alone; a sync brings both back.
fn leaves_with_its_own(lab: &Lab, name: &str, over6: bool) {
    let host = lab.host(1);
    let there = if over6 {
        host_of_ipv6(lab.host(2))
    } else {
        lab.host(2).vtep().parse().expect("an address")
    };
    let outside = if over6 { OUTSIDE6 } else { OUTSIDE };
    let outside: SocketAddr = outside.parse().expect("address and port");
    let outside = SocketAddr::new(outside.ip(), PORT);
    let strange: IpAddr = if over6 { "2001:4860::8888" } else { "8.8.8.8" }
        .parse()
        .expect("an address");
    let attached = Attachment::new(host, name, name);
    let container = &attached.container;
    for foreign in [strange, there] {
        let add = if over6 {
            format!("ip address add {foreign}/128 dev lo nodad")
        } else {
            format!("ip address add {foreign}/32 dev lo")
        };
        container.run(&add).ok();
    }
    container.run("ip link set lo up").ok();
    let leaves = |from: IpAddr| {
        let to = lab.outside().net();
        let listener = to.run(|| UdpSocket::bind(outside).expect("a socket"));
        let patience = Some(Duration::from_millis(400));
        listener.set_read_timeout(patience).expect("a time-out");
        container.net().run(|| {
            let socket = UdpSocket::bind((from, 0)).expect("a socket");
            let _ = socket.send_to(b"hello", outside);
        });
        listener.recv(&mut [0; 16]).is_ok()
    };
    let soon = |from: IpAddr| (0..25).any(|_| leaves(from));
    let of_version = |ifname| {
        let mut its = addresses_of(container, ifname).into_iter();
        its.find(|it| it.is_ipv6() == over6)
    };
    // The address by which its way out leads back, and those by which none does.
    let egress = of_version("gw0");
    let segment = of_version("eth0").expect("an address");
    let own = egress.unwrap_or(segment);
    assert!(soon(own), "{name}: {own}");
    let segment = egress.map(|_| segment);
    let foreign = [strange, there];
    for from in foreign.into_iter().chain(segment) {
        assert!(!leaves(from), "{name}: {from}");
    }
    host.script(
        "for ns in /run/crosshost/netns/* /run/crosshost/egress-netns/*; do
             nsenter --net=$ns nft flush chain bridge crosshost-guard prerouting || true
         done",
    );
    for from in foreign {
        assert!(!leaves(from), "{name}: {from}, by the table alone");
    }
    host.script("nft flush chain inet crosshost from-containers");
    assert!(soon(foreign[0]), "{name}: without a guard");
    host.sync();
    assert!(!leaves(foreign[0]), "{name}: after a sync");
    attached.end();
}

fn host_of_ipv6(host: &Host) -> IpAddr {
    host.address6().parse().expect("an address")
}

#[test]
fn nothing_leaves_a_host_with_an_address_that_does_not_lead_back() {
    let lab = lab();
    for (name, _) in networks() {
        leaves_with_its_own(&lab, name, false);
    }
}

#[test]
fn nothing_leaves_a_host_with_an_address_of_ipv6_that_does_not_lead_back() {
    let lab = lab();
    for (name, _) in networks() {
        leaves_with_its_own(&lab, name, true);
    }
}

/// Two networks whose gateway the host is, the names of which each says that it may meet.
fn meeting(reaches: [&str; 2]) -> [Value; 2] {
    let subnets = ["10.0.7.0/24 fd00:7::/64", "10.0.8.0/24 fd00:8::/64"];
    let named = ["one", "two"].into_iter().zip(subnets).zip(reaches);
    let list: Vec<_> = named
        .map(|((name, subnet), reaches)| {
            let mut conflist = conflist(name, subnet);
            let overlay = &mut conflist["plugins"][0];
            overlay["egress"] = "gateway".into();
            overlay["hostAccess"] = true.into();
            if !reaches.is_empty() {
                overlay["reaches"] = json!([reaches]);
            }
            conflist
        })
        .collect();
    list.try_into().expect("two")
}

/// A container of network `one` on the first host, and two of network `two`, on both hosts: whether datagrams arrive there, and back,
/// and are answered, by IPv4 and by IPv6.
fn meet(lab: &Lab, wanted: bool) -> [bool; 8] {
    let from = Attachment::new(lab.host(1), "from", "one");
    let to = on_each(lab, "two");
    let net = from.container.net();
    let [near, far] = &to;
    let arrives = if wanted { reaches } else { arrives };
    let [own, here, there] = [&from, near, far].map(|it| {
        let found = addresses_of(&it.container, "eth0");
        <[IpAddr; 2]>::try_from(found).expect("one of each version")
    });
    let outcome = [0, 1].map(|version| {
        [
            arrives(&net, &near.container.net(), here[version]),
            arrives(&net, &far.container.net(), there[version]),
            arrives(&near.container.net(), &net, own[version]),
            from.container.pings(there[version], &[]),
        ]
    });
    end_all([from].into_iter().chain(to));
    let [v4, v6] = outcome;
    std::array::from_fn(|at| if at < 4 { v4[at] } else { v6[at - 4] })
}

#[test]
fn networks_meet_where_each_names_the_other() {
    for (reaches, met) in [
        (["two", "one"], [true; 8]),
        (["two", ""], [false; 8]),
        (["", "one"], [false; 8]),
    ] {
        let lab = Lab::registered(2, Backend::Dir);
        for conflist in meeting(reaches) {
            lab.install(&conflist);
        }
        assert_eq!(meet(&lab, met[0]), met, "{reaches:?}");
        let said = lab.host(1).crosshost("network inspect one").ok();
        let words = match reaches {
            ["two", "one"] => "meets network two",
            ["two", _] => "reaches two, which does not name it: they do not meet",
            _ => "",
        };
        assert!(said.stdout.contains(words), "{said}");
        let inspected = lab.host(1).listed("network inspect one");
        let wanted = match reaches {
            ["", _] => json!([]),
            _ => json!([{ "network": "two", "meets": met[0] }]),
        };
        assert_eq!(inspected["reaches"], wanted);
    }
}

/// A version up to 1.0.0 that writes the record again drops the key: then the conflists of each host say it.
#[test]
fn networks_meet_by_their_conflists_where_their_records_do_not_say_it() {
    let lab = Lab::registered(2, Backend::Dir);
    for conflist in meeting(["", ""]) {
        lab.host(2).install(&conflist);
        let name = conflist["name"].as_str().expect("a name").to_owned();
        Attachment::new(lab.host(2), "first", &name).end();
    }
    for conflist in meeting(["two", "one"]) {
        lab.install(&conflist);
    }
    assert_eq!(meet(&lab, true), [true; 8]);
    // What a sync or another program does to the table does not part them.
    let host = lab.host(1);
    let from = Attachment::new(host, "from", "one");
    let to = Attachment::new(host, "to", "two");
    let (net, there) = (from.container.net(), to.container.net());
    host.crosshost("network inspect one")
        .ok()
        .says(&["meets network two"]);
    host.script("nft flush set inet crosshost together");
    assert!(!arrives(&net, &there, to.address), "without the set");
    host.sync();
    assert!(reaches(&net, &there, to.address), "after a sync");
    end_all([from, to]);
}

#[test]
fn a_key_that_lets_networks_meet_is_refused_where_it_cannot() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    let refused = |keys: Value, words: &[&str]| {
        let mut conflist = conflist("one", "10.0.7.0/24");
        for (key, value) in keys.as_object().expect("keys") {
            conflist["plugins"][0][key] = value.clone();
        }
        host.install(&conflist);
        let container = host.container("c");
        let said = host.cnitool("add", "one", "c", "eth0").failed();
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(words.iter().all(|it| text.contains(it)), "{text}");
        container.remove();
    };
    refused(
        json!({ "reaches": ["two"] }),
        &["reaches", "egress gateway"],
    );
    let by = |reaches: Value| json!({ "egress": "gateway", "reaches": reaches });
    refused(by(json!(["a/b"])), &["reaches", "a/b", "no name"]);
    refused(by(json!(["one"])), &["reaches", "the network itself"]);
    refused(by(json!("two")), &["reaches"]);
    let options = "network create two --subnet 10.0.8.0/24 --reaches one";
    host.crosshost(options)
        .failed()
        .warns(&["reaches", "egress gateway"]);
    host.crosshost(&format!("{options} --egress gateway")).ok();
    let said = host.crosshost("network inspect two").ok();
    said.says(&["reaches one, which does not name it: they do not meet"]);
}

/// A machine on the underlay that routes containers' subnets to a host.
fn neighbour(lab: &Lab, by: &Host, subnets: &[&str]) -> Namespace {
    let machine = Namespace::new("neighbour", Some(lab.router()));
    lab.router().script(&format!(
        "ip link add neighbour master underlay up type veth peer name ens3 netns {}",
        machine.pid()
    ));
    machine.script(
        "ip address add 192.168.1.66/24 dev ens3
         ip address add 2001:db8:192:168:1::66/80 dev ens3 nodad
         ip link set ens3 up",
    );
    for subnet in subnets {
        let address6 = by.address6();
        let router = if subnet.contains(':') {
            &address6
        } else {
            by.vtep()
        };
        machine.script(&format!("ip route add {subnet} via {router}"));
    }
    machine
}

#[test]
fn a_machine_that_routes_to_a_host_opens_no_container() {
    let lab = lab();
    let host = lab.host(1);
    let all = networks().map(|(name, _)| on_each(&lab, name));
    let subnets = ["172.18.0.0/16", "10.0.0.0/16", "fd00::/8"];
    let machine = neighbour(&lab, host, &subnets);
    for receiver in all.iter().flatten() {
        for at in addresses(receiver) {
            let found = arrives(&machine.net(), &receiver.container.net(), at);
            assert!(!found, "{} at {at}", receiver.container.name());
        }
    }
    // What somebody leads to a container gets there.
    let led = &all[1][1];
    host.script(&format!(
        "nft add table ip led
         nft add chain ip led to '{{ type nat hook prerouting priority -100; }}'
         nft add rule ip led to udp dport 7777 dnat to {}:{PORT}",
        led.address
    ));
    let listener = led.container.net();
    let listener = listener.run(|| UdpSocket::bind((led.address, PORT)).expect("a socket"));
    let patience = Some(Duration::from_secs(2));
    listener.set_read_timeout(patience).expect("a time-out");
    machine.net().run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(b"led", (host.vtep(), 7777)).expect("sent");
    });
    assert!(
        listener.recv(&mut [0; 16]).is_ok(),
        "led by a rule of others"
    );
    for attached in all {
        end_all(attached);
    }
}
