//! Forwarding entries: what was added is exactly what is dumped, and a changed value replaces the old one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlink::Change::{Add, Remove};
use netlink::{Change, Forward, Forwarding, Mac, Port};

use crate::kit::{Lab, Site, addr, json, mac, run, sh, udp, wire};

const MAC_A: &str = "02:42:0a:00:00:0a";
const MAC_B: &str = "02:42:0a:00:00:0b";

async fn host(lab: &Lab) -> Site {
    wire(lab, ("a", "192.0.2.1/24"), ("b", "192.0.2.2/24")).await;
    Site::new(
        lab,
        "a",
        "192.0.2.1",
        4097,
        &["10.0.0.2/16", "fd00::2/64"],
        "02:42:0a:00:00:02",
    )
    .await
}

impl Site {
    async fn change(&self, changes: &[Change]) {
        self.nl
            .change(self.bridge.index, self.vxlan.index, changes)
            .await
            .unwrap();
    }

    async fn forwarding(&self) -> Forwarding {
        self.nl
            .forwarding(self.bridge.index, self.vxlan.index)
            .await
            .unwrap()
    }
}

fn flood(vtep: &str) -> Forward {
    Forward::Flood { vtep: addr(vtep) }
}

fn fdb(text: &str, vtep: &str) -> Forward {
    Forward::Fdb {
        mac: mac(text),
        vtep: addr(vtep),
    }
}

fn neigh(ip: &str, text: &str) -> Forward {
    Forward::Neigh {
        addr: addr(ip),
        mac: mac(text),
    }
}

/// Three VTEPs, each with `count` containers of both families.
fn many(count: u8) -> Forwarding {
    let mut desired = Forwarding::new();
    for host in 2..5 {
        let vtep = IpAddr::V4(Ipv4Addr::new(192, 0, 2, host));
        desired.insert(Forward::Flood { vtep });
        for n in 0..count {
            let mac = Mac([2, 0x42, 10, 0, host, n]);
            let v4 = Ipv4Addr::new(10, 0, host, n);
            let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, host.into(), n.into());
            desired.extend([Forward::Fdb { mac, vtep }, Forward::Port { mac }]);
            desired.extend([v4.into(), v6.into()].map(|addr| Forward::Neigh { addr, mac }));
        }
    }
    desired
}

#[test]
fn the_dump_is_what_was_added_and_nothing_else() {
    let lab = Lab::new();
    run(async {
        let host = host(&lab).await;
        // Traffic, so that the bridge learns and the kernel makes entries of its own; then wait until they are there.
        udp(&host.container, "10.0.0.2:7", Duration::from_secs(1))
            .send_to(b"x", "10.0.0.99:7")
            .unwrap();
        let fdb = || sh(&host.sandbox, "bridge fdb show");
        while !fdb().contains("02:42:0a:00:00:02 dev p0 master br0") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(
            fdb().contains("dev vx0 master br0 permanent"),
            "the port's own MAC: {}",
            fdb()
        );
        assert_eq!(host.forwarding().await, Forwarding::new());

        // More than one window's worth.
        let desired = many(100);
        let adds: Vec<_> = desired.iter().copied().map(Add).collect();
        host.change(&adds).await;
        assert_eq!(host.forwarding().await, desired);
        host.change(&adds).await;
        assert_eq!(
            host.forwarding().await,
            desired,
            "once more changes nothing"
        );

        let removes: Vec<_> = desired.iter().copied().map(Remove).collect();
        host.change(&removes).await;
        assert_eq!(host.forwarding().await, Forwarding::new());
        host.change(&removes).await;
    });
}

#[test]
fn iproute2_sees_the_same() {
    let lab = Lab::new();
    run(async {
        let host = host(&lab).await;
        let entries = [
            flood("192.0.2.2"),
            flood("192.0.2.3"),
            fdb(MAC_A, "192.0.2.2"),
            Forward::Port { mac: mac(MAC_A) },
            neigh("10.0.0.10", MAC_A),
        ];
        host.change(&entries.map(Add)).await;
        let seen = json(&host.sandbox, "bridge -j fdb show dev vx0");
        let has = |mac: &str, dst: Option<&str>, state: &str| {
            seen.as_array().unwrap().iter().any(|entry| {
                entry["mac"] == mac && entry["dst"].as_str() == dst && entry["state"] == state
            })
        };
        assert!(
            has("00:00:00:00:00:00", Some("192.0.2.2"), "permanent"),
            "{seen}"
        );
        assert!(
            has("00:00:00:00:00:00", Some("192.0.2.3"), "permanent"),
            "{seen}"
        );
        assert!(has(MAC_A, Some("192.0.2.2"), "permanent"), "{seen}");
        assert!(has(MAC_A, None, "static"), "{seen}");
        let seen = json(&host.sandbox, "ip -j neighbour show dev br0 nud permanent");
        assert_eq!(
            seen,
            serde_json::json!([{"dst": "10.0.0.10", "lladdr": MAC_A, "state": ["PERMANENT"]}])
        );
    });
}

#[test]
fn a_new_value_replaces_the_old_one_in_any_order() {
    let lab = Lab::new();
    run(async {
        let host = host(&lab).await;
        let old = [
            neigh("10.0.0.10", MAC_A),
            neigh("fd00::10", MAC_A),
            fdb(MAC_A, "192.0.2.2"),
        ];
        let new = [
            neigh("10.0.0.10", MAC_B),
            neigh("fd00::10", MAC_B),
            fdb(MAC_A, "192.0.2.3"),
        ];
        let both = |first: [Change; 3], second: [Change; 3]| [first, second].concat();
        for changes in [
            new.map(Add).to_vec(),
            both(new.map(Add), old.map(Remove)),
            both(old.map(Remove), new.map(Add)),
        ] {
            host.change(&old.map(Add)).await;
            assert_eq!(host.forwarding().await, old.into());
            host.change(&changes).await;
            assert_eq!(host.forwarding().await, new.into(), "{changes:?}");
        }
    });
}

#[test]
fn one_vtep_leaves_the_flood_list_alone() {
    let lab = Lab::new();
    run(async {
        let host = host(&lab).await;
        host.change(&[Add(flood("192.0.2.2")), Add(flood("192.0.2.3"))])
            .await;
        host.change(&[Remove(flood("192.0.2.2")), Remove(flood("192.0.2.9"))])
            .await;
        assert_eq!(host.forwarding().await, [flood("192.0.2.3")].into());
        // The old home of a MAC that has moved is not removed from the new one.
        host.change(&[Add(fdb(MAC_A, "192.0.2.3"))]).await;
        host.change(&[Remove(fdb(MAC_A, "192.0.2.2"))]).await;
        assert!(host.forwarding().await.contains(&fdb(MAC_A, "192.0.2.3")));
    });
}

#[test]
fn what_the_bridge_learned_is_not_ours() {
    let lab = Lab::new();
    run(async {
        let host = host(&lab).await;
        sh(
            &host.sandbox,
            &format!("bridge fdb add {MAC_A} dev vx0 master dynamic"),
        );
        sh(
            &host.sandbox,
            &format!("bridge fdb add {MAC_B} dev p0 master static"),
        );
        sh(
            &host.sandbox,
            &format!("ip neigh add 10.0.0.10 lladdr {MAC_A} dev br0 nud reachable"),
        );
        assert_eq!(host.forwarding().await, Forwarding::new());
        let entries = [
            Forward::Port { mac: mac(MAC_A) },
            Forward::Port { mac: mac(MAC_B) },
            neigh("10.0.0.10", MAC_A),
        ];
        host.change(&entries.map(Add)).await;
        assert_eq!(
            host.forwarding().await,
            entries.into(),
            "and adding makes it ours"
        );
    });
}

#[test]
fn an_error_names_the_entry_and_the_others_are_made() {
    let lab = Lab::new();
    run(async {
        let host = host(&lab).await;
        let (bridge, vxlan) = (host.bridge.index, host.vxlan.index);
        let changes = [
            flood("192.0.2.2"),
            fdb(MAC_A, "fd00::9"),
            flood("192.0.2.3"),
        ]
        .map(Add);
        let error = host.nl.change(bridge, vxlan, &changes).await.unwrap_err();
        let what = format!("vxlan entry {MAC_A} at fd00::9 on bridge {bridge}, vxlan {vxlan}: ");
        assert!(
            error.to_string().starts_with(&what) && error.to_string().ends_with("(EAFNOSUPPORT)"),
            "{error}"
        );
        assert_eq!(
            host.forwarding().await,
            [flood("192.0.2.2"), flood("192.0.2.3")].into()
        );

        // More refusals, with the kernel's sentences, than fit into the receive buffer at once.
        let refused = vec![Add(fdb(MAC_A, "fd00::9")); 1000];
        let error = host.nl.change(bridge, vxlan, &refused).await.unwrap_err();
        assert!(error.to_string().ends_with("(EAFNOSUPPORT)"), "{error}");

        let error = host
            .nl
            .change(bridge, 9999, &[Remove(flood("192.0.2.2"))])
            .await
            .unwrap_err();
        assert!(
            error.is_gone()
                && error
                    .to_string()
                    .starts_with("removal of flooding to 192.0.2.2"),
            "{error}"
        );
    });
}

#[test]
fn entries_do_not_depend_on_port_flags() {
    let lab = Lab::new();
    run(async {
        let host = host(&lab).await;
        let port = Port {
            neigh_suppress: Some(true),
            learning: Some(false),
            isolated: Some(false),
            hairpin: None,
            flood: None,
        };
        host.nl.set_port(&host.vxlan.name, &port).await.unwrap();
        let desired = many(2);
        host.change(&desired.iter().copied().map(Add).collect::<Vec<_>>())
            .await;
        assert_eq!(host.forwarding().await, desired);
    });
}
