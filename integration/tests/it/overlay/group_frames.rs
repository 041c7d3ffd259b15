//! What a container sends to all, or to groups, has a budget: a loop in one costs the others nothing.

use crate::overlay::frames::{ALL, Ear, MARK, ONCE, Volley, ethernet, mac_of, send, udp, v4};
use crate::overlay::host_on_segment::{V4, lab, network};
use integration::Attachment;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn of_rate(rate: Option<u32>) -> Value {
    let mut keys = json!({ "egress": "none" });
    if let Some(rate) = rate {
        keys["groupRate"] = rate.into();
    }
    network(V4, &keys)
}

fn broadcast(from: &Attachment<'_>) -> Vec<u8> {
    let packet = udp(
        v4(from).into(),
        IpAddr::V4(Ipv4Addr::BROADCAST),
        (4000, 4000),
    );
    ethernet(ALL, mac_of(&from.container, "eth0"), 0x0800, &packet)
}

#[test]
fn a_loop_inside_a_container_costs_the_others_nothing() {
    let lab = lab(2, &of_rate(None));
    let host = lab.host(1);
    let looped = Attachment::new(host, "looped", "n");
    let _again = Attachment::of(host.existing("looped"), "n", "eth1");
    let [here, there] = [
        Attachment::new(host, "here", "n"),
        Attachment::new(lab.host(2), "there", "n"),
    ];
    lab.sync();
    let frame = broadcast(&looped);
    let inside = &looped.container;
    for words in [
        "ip link add name loop type bridge",
        "ip link set eth0 master loop",
        "ip link set eth1 master loop",
        "ip link set loop up",
    ] {
        inside.run(words).ok();
    }
    let ears = [&here, &there].map(|it| Ear::open(&it.container, "eth0", MARK));
    send(inside, "eth0", &frame, ONCE);
    integration::spend(Duration::from_secs(2));
    // The budget of two ports for this long, and what they may send at once; without it there are hundreds of thousands.
    let heard = ears.map(Ear::heard);
    assert!(heard.iter().all(|heard| *heard < 8000), "{heard:?}");
    assert!(here.container.pings(there.address, &[]), "others go on");
    inside.run("ip link delete loop").ok();
    integration::until(Duration::from_secs(10), "the container itself", || {
        inside.pings(there.address, &[])
    });
}

/// How many of 2000 frames in a burst arrive on this host and on the other.
fn arriving(rate: Option<u32>) -> [u64; 2] {
    let lab = lab(2, &of_rate(rate));
    let sender = Attachment::new(lab.host(1), "sender", "n");
    let [here, there] =
        [(1, "here"), (2, "there")].map(|(host, name)| Attachment::new(lab.host(host), name, "n"));
    lab.sync();
    let ears = [&here, &there].map(|it| Ear::open(&it.container, "eth0", MARK));
    let burst = Volley {
        times: 2000,
        pause: 0,
        many_senders: false,
    };
    send(&sender.container, "eth0", &broadcast(&sender), burst);
    ears.map(Ear::heard)
}

#[test]
fn a_port_has_a_budget_of_group_frames_and_a_key_makes_it_larger() {
    let few = arriving(None);
    assert!(few.iter().all(|few| (500..1500).contains(few)), "{few:?}");
    assert_eq!(arriving(Some(10_000)), [2000; 2]);
}

#[test]
fn a_rate_that_is_none_is_refused() {
    let lab = lab(1, &of_rate(Some(0)));
    let container = lab.host(1).container("c");
    let refused = lab
        .host(1)
        .cnitool("add", "n", container.name(), "eth0")
        .failed();
    assert!(format!("{refused}").contains("groupRate"), "{refused}");
}
