//! The bridge answers ARP and ND for known remote addresses; the underlay carries questions for unknown ones only.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use netlink::{Change, Forward, Port};

use crate::kit::{Lab, Site, addr, mac, run, sh, udp, wire};

const REMOTE: &str = "02:42:0a:00:00:03";

/// Bytes of a VXLAN header.
const VXLAN_LEN: usize = 8;

/// The frames that arrive in tunnel packets, until these are enough and none comes for the socket's time-out.
/// The first question of a link that is just up may get lost; the next one comes after a second.
fn frames(remote: &UdpSocket, are_enough: impl Fn(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = [0; 2048];
    let begun = Instant::now();
    loop {
        if let Ok(len) = remote.recv(&mut buffer) {
            assert_eq!(buffer[4..7], [0, 16, 1], "VNI 4097");
            frames.push(buffer[VXLAN_LEN..len].to_vec());
        } else if are_enough(&frames) || begun.elapsed() > Duration::from_secs(10) {
            return frames;
        }
    }
}

/// Whether the frame asks for the MAC of the address, by ARP or ND.
fn asks(frame: &[u8], ip: &str) -> bool {
    match addr(ip) {
        std::net::IpAddr::V4(v4) => {
            frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame[38..42] == v4.octets()
        }
        std::net::IpAddr::V6(v6) => {
            frame[12..14] == [0x86, 0xdd]
                && frame[20] == 58
                && frame[54] == 135
                && frame[62..78] == v6.octets()
        }
    }
}

#[test]
fn known_neighbours_are_answered_locally() {
    let lab = Lab::new();
    run(async {
        let (_, far) = wire(&lab, ("a", "192.0.2.1/24"), ("b", "192.0.2.2/24")).await;
        let remote = udp(&far, "192.0.2.2:4789", Duration::from_millis(500));
        let a = Site::new(
            &lab,
            "a",
            "192.0.2.1",
            4097,
            &["10.0.0.2/24", "fd00::2/64"],
            "02:42:0a:00:00:02",
        )
        .await;
        let suppress = Port {
            neigh_suppress: Some(true),
            learning: Some(false),
            ..Port::default()
        };
        a.nl.set_port(&a.vxlan.name, &suppress).await.unwrap();
        let (vtep, mac) = (addr("192.0.2.2"), mac(REMOTE));
        let known = ["10.0.0.3", "fd00::3"].map(|ip| Forward::Neigh {
            addr: addr(ip),
            mac,
        });
        let entries = [
            Forward::Flood { vtep },
            Forward::Fdb { mac, vtep },
            Forward::Port { mac },
            known[0],
            known[1],
        ];
        a.nl.change(a.bridge.index, a.vxlan.index, &entries.map(Change::Add))
            .await
            .unwrap();
        assert!(a.container_nl.link("eth0").await.unwrap().unwrap().up && a.eth0.up);

        for (own, known, unknown) in [
            ("10.0.0.2", "10.0.0.3", "10.0.0.9"),
            ("fd00::2", "fd00::3", "fd00::9"),
        ] {
            let own = if own.contains(':') {
                format!("[{own}]:0")
            } else {
                format!("{own}:0")
            };
            let container = udp(&a.container, &own, Duration::from_secs(1));
            for ip in [known, unknown] {
                container.send_to(b"x", (ip, 7)).unwrap();
            }
            // The datagram itself arrives, so the answer came; and the unknown one shows that questions would be seen.
            let to_known = |frame: &Vec<u8>| frame[..6] == mac.0;
            let asks_unknown = |frame: &Vec<u8>| asks(frame, unknown);
            let frames = frames(&remote, |frames| {
                frames.iter().any(to_known) && frames.iter().any(asks_unknown)
            });
            assert!(frames.iter().any(to_known), "{known}: {frames:02x?}");
            assert!(frames.iter().any(asks_unknown), "{unknown}: {frames:02x?}");
            assert!(
                !frames.iter().any(|frame| asks(frame, known)),
                "{known}: {frames:02x?}"
            );
            assert!(sh(&a.container, &format!("ip neigh show {known}")).contains(REMOTE));
        }
    });
}
