//! Veth pairs: both ends as asked for, the peer created in its namespace.

use netlink::{LinkChange, Rtnl, Sysctl};

use crate::kit::{Lab, bridge, mac, run, sh, shown, veth};

#[test]
fn both_ends_are_as_wanted() {
    let lab = Lab::new();
    let (sandbox, container) = (lab.netns("sandbox"), lab.netns("container"));
    run(async {
        let (nl, peer_nl) = (
            Rtnl::open(&sandbox).unwrap(),
            Rtnl::open(&container).unwrap(),
        );
        let br = nl.create_bridge(&bridge("br0")).await.unwrap();
        let mut pair = veth("ch3f2a91", "eth0", Some(br.index), 77);
        (pair.mac, pair.mtu) = (Some(mac("02:42:00:00:00:01")), 1450);
        (pair.peer.mac, pair.peer.mtu, pair.peer.group) =
            (Some(mac("02:42:0a:00:00:02")), 1400, 78);
        nl.create_veth(&pair, &container).await.unwrap();
        let end = nl.link("ch3f2a91").await.unwrap().unwrap();
        assert_eq!(
            (end.mac, end.mtu, end.master, end.group, end.up),
            (pair.mac, 1450, Some(br.index), 77, true)
        );
        assert_eq!(end.kind.as_deref(), Some("veth"));
        assert_eq!(
            shown(&sandbox, "ch3f2a91")["operstate"],
            "UP",
            "so the peer is up, too"
        );
        let peer = peer_nl.link("eth0").await.unwrap().unwrap();
        assert_eq!(
            (peer.mac, peer.mtu, peer.master, peer.group, peer.up),
            (pair.peer.mac, 1400, None, 78, true)
        );
        let seen = shown(&container, "eth0");
        assert_eq!(
            (&seen["num_tx_queues"], &seen["num_rx_queues"]),
            (&1.into(), &1.into()),
            "one queue from the start"
        );
        assert_eq!(
            (seen["address"].as_str(), seen["group"].as_str()),
            (Some("02:42:0a:00:00:02"), Some("78"))
        );
    });
}

#[test]
fn a_peer_left_down_can_be_set_up_before_it_speaks() {
    let lab = Lab::new();
    let (sandbox, container) = (lab.netns("sandbox"), lab.netns("container"));
    run(async {
        let (nl, peer_nl) = (
            Rtnl::open(&sandbox).unwrap(),
            Rtnl::open(&container).unwrap(),
        );
        let mut pair = veth("p0", "eth0", None, 0);
        pair.peer.up = false;
        nl.create_veth(&pair, &container).await.unwrap();
        let peer = peer_nl.link("eth0").await.unwrap().unwrap();
        assert!(!peer.up);
        container
            .set_sysctls(&[
                (Sysctl::of_link("ipv6", "eth0", "accept_ra"), "0"),
                (Sysctl::of_link("ipv6", "eth0", "addr_gen_mode"), "1"),
            ])
            .unwrap();
        peer_nl
            .set_link(
                peer.index,
                &LinkChange {
                    up: Some(true),
                    ..LinkChange::default()
                },
            )
            .await
            .unwrap();
        assert!(peer_nl.link("eth0").await.unwrap().unwrap().up);
        assert_eq!(
            sh(&container, "ip -6 -o address show dev eth0"),
            "",
            "no link-local address, as the sysctl says"
        );
    });
}

#[test]
fn a_name_taken_at_either_end_exists_and_leaves_nothing() {
    let lab = Lab::new();
    let (sandbox, container) = (lab.netns("sandbox"), lab.netns("container"));
    run(async {
        let nl = Rtnl::open(&sandbox).unwrap();
        nl.create_veth(&veth("p0", "eth0", None, 0), &container)
            .await
            .unwrap();
        for (name, peer) in [("p0", "eth1"), ("p1", "eth0")] {
            let error = nl
                .create_veth(&veth(name, peer, None, 0), &container)
                .await
                .unwrap_err();
            assert!(error.is_exists(), "{error}");
            let what = format!(
                "veth {name} with {peer} into {}: ",
                container.path().display()
            );
            assert!(error.to_string().starts_with(&what), "{error}");
        }
        assert_eq!(nl.links().await.unwrap().len(), 2);
        assert!(shown(&container, "eth1").is_null());
    });
}

#[test]
fn a_full_bridge_says_its_limit_and_nothing_is_left() {
    let lab = Lab::new();
    let (sandbox, container) = (lab.netns("sandbox"), lab.netns("container"));
    run(async {
        let nl = Rtnl::open(&sandbox).unwrap();
        let br = nl.create_bridge(&bridge("br0")).await.unwrap();
        let line = "for i in $(seq 1022); do echo link add d$i master br0 type vxlan id $i dstport 9; done | ip -batch -";
        sh(&sandbox, line);
        let pair = |name, peer| veth(name, peer, Some(br.index), 0);
        nl.create_veth(&pair("last", "eth0"), &container)
            .await
            .unwrap();
        let refused = nl.create_veth(&pair("more", "eth1"), &container).await;
        let error = refused.unwrap_err().to_string();
        let says = ": its bridge has 1,023 ports already, the kernel's limit (EXFULL)";
        assert!(error.ends_with(says), "{error}");
        assert!(nl.link("more").await.unwrap().is_none());
        assert!(shown(&container, "eth1").is_null());
    });
}
