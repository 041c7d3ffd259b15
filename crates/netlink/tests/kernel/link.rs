//! Bridges and links in general: make, look at, change, remove.

use std::time::{Duration, Instant};

use netlink::{Forward, LinkChange, Mac, Port, RaisedPort, Rtnl, Veth};

use crate::kit::{Lab, bridge, mac, run, shown, veth};

#[test]
fn a_bridge_is_up_and_does_not_snoop() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        let mut wanted = bridge("br0");
        (wanted.mac, wanted.group) = (Some(mac("02:42:0a:00:00:01")), 7);
        let made = nl.create_bridge(&wanted).await.unwrap();
        assert_eq!(
            (made.mac, made.mtu, made.up, made.group),
            (wanted.mac, 1450, true, 7)
        );
        assert_eq!(made.kind.as_deref(), Some("bridge"));
        let seen = shown(&ns, "br0");
        assert_eq!(seen["ifindex"], made.index);
        assert_eq!(seen["address"], "02:42:0a:00:00:01");
        assert_eq!(seen["mtu"], 1450);
        assert_eq!(seen["group"], "7");
        assert_eq!(seen["linkinfo"]["info_data"]["mcast_snooping"], 0);
        assert!(seen["flags"].as_array().unwrap().contains(&"UP".into()));
    });
}

#[test]
fn a_link_can_be_changed() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        let br = nl.create_bridge(&bridge("br0")).await.unwrap();
        nl.create_veth(&veth("p0", "p1", None, 0), &ns)
            .await
            .unwrap();
        let end = nl.link("p0").await.unwrap().unwrap();
        let change = LinkChange {
            up: Some(false),
            mtu: Some(1300),
            master: Some(br.index),
            mac: Some(mac("02:42:0a:00:00:09")),
            group: Some(9),
            alias: Some("overlay of c1".into()),
        };
        nl.set_link(end.index, &change).await.unwrap();
        let seen = shown(&ns, "p0");
        assert_eq!(seen["ifindex"], end.index);
        assert_eq!(seen["ifalias"], "overlay of c1");
        let link = nl.link("p0").await.unwrap().unwrap();
        assert_eq!(
            (link.up, link.mtu, link.master, link.group),
            (false, 1300, Some(br.index), 9)
        );
        assert_eq!((link.mac, link.alias), (change.mac, change.alias));

        nl.set_link(
            end.index,
            &LinkChange {
                master: Some(0),
                ..LinkChange::default()
            },
        )
        .await
        .unwrap();
        let link = nl.link("p0").await.unwrap().unwrap();
        assert_eq!((link.master, link.mtu), (None, 1300), "only what was named");
        let change = LinkChange {
            up: Some(true),
            mtu: Some(9000),
            ..LinkChange::default()
        };
        let error = nl.set_link(9999, &change).await.unwrap_err();
        assert!(error.is_gone());
        assert!(
            error.to_string().starts_with("link 9999: up mtu 9000: "),
            "{error}"
        );
    });
}

#[test]
fn a_bridge_port_can_be_changed() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        let br = nl.create_bridge(&bridge("br0")).await.unwrap();
        nl.create_veth(&veth("p0", "p1", Some(br.index), 0), &ns)
            .await
            .unwrap();
        let end = nl.link("p0").await.unwrap().unwrap();
        assert_eq!(end.master, Some(br.index));
        let flags = || {
            let data = shown(&ns, "p0")["linkinfo"]["info_slave_data"].clone();
            ["neigh_suppress", "learning", "isolated", "hairpin", "flood"]
                .map(|flag| data[flag].as_bool().unwrap())
        };
        assert_eq!(flags(), [false, true, false, false, true]);
        let all = Port {
            neigh_suppress: Some(true),
            learning: Some(false),
            isolated: Some(true),
            hairpin: Some(true),
            flood: Some(false),
        };
        nl.set_port("p0", &all).await.unwrap();
        assert_eq!(flags(), [true, false, true, true, false]);
        nl.set_port(
            "p0",
            &Port {
                isolated: Some(false),
                ..Port::default()
            },
        )
        .await
        .unwrap();
        assert_eq!(flags(), [true, false, false, true, false]);
    });
}

#[test]
fn a_port_is_raised_with_its_entries_and_settings() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        let br = nl.create_bridge(&bridge("br0")).await.unwrap();
        let down = Veth {
            up: false,
            ..veth("p0", "p1", Some(br.index), 0)
        };
        nl.create_veth(&down, &ns).await.unwrap();
        let end = nl.link("p0").await.unwrap().unwrap();
        assert!(!end.up);
        let entry = Forward::Port {
            mac: Mac([2, 0x42, 10, 0, 0, 2]),
        };
        let raised = RaisedPort {
            index: end.index,
            bridge: br.index,
            entries: [entry].into(),
            settings: Port {
                learning: Some(false),
                flood: Some(false),
                ..Port::default()
            },
        };
        nl.raise_port(&raised).await.unwrap();
        let end = nl.link("p0").await.unwrap().unwrap();
        assert!(end.up);
        assert_eq!(
            (end.port.learning, end.port.flood),
            (Some(false), Some(false))
        );
        let there = nl.fdb(br.index, end.index).await.unwrap();
        assert_eq!(there, raised.entries);

        let nobodys = RaisedPort {
            index: end.index + 100,
            ..raised
        };
        let error = nl.raise_port(&nobodys).await.unwrap_err().to_string();
        let says = format!("bridge port {}: ", nobodys.index);
        assert!(error.starts_with(&says), "{error}");
    });
}

#[test]
fn removal_can_be_repeated() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        nl.create_bridge(&bridge("br0")).await.unwrap();
        assert!(nl.remove_link("br0").await.unwrap());
        assert!(!nl.remove_link("br0").await.unwrap());
        assert!(nl.link("br0").await.unwrap().is_none());
    });
}

#[test]
fn a_group_goes_at_once_with_the_far_ends() {
    let lab = Lab::new();
    let (host, sandbox, container) = (
        lab.netns("host"),
        lab.netns("sandbox"),
        lab.netns("container"),
    );
    run(async {
        let host_nl = Rtnl::open(&host).unwrap();
        let sandbox_nl = Rtnl::open(&sandbox).unwrap();
        let nl = Rtnl::open(&container).unwrap();
        sandbox_nl
            .create_veth(&veth("ch1", "eth0", None, 77), &container)
            .await
            .unwrap();
        host_nl
            .create_veth(&veth("cg1", "gw0", None, 77), &container)
            .await
            .unwrap();
        host_nl
            .create_veth(&veth("cg2", "other", None, 78), &container)
            .await
            .unwrap();

        assert!(nl.remove_group(77).await.unwrap());
        assert!(!nl.remove_group(77).await.unwrap());
        let names =
            |links: Vec<netlink::Link>| links.into_iter().map(|link| link.name).collect::<Vec<_>>();
        assert_eq!(names(nl.links().await.unwrap()), ["lo", "other"]);
        assert_eq!(names(sandbox_nl.links().await.unwrap()), ["lo"]);
        assert_eq!(names(host_nl.links().await.unwrap()), ["lo", "cg2"]);
        // Group 0 is every link that has no group.
        assert_eq!(
            nl.remove_group(0).await.unwrap_err().to_string(),
            "removal of link group 0: Operation not permitted (EPERM)"
        );
    });
}

/// Not a test: `cargo test -p netlink -- --ignored --nocapture grace` prints what one message for two links saves.
#[test]
#[ignore = "a measurement"]
fn grace_periods_of_removal() {
    let lab = Lab::new();
    let (host, container) = (lab.netns("host"), lab.netns("container"));
    run(async {
        let (host_nl, nl) = (Rtnl::open(&host).unwrap(), Rtnl::open(&container).unwrap());
        let mut spent = [Duration::ZERO; 2];
        for round in 0..20 {
            host_nl
                .create_veth(&veth("a", "eth0", None, 77), &container)
                .await
                .unwrap();
            host_nl
                .create_veth(&veth("b", "gw0", None, 77), &container)
                .await
                .unwrap();
            let start = Instant::now();
            if round % 2 == 0 {
                nl.remove_group(77).await.unwrap();
            } else {
                nl.remove_link("eth0").await.unwrap();
                nl.remove_link("gw0").await.unwrap();
            }
            spent[round % 2] += start.elapsed();
        }
        println!(
            "two veths: by group {:?}, one by one {:?}",
            spent[0] / 10,
            spent[1] / 10
        );
    });
}
