//! VXLAN devices: created in the sandbox, with their socket and their VNI on the host.

use std::time::{Duration, Instant};

use netlink::{Change, Forward, Netns, Rtnl};

use crate::kit::{Lab, Site, addr, bridge, mac, run, sh, shown, udp, vxlan, wire};

#[test]
fn the_device_is_in_the_sandbox_and_the_socket_on_the_host() {
    let lab = Lab::new();
    run(async {
        wire(&lab, ("a", "192.0.2.1/24"), ("b", "192.0.2.2/24")).await;
        let a = Site::new(&lab, "a", "192.0.2.1", 4097, &[], "02:42:0a:00:00:02").await;
        assert!(shown(&a.host, "vx0").is_null());
        let seen = shown(&a.sandbox, "vx0");
        let data = &seen["linkinfo"]["info_data"];
        assert_eq!(
            (&data["id"], &data["port"], &data["local"]),
            (&4097.into(), &4789.into(), &"192.0.2.1".into())
        );
        assert_eq!(
            (&data["learning"], &data["proxy"]),
            (&false.into(), &serde_json::Value::Null)
        );
        assert_eq!(
            (&seen["mtu"], &seen["master"]),
            (&1400.into(), &"br0".into())
        );

        let underlay = a.host_nl.link("u0").await.unwrap().unwrap().index;
        let info = a.vxlan.vxlan.clone().unwrap();
        assert_eq!(
            (info.vni, info.port, info.local),
            (4097, 4789, Some(addr("192.0.2.1")))
        );
        assert_eq!((info.underlay, info.learning), (underlay, false));
        assert!(a.vxlan.up && a.vxlan.mtu == 1400 && a.vxlan.master == Some(a.bridge.index));
        // 4789 is 12B5; the kernel's socket shows in the host's table alone.
        let sockets = |ns| sh(ns, "cat /proc/net/udp").contains(":12B5 ");
        assert!(sockets(&a.host) && !sockets(&a.sandbox));
    });
}

#[test]
fn containers_of_two_hosts_talk() {
    let lab = Lab::new();
    run(async {
        wire(&lab, ("a", "192.0.2.1/24"), ("b", "192.0.2.2/24")).await;
        let a = Site::new(
            &lab,
            "a",
            "192.0.2.1",
            4097,
            &["10.0.0.2/24"],
            "02:42:0a:00:00:02",
        )
        .await;
        let b = Site::new(
            &lab,
            "b",
            "192.0.2.2",
            4097,
            &["10.0.0.3/24"],
            "02:42:0a:00:00:03",
        )
        .await;
        for (near, far, ip, eth0) in [
            (&a, "192.0.2.2", "10.0.0.3", "02:42:0a:00:00:03"),
            (&b, "192.0.2.1", "10.0.0.2", "02:42:0a:00:00:02"),
        ] {
            let (vtep, mac, addr) = (addr(far), mac(eth0), addr(ip));
            let entries = [
                Forward::Flood { vtep },
                Forward::Fdb { mac, vtep },
                Forward::Port { mac },
                Forward::Neigh { addr, mac },
            ];
            near.nl
                .change(
                    near.bridge.index,
                    near.vxlan.index,
                    &entries.map(Change::Add),
                )
                .await
                .unwrap();
        }
        let here = udp(&a.container, "10.0.0.2:7", Duration::from_secs(5));
        let there = udp(&b.container, "10.0.0.3:7", Duration::from_secs(5));
        let mut buffer = [0; 16];
        here.send_to(b"hello", "10.0.0.3:7").unwrap();
        let (len, from) = there.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..len], from),
            (&b"hello"[..], "10.0.0.2:7".parse().unwrap())
        );
        there.send_to(b"and back", from).unwrap();
        assert_eq!(here.recv(&mut buffer).unwrap(), 8);
    });
}

#[test]
fn over_an_ipv6_underlay() {
    let lab = Lab::new();
    run(async {
        wire(&lab, ("a", "fd00::1/64"), ("b", "fd00::2/64")).await;
        let a = Site::new(&lab, "a", "fd00::1", 5, &[], "02:42:0a:00:00:02").await;
        assert_eq!(a.vxlan.vxlan.unwrap().local, Some(addr("fd00::1")));
        let entries = [
            Forward::Flood {
                vtep: addr("fd00::2"),
            },
            Forward::Fdb {
                mac: mac("02:42:0a:00:00:03"),
                vtep: addr("fd00::2"),
            },
        ];
        a.nl.change(a.bridge.index, a.vxlan.index, &entries.map(Change::Add))
            .await
            .unwrap();
        assert_eq!(
            a.nl.forwarding(a.bridge.index, a.vxlan.index)
                .await
                .unwrap(),
            entries.into()
        );
    });
}

#[test]
fn a_vni_belongs_to_one_sandbox_until_it_is_torn_down() {
    let lab = Lab::new();
    run(async {
        wire(&lab, ("a", "192.0.2.1/24"), ("b", "192.0.2.2/24")).await;
        let Site {
            host_nl,
            sandbox,
            nl,
            container,
            container_nl,
            ..
        } = Site::new(&lab, "a", "192.0.2.1", 9, &[], "02:42:0a:00:00:02").await;
        let second = lab.netns("second");
        let second_nl = Rtnl::open(&second).unwrap();
        let master = second_nl.create_bridge(&bridge("br0")).await.unwrap().index;
        let underlay = host_nl.link("u0").await.unwrap().unwrap().index;
        let wanted = vxlan(9, "192.0.2.1", underlay, Some(master));
        let error = host_nl.create_vxlan(&wanted, &second).await.unwrap_err();
        assert!(error.is_exists(), "{error}");
        let what = format!("vxlan vx0 (VNI 9) into {}", second.path().display());
        assert_eq!(
            error.to_string(),
            format!("{what}: A VXLAN device with the specified VNI already exists (EEXIST)")
        );

        // The last handles go, then the kernel's worker frees the VNI in its own time; until then it is the same error.
        drop((sandbox, nl, container, container_nl));
        assert!(Netns::remove(lab.dir(), "a-sandbox").unwrap());
        let start = Instant::now();
        while let Err(error) = host_nl.create_vxlan(&wanted, &second).await {
            assert!(
                error.is_exists() && start.elapsed() < Duration::from_secs(10),
                "{error}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(second_nl.link("vx0").await.unwrap().is_some());
    });
}
