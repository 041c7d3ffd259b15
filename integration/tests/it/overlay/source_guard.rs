//! No container is another on its segment: what it says of senders is its own, or reaches nobody, on this host and on others. Each attack
//! has its control: the same kind of frame, honest, arrives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::overlay::frames::{
    ALL, ALL_NODES, Ear, INSISTING, MARK, Mac, ONCE, Volley, advertisement, arp, ethernet, icmp6,
    ip, mac_of, send, udp, v4, v6,
};
use crate::overlay::host_on_segment::{DUAL, lab, network};
use integration::{Attachment, Container, Host, Lab};
use serde_json::{Value, json};

fn dual() -> Value {
    network(DUAL, &json!({ "egress": "none" }))
}

/// An attacker and a neighbour on the first host, a victim beside them, and one on another host.
struct Stage<'h> {
    attacker: Attachment<'h>,
    neighbour: Attachment<'h>,
    victims: [Attachment<'h>; 2],
}

impl<'h> Stage<'h> {
    fn new(lab: &'h Lab) -> Self {
        let on = |host, name| Attachment::new(lab.host(host), name, "n");
        let stage = Self {
            attacker: on(1, "attacker"),
            neighbour: on(1, "neighbour"),
            victims: [on(1, "here"), on(2, "there")],
        };
        lab.sync();
        for victim in &stage.victims {
            for other in [&stage.attacker, &stage.neighbour] {
                meet(victim, other);
            }
        }
        stage
    }

    fn mac(&self) -> Mac {
        mac_of(&self.attacker.container, "eth0")
    }

    fn sends(&self, frame: &[u8], volley: Volley) {
        send(&self.attacker.container, "eth0", frame, volley);
    }

    fn is_well(&self, when: &str) {
        for victim in &self.victims {
            for other in [&self.attacker, &self.neighbour] {
                let all = [IpAddr::V4(v4(other)), v6(other).into()];
                let reached = all.iter().all(|it| victim.container.pings(*it, &[]));
                assert!(
                    reached,
                    "{when}: {} to {}",
                    victim.container.name(),
                    other.container.name()
                );
            }
        }
        assert!(
            self.victims[0]
                .container
                .pings(v4(&self.victims[1]).into(), &[]),
            "{when}"
        );
    }
}

fn meet(one: &Attachment<'_>, other: &Attachment<'_>) {
    for address in [IpAddr::V4(v4(other)), v6(other).into()] {
        assert!(
            one.container.pings(address, &[]),
            "{} to {address}",
            one.container.name()
        );
    }
}

/// Whom the container believes to have the address.
fn believes(container: &Container<'_>, address: IpAddr) -> String {
    let shown = container.ip(&["neighbour", "show", &address.to_string()][..]);
    shown[0]["lladdr"].as_str().unwrap_or_default().to_owned()
}

fn spelled(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn nobody_believes_that_a_container_has_the_address_of_another() {
    let lab = lab(2, &dual());
    let stage = Stage::new(&lab);
    let (own, neighbour) = (stage.mac(), mac_of(&stage.neighbour.container, "eth0"));
    let (victim4, victim6) = (v4(&stage.neighbour), v6(&stage.neighbour));
    let (own4, own6) = (v4(&stage.attacker), v6(&stage.attacker));
    let far = mac_of(&stage.victims[1].container, "eth0");
    let far4 = v4(&stage.victims[1]);
    let attacks = [
        arp((own, 2), (own, victim4), victim4),
        arp((own, 1), (own, victim4), victim4),
        arp((own, 2), (neighbour, own4), own4),
        arp((neighbour, 2), (own, victim4), victim4),
        arp((own, 2), (own, far4), far4),
        advertisement(own, own6, victim6, own),
        advertisement(own, victim6, victim6, own),
        advertisement(own, Ipv6Addr::UNSPECIFIED, victim6, own),
    ];
    for (at, attack) in attacks.iter().enumerate() {
        stage.sends(attack, INSISTING);
        for victim in &stage.victims {
            for address in [IpAddr::V4(victim4), victim6.into()] {
                let believed = believes(&victim.container, address);
                assert_eq!(believed, spelled(neighbour), "attack {at}: {address}");
            }
            let believed = believes(&victim.container, own4.into());
            assert_eq!(believed, spelled(own), "attack {at}: of itself");
        }
        let believed = believes(&stage.victims[0].container, far4.into());
        assert!(
            ["", &spelled(far)].contains(&believed.as_str()),
            "attack {at}: {believed}"
        );
    }
    stage.is_well("afterwards");
    // Honest ones of the same kind are heard here; the other host has what they say already.
    let honest = [
        (arp((own, 2), (own, own4), own4), own4.into()),
        (advertisement(own, own6, own6, own), IpAddr::V6(own6)),
    ];
    for (frame, address) in honest {
        let listener = Ear::open(&stage.victims[0].container, "eth0", &frame[..40]);
        stage.sends(&frame, ONCE);
        assert_eq!(listener.heard(), 1, "{address}");
    }
}

/// Where the bridge of the first host has the MAC, as `bridge fdb` says.
pub(super) fn place(host: &Host, mac: Mac) -> String {
    let said = host.in_sandbox("n", "bridge fdb show br br0");
    let mac = spelled(mac);
    let mut lines = said
        .lines()
        .filter(|line| line.starts_with(&mac) && line.contains("master"));
    let line = lines.next().unwrap_or_else(|| panic!("no {mac} in {said}"));
    line.split_whitespace()
        .nth(2)
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn no_frame_moves_what_the_bridge_knows_and_it_learns_nothing() {
    let lab = lab(2, &dual());
    let stage = Stage::new(&lab);
    let host = lab.host(1);
    let macs = [&stage.neighbour, &stage.victims[1], &stage.attacker]
        .map(|one| mac_of(&one.container, "eth0"));
    let before = macs.map(|mac| place(host, mac));
    assert_eq!(before[1], "vxlan0");
    let (own, to) = (v4(&stage.attacker), v4(&stage.victims[0]));
    let packet = udp(own.into(), to.into(), (4000, 4000));
    for mac in &macs[..2] {
        let to = mac_of(&stage.victims[0].container, "eth0");
        let frame = ethernet(to, *mac, 0x0800, &packet);
        let ear = Ear::open(&stage.victims[0].container, "eth0", MARK);
        stage.sends(&frame, INSISTING);
        assert_eq!(macs.map(|mac| place(host, mac)), before);
        assert_eq!(ear.heard(), 0, "nothing of it arrived");
    }
    let count = || host.in_sandbox("n", "bridge fdb show").lines().count();
    let known = count();
    let flood = ethernet([0x02, 0, 0, 0, 0, 0x77], [0; 6], 0x0800, &packet);
    let many = Volley {
        times: 3000,
        pause: 0,
        many_senders: true,
    };
    stage.sends(&flood, many);
    assert_eq!(count(), known, "MACs were learnt");
    stage.is_well("afterwards");
}

#[test]
fn nobody_hears_what_is_for_another_though_the_bridge_was_silent_for_long() {
    let lab = lab(1, &dual());
    let [one, two, three] = ["one", "two", "three"].map(|it| Attachment::new(lab.host(1), it, "n"));
    meet(&one, &two);
    let (from, to) = (IpAddr::V4(v4(&one)), IpAddr::V4(v4(&two)));
    let frame = ethernet(
        mac_of(&two.container, "eth0"),
        mac_of(&one.container, "eth0"),
        0x0800,
        &udp(from, to, (4000, 4000)),
    );
    let [third, second] = [&three, &two].map(|it| Ear::open(&it.container, "eth0", MARK));
    // As after the bridge's ageing time.
    lab.host(1).script(
        "enter='nsenter --net=/run/crosshost/netns/n'
         for port in $($enter ip -o link | grep -o 'chp[0-9a-f]*'); do
             $enter ip link set $port type bridge_slave fdb_flush
         done",
    );
    send(&one.container, "eth0", &frame, ONCE);
    assert_eq!((second.heard(), third.heard()), (1, 0));
}

#[test]
fn packets_come_from_the_containers_own_addresses_only() {
    let lab = lab(2, &dual());
    let stage = Stage::new(&lab);
    let own = stage.mac();
    let (own4, own6) = (v4(&stage.attacker), v6(&stage.attacker));
    let forged: [IpAddr; 7] = [
        v4(&stage.neighbour).into(),
        v6(&stage.neighbour).into(),
        Ipv4Addr::new(8, 8, 8, 8).into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 8).into(),
    ];
    for victim in &stage.victims {
        let to = mac_of(&victim.container, "eth0");
        let frame = |from: IpAddr, ether| {
            let (there, kind) = match from {
                IpAddr::V4(_) => (v4(victim).into(), 0x0800),
                IpAddr::V6(_) => (v6(victim).into(), 0x86dd),
            };
            ethernet(to, ether, kind, &udp(from, there, (4000, 4000)))
        };
        let heard = |frame: Vec<u8>| {
            let ear = Ear::open(&victim.container, "eth0", MARK);
            stage.sends(&frame, ONCE);
            ear.heard()
        };
        for from in forged {
            assert_eq!(heard(frame(from, own)), 0, "from {from}");
        }
        let other = mac_of(&stage.neighbour.container, "eth0");
        assert_eq!(heard(frame(own4.into(), other)), 0, "another MAC");
        let mut tagged = frame(own4.into(), own);
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(heard(tagged), 0, "in a VLAN");
        let from_loopback = ethernet(
            to,
            own,
            0x0800,
            &udp(own4.into(), Ipv4Addr::LOCALHOST.into(), (4000, 4000)),
        );
        assert_eq!(heard(from_loopback), 0, "to 127.0.0.1");
        for own_address in [IpAddr::V4(own4), own6.into()] {
            assert_eq!(heard(frame(own_address, own)), 1, "from {own_address}");
        }
    }
}

#[test]
fn no_container_passes_for_a_router_a_dhcp_server_or_a_switch() {
    let lab = lab(2, &dual());
    let stage = Stage::new(&lab);
    let own = stage.mac();
    let (own4, own6) = (v4(&stage.attacker), v6(&stage.attacker));
    let all4 = IpAddr::V4(Ipv4Addr::BROADCAST);
    let all6 = IpAddr::V6(ALL_NODES.0);
    let router = [
        &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..],
        MARK,
    ]
    .concat();
    let redirect = [
        &[137, 0, 0, 0, 0, 0, 0, 0][..],
        &own6.octets(),
        &own6.octets(),
        MARK,
    ]
    .concat();
    let spanning_tree = [&[0x42, 0x42, 3][..], &[0; 35], MARK].concat();
    let bpdu = ethernet([1, 0x80, 0xc2, 0, 0, 0], own, 54, &spanning_tree);
    let attacks = [
        ("router advertisement", icmp6(own, own6, &router)),
        ("redirect", icmp6(own, own6, &redirect)),
        (
            "DHCP offer",
            ethernet(ALL, own, 0x0800, &udp(own4.into(), all4, (67, 68))),
        ),
        (
            "DHCPv6 advertisement",
            ethernet(
                ALL_NODES.1,
                own,
                0x86dd,
                &udp(own6.into(), all6, (547, 546)),
            ),
        ),
        (
            "DHCP offer from another port",
            ethernet(ALL, own, 0x0800, &udp(own4.into(), all4, (4000, 68))),
        ),
        (
            "DHCPv6 advertisement from another port",
            ethernet(
                ALL_NODES.1,
                own,
                0x86dd,
                &udp(own6.into(), all6, (4000, 546)),
            ),
        ),
        ("BPDU", bpdu),
        ("LLDP by another name", ethernet(ALL, own, 0x88cc, MARK)),
    ];
    let honest = [
        (
            "broadcast",
            ethernet(ALL, own, 0x0800, &udp(own4.into(), all4, (4000, 69))),
        ),
        (
            "multicast",
            ethernet(
                ALL_NODES.1,
                own,
                0x86dd,
                &udp(own6.into(), all6, (4000, 547)),
            ),
        ),
    ];
    let cases = attacks
        .map(|it| (it, 0))
        .into_iter()
        .chain(honest.map(|it| (it, 1)));
    for ((what, frame), arrive) in cases {
        let ears = stage
            .victims
            .each_ref()
            .map(|victim| Ear::open(&victim.container, "eth0", MARK));
        stage.sends(&frame, ONCE);
        assert_eq!(ears.map(Ear::heard), [arrive; 2], "{what}");
    }
}

#[test]
fn groups_of_receivers_are_joined_and_left_as_before() {
    let lab = lab(2, &dual());
    let stage = Stage::new(&lab);
    let joined = "ip maddress add 33:33:00:00:00:99 dev eth0";
    for victim in &stage.victims {
        victim.container.run(joined).ok();
    }
    // A report of MLD, which Linux also sends before its address can be used, and one of IGMP.
    let own = stage.mac();
    let report = [&[143, 0, 0, 0, 0, 0, 0, 0][..], MARK].concat();
    let igmp = ip(
        v4(&stage.attacker).into(),
        Ipv4Addr::new(224, 0, 0, 22).into(),
        2,
        MARK,
    );
    let igmp = ethernet([1, 0, 0x5e, 0, 0, 22], own, 0x0800, &igmp);
    for frame in [
        icmp6(own, v6(&stage.attacker), &report),
        icmp6(own, Ipv6Addr::UNSPECIFIED, &report),
        igmp,
    ] {
        let ears = stage
            .victims
            .each_ref()
            .map(|victim| Ear::open(&victim.container, "eth0", MARK));
        stage.sends(&frame, ONCE);
        assert_eq!(ears.map(Ear::heard), [1; 2]);
    }
}
