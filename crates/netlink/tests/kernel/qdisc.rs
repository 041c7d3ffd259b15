//! Token buckets and redirections, as tc shows them, and that they hold back what they should.

use std::net::UdpSocket;
use std::time::Duration;

use netlink::{Bucket, Netns, Rtnl};

use crate::kit::{Lab, bridge, json, run, sh, udp, veth, wire};

const BUCKET: Bucket = Bucket {
    rate: 1_000_000,
    burst: 20_000,
    limit: 50_000,
};

/// What tc shows of a link's disciplines.
fn shown(ns: &Netns, link: &str) -> String {
    sh(ns, &format!("tc -d qdisc show dev {link}"))
}

/// A pair `p0` here, `eth0` there, and the index of `p0`.
async fn port(here: &Netns, there: &Netns) -> (Rtnl, u32) {
    let nl = Rtnl::open(here).unwrap();
    nl.create_veth(&veth("p0", "eth0", None, 0), there)
        .await
        .unwrap();
    let index = nl.link("p0").await.unwrap().unwrap().index;
    (nl, index)
}

#[test]
fn a_bucket_is_set_known_again_changed_and_removed() {
    let lab = Lab::new();
    let (here, there) = (lab.netns("here"), lab.netns("there"));
    run(async {
        let (nl, p0) = port(&here, &there).await;
        assert!(nl.buckets().await.unwrap().is_empty());
        assert!(!nl.remove_bucket(p0).await.unwrap());
        let slow = Bucket {
            rate: 1000,
            burst: 1_000_000,
            ..BUCKET
        };
        let wide = Bucket {
            rate: 5_000_000_000,
            burst: 50_000_000,
            limit: u32::MAX,
        };
        let odd = Bucket {
            rate: 123_457,
            burst: 7919,
            limit: 104_729,
        };
        for bucket in [BUCKET, slow, wide, odd, BUCKET] {
            for _ in 0..2 {
                nl.set_bucket(p0, &bucket).await.unwrap();
                let found = nl.buckets().await.unwrap();
                assert_eq!(found.len(), 1, "{bucket:?}: {found:?}");
                let there = found[&p0];
                assert!(there.ours && bucket.is(&there), "{bucket:?}: {there:?}");
                assert_eq!(
                    [slow, wide, odd].iter().filter(|it| it.is(&there)).count(),
                    usize::from(bucket != BUCKET)
                );
            }
        }
        let text = shown(&here, "p0");
        assert!(text.starts_with("qdisc tbf c055: root"), "{text}");
        assert!(text.contains("rate 8Mbit"), "{text}");
        assert!(nl.remove_bucket(p0).await.unwrap());
        assert!(nl.buckets().await.unwrap().is_empty());
        assert!(!shown(&here, "p0").contains("tbf"));
    });
}

#[test]
fn a_discipline_of_somebody_else_is_not_ours_and_stays() {
    let lab = Lab::new();
    let (here, there) = (lab.netns("here"), lab.netns("there"));
    run(async {
        let (nl, p0) = port(&here, &there).await;
        sh(
            &here,
            "tc qdisc add dev p0 root handle 7: tbf rate 1mbit burst 20kb limit 30kb",
        );
        assert!(!nl.buckets().await.unwrap()[&p0].ours);
        assert!(!nl.remove_bucket(p0).await.unwrap());
        assert!(shown(&here, "p0").contains("tbf 7:"));
        nl.set_bucket(p0, &BUCKET).await.unwrap();
        assert!(nl.buckets().await.unwrap()[&p0].ours, "replaced");
        assert!(nl.set_bucket(9999, &BUCKET).await.unwrap_err().is_gone());
    });
}

#[test]
fn what_a_link_receives_goes_to_the_device_once_and_no_more_after_removal() {
    let lab = Lab::new();
    let (here, there) = (lab.netns("here"), lab.netns("there"));
    run(async {
        let (nl, p0) = port(&here, &there).await;
        assert_eq!(nl.redirection(p0).await.unwrap(), None);
        assert!(!nl.remove_redirection(p0).await.unwrap());
        nl.create_ifb("i0", 1450).await.unwrap();
        assert!(nl.create_ifb("i0", 1450).await.unwrap_err().is_exists());
        let i0 = nl.link("i0").await.unwrap().unwrap();
        assert!(i0.up && i0.mtu == 1450 && i0.kind.as_deref() == Some("ifb"));
        for _ in 0..3 {
            nl.redirect(p0, i0.index).await.unwrap();
            assert_eq!(nl.redirection(p0).await.unwrap(), Some(i0.index));
        }
        let filters = json(&here, "tc -j filter show dev p0 ingress");
        let actions = filters.as_array().unwrap().iter();
        let actions = actions.filter(|it| it["options"]["actions"].is_array());
        assert_eq!(actions.count(), 1, "{filters}");
        assert!(nl.remove_link("i0").await.unwrap());
        assert_eq!(nl.redirection(p0).await.unwrap(), Some(0), "into nowhere");
        nl.create_ifb("i0", 1450).await.unwrap();
        let i0 = nl.link("i0").await.unwrap().unwrap();
        nl.redirect(p0, i0.index).await.unwrap();
        assert_eq!(nl.redirection(p0).await.unwrap(), Some(i0.index));
        assert!(nl.remove_redirection(p0).await.unwrap());
        assert_eq!(nl.redirection(p0).await.unwrap(), None);
        assert!(!shown(&here, "p0").contains("ingress"));
    });
}

/// Of 60 datagrams of 1,000 bytes at once those that come through to `server` in half a second.
fn arrived(client: &UdpSocket, server: &UdpSocket) -> usize {
    for _ in 0..60 {
        client.send(&[0; 1000]).unwrap();
    }
    let mut buffer = [0; 2000];
    std::iter::from_fn(|| server.recv(&mut buffer).ok()).count()
}

#[test]
fn both_directions_are_held_back_and_a_lost_device_stops_them() {
    let lab = Lab::new();
    run(async {
        let (host, container) =
            wire(&lab, ("host", "10.0.0.1/24"), ("container", "10.0.0.2/24")).await;
        let nl = Rtnl::open(&host).unwrap();
        let u0 = nl.link("u0").await.unwrap().unwrap().index;
        let wait = Duration::from_millis(500);
        let (h, c) = (
            udp(&host, "10.0.0.1:5000", wait),
            udp(&container, "10.0.0.2:5000", wait),
        );
        h.connect("10.0.0.2:5000").unwrap();
        c.connect("10.0.0.1:5000").unwrap();
        assert_eq!((arrived(&h, &c), arrived(&c, &h)), (60, 60));
        // Passes 10 at once and lets 10 wait.
        let bucket = Bucket {
            rate: 100_000,
            burst: 10_500,
            limit: 10_500,
        };
        nl.set_bucket(u0, &bucket).await.unwrap();
        let passed = arrived(&h, &c);
        assert!((15..=40).contains(&passed), "to the container: {passed}");
        assert_eq!(arrived(&c, &h), 60, "from it nothing is held back");
        nl.create_ifb("i0", 1500).await.unwrap();
        let i0 = nl.link("i0").await.unwrap().unwrap().index;
        nl.set_bucket(i0, &bucket).await.unwrap();
        nl.redirect(u0, i0).await.unwrap();
        let passed = arrived(&c, &h);
        assert!((15..=40).contains(&passed), "from the container: {passed}");
        nl.remove_link("i0").await.unwrap();
        assert_eq!(arrived(&c, &h), 0, "no way around the device");
        nl.remove_redirection(u0).await.unwrap();
        assert_eq!(arrived(&c, &h), 60);
    });
}

#[test]
fn the_namespaces_of_others_and_their_links_stay_as_they_are() {
    let lab = Lab::new();
    let (here, there) = (lab.netns("here"), lab.netns("there"));
    run(async {
        let (nl, p0) = port(&here, &there).await;
        nl.create_bridge(&bridge("br0")).await.unwrap();
        let others = || (shown(&here, "br0"), shown(&there, "eth0"));
        let before = others();
        nl.create_ifb("i0", 1450).await.unwrap();
        let i0 = nl.link("i0").await.unwrap().unwrap().index;
        nl.set_bucket(p0, &BUCKET).await.unwrap();
        nl.set_bucket(i0, &BUCKET).await.unwrap();
        nl.redirect(p0, i0).await.unwrap();
        assert_eq!(others(), before);
    });
}
