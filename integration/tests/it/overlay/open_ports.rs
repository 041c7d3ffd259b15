//! With `spoofchk: false` a port is open: an address that moves between containers, as VRRP moves it, and MACs of a bridge inside one.

use std::net::{IpAddr, Ipv4Addr};

use crate::overlay::frames::{
    ALL, INSISTING, advertisement, arp, ethernet, mac_of, send, udp, v4, v6,
};
use crate::overlay::host_on_segment::{DUAL, lab, network};
use crate::overlay::source_guard::place;
use integration::{Attachment, Lab};
use serde_json::json;

/// An address of the network that no host gives out.
const SHARED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 250);

fn stage(open: bool) -> Lab {
    let mut conf = network(DUAL, &json!({ "egress": "none", "spoofchk": !open }));
    conf["plugins"][0]["ipam"]["ranges"][0][0]["rangeEnd"] = "10.0.0.200".into();
    lab(2, &conf)
}

fn take(attached: &Attachment<'_>) {
    let container = &attached.container;
    container
        .run(&format!("ip address add {SHARED}/24 dev eth0"))
        .ok();
    let mac = mac_of(container, "eth0");
    send(
        container,
        "eth0",
        &arp((mac, 1), (mac, SHARED), SHARED),
        INSISTING,
    );
}

#[test]
fn an_address_moves_between_containers_and_hosts_where_the_key_lets_it() {
    let lab = stage(true);
    let [one, two] =
        [(1, "one"), (2, "two")].map(|(host, name)| Attachment::new(lab.host(host), name, "n"));
    let clients =
        [(1, "here"), (2, "there")].map(|(host, name)| Attachment::new(lab.host(host), name, "n"));
    lab.sync();
    let shared = IpAddr::V4(SHARED);
    let answered_by = |attached: &Attachment<'_>| {
        let mac = attached.container.link("eth0")["address"].clone();
        for client in &clients {
            assert!(
                client.container.pings(shared, &[]),
                "{}",
                client.container.name()
            );
            let shown = client
                .container
                .ip(&["neighbour", "show", &shared.to_string()][..]);
            assert_eq!(shown[0]["lladdr"], mac, "{}", client.container.name());
        }
    };
    take(&one);
    answered_by(&one);
    // The other host's container takes it over; all hear of it by what that says, here and over hosts.
    one.container
        .run(&format!("ip address delete {SHARED}/24 dev eth0"))
        .ok();
    take(&two);
    answered_by(&two);
    // A MAC of a bridge inside.
    two.container
        .run("ip link add nested link eth0 address 02:00:5e:00:01:07 type macvlan mode bridge")
        .ok();
    two.container
        .run("ip address add 10.0.0.251/24 dev nested")
        .ok();
    two.container.run("ip link set nested up").ok();
    let nested = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 251));
    for client in &clients {
        assert!(
            client.container.pings(nested, &[]),
            "{}",
            client.container.name()
        );
    }
    for attached in [&one, &two] {
        attached.check().ok();
    }
}

#[test]
fn an_open_port_still_moves_nothing_that_the_bridge_knows() {
    let lab = stage(true);
    let [one, neighbour, far] = [(1, "one"), (1, "neighbour"), (2, "far")]
        .map(|(host, name)| Attachment::new(lab.host(host), name, "n"));
    lab.sync();
    let packet = udp(
        v4(&one).into(),
        IpAddr::V4(Ipv4Addr::BROADCAST),
        (4000, 4000),
    );
    for other in [&neighbour, &far] {
        let mac = mac_of(&other.container, "eth0");
        let before = place(lab.host(1), mac);
        let frame = ethernet(ALL, mac, 0x0800, &packet);
        send(&one.container, "eth0", &frame, INSISTING);
        assert_eq!(place(lab.host(1), mac), before);
    }
    assert!(neighbour.container.pings(far.address, &[]) && one.container.pings(far.address, &[]));
}

#[test]
fn without_the_key_the_address_is_nobodys() {
    let lab = stage(false);
    let one = Attachment::new(lab.host(1), "one", "n");
    let clients =
        [(1, "here"), (2, "there")].map(|(host, name)| Attachment::new(lab.host(host), name, "n"));
    lab.sync();
    take(&one);
    let mac = mac_of(&one.container, "eth0");
    let unasked = advertisement(
        mac,
        v6(&one),
        "fd00:1::fa".parse().expect("an address"),
        mac,
    );
    send(&one.container, "eth0", &unasked, INSISTING);
    for client in &clients {
        assert!(!client.container.pings(SHARED.into(), &[]));
        assert!(client.container.pings(v4(&one).into(), &[]), "its own");
    }
}
