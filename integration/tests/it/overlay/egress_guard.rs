//! No container is another on the egress bridge, nor the host: whatever it sends by `gw0`, the others keep their ports and their way out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::overlay::frames::{
    ALL, Ear, INSISTING, MARK, Mac, ONCE, Volley, arp, ethernet, mac_of, send, udp,
};
use crate::overlay::host_on_segment::{DUAL, lab, network};
use integration::{Attachment, Container, Lab, OUTSIDE};
use serde_json::json;

/// The host's address on the bridge.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
const INSIDE: &str = "nsenter --net=/run/crosshost/egress-netns/ch-egress";

struct Stage<'h> {
    lab: &'h Lab,
    attacker: Attachment<'h>,
    victim: Attachment<'h>,
    gateway: Mac,
}

fn stage(lab: &Lab) -> Stage<'_> {
    let [attacker, victim] =
        ["attacker", "victim"].map(|name| Attachment::new(lab.host(1), name, "n"));
    let shown = lab
        .host(1)
        .run("ip -json link show dev ch-egress")
        .ok()
        .json();
    let text = shown[0]["address"].as_str().expect("a MAC").to_owned();
    let bytes = text
        .split(':')
        .map(|it| u8::from_str_radix(it, 16).expect("hex"));
    let gateway = bytes.collect::<Vec<_>>().try_into().expect("six");
    for one in [&attacker, &victim] {
        assert!(one.container.tcp_get(OUTSIDE).is_ok());
    }
    Stage {
        lab,
        attacker,
        victim,
        gateway,
    }
}

fn address(container: &Container<'_>) -> Ipv4Addr {
    match container.address("gw0").expect("an address") {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => panic!("of IPv4"),
    }
}

impl Stage<'_> {
    fn sends(&self, frame: &[u8], volley: Volley) {
        send(&self.attacker.container, "gw0", frame, volley);
    }

    /// The host's neighbours on the bridge.
    fn neighbours(&self) -> String {
        let mut lines: Vec<_> = self
            .lab
            .host(1)
            .run("ip neighbour show dev ch-egress")
            .ok()
            .stdout
            .lines()
            .map(str::to_owned)
            .collect();
        lines.retain(|line| !line.starts_with("fe80"));
        lines.sort();
        lines.join("\n")
    }

    fn victim_goes_out(&self, when: &str) {
        for _ in 0..3 {
            assert!(self.victim.container.tcp_get(OUTSIDE).is_ok(), "{when}");
        }
    }
}

#[test]
fn the_host_believes_no_container_about_its_neighbours() {
    let lab = lab(1, &network(DUAL, &json!({})));
    let stage = stage(&lab);
    let own = mac_of(&stage.attacker.container, "gw0");
    let [own4, victim4] = [&stage.attacker, &stage.victim].map(|it| address(&it.container));
    let before = stage.neighbours();
    assert!(
        before.contains(&format!("{victim4} lladdr")) && before.contains("PERMANENT"),
        "{before}"
    );
    for frame in [
        arp((own, 1), (own, victim4), victim4),
        arp((own, 2), (own, victim4), GATEWAY),
        arp((own, 2), (own, own4), GATEWAY),
    ] {
        stage.sends(&frame, INSISTING);
        assert_eq!(stage.neighbours(), before);
        stage.victim_goes_out("after a false answer");
    }
    // Also where no rule stops the frames.
    lab.host(1)
        .script(&format!("{INSIDE} nft delete table bridge crosshost-guard"));
    stage.sends(&arp((own, 2), (own, victim4), GATEWAY), INSISTING);
    assert_eq!(stage.neighbours(), before, "without the table");
    assert!(
        stage.attacker.container.tcp_get(OUTSIDE).is_ok(),
        "the honest way"
    );
    // With its DEL an address is forgotten.
    stage.victim.detach().ok();
    assert!(!stage.neighbours().contains(&victim4.to_string()));
}

#[test]
fn no_container_takes_the_hosts_frames_or_a_neighbours() {
    let lab = lab(1, &network(DUAL, &json!({})));
    let stage = stage(&lab);
    let victim = mac_of(&stage.victim.container, "gw0");
    let own = address(&stage.attacker.container);
    let packet = udp(own.into(), IpAddr::V4(Ipv4Addr::BROADCAST), (4000, 4000));
    for mac in [stage.gateway, victim] {
        let frame = ethernet(ALL, mac, 0x0800, &packet);
        let all_along = Volley {
            times: 1000,
            pause: 1,
            many_senders: false,
        };
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| stage.sends(&frame, all_along));
            while !flood.is_finished() {
                stage.victim_goes_out("while another sends as the host, or as itself");
            }
        });
    }
    let count = || {
        let said = lab
            .host(1)
            .run(&format!("{INSIDE} bridge fdb show"))
            .ok()
            .stdout;
        said.lines().count()
    };
    let before = count();
    let many = Volley {
        times: 2000,
        pause: 0,
        many_senders: true,
    };
    stage.sends(&ethernet(stage.gateway, [0; 6], 0x0800, &packet), many);
    assert_eq!(count(), before, "MACs were learnt");
}

/// How many of three packets to a port of the host arrive there.
fn heard(stage: &Stage<'_>, from: Ipv4Addr, to: Ipv4Addr) -> usize {
    let host = stage.lab.host(1).namespace().net();
    let socket = host.run(|| {
        let socket = UdpSocket::bind(SocketAddr::from((to, 0))).expect("a socket");
        let patience = Some(Duration::from_millis(500));
        socket.set_read_timeout(patience).expect("a limit");
        socket
    });
    let port = socket.local_addr().expect("its address").port();
    let own = mac_of(&stage.attacker.container, "gw0");
    let packet = udp(from.into(), to.into(), (4000, port));
    let thrice = Volley { times: 3, ..ONCE };
    stage.sends(&ethernet(stage.gateway, own, 0x0800, &packet), thrice);
    let mut heard = 0;
    while socket.recv(&mut [0; 64]).is_ok() {
        heard += 1;
    }
    heard
}

#[test]
fn the_host_hears_containers_from_their_own_addresses_and_never_on_its_loopback() {
    let lab = lab(1, &network(DUAL, &json!({})));
    let stage = stage(&lab);
    let host = lab.host(1);
    let [own, other] = [&stage.attacker, &stage.victim].map(|it| address(&it.container));
    assert_eq!(heard(&stage, own, GATEWAY), 3, "the control");
    for forged in [
        other,
        Ipv4Addr::new(8, 8, 8, 8),
        Ipv4Addr::new(172, 18, 77, 77),
    ] {
        assert_eq!(heard(&stage, forged, GATEWAY), 0, "from {forged}");
    }
    // As while a port is published, and another program has removed all rules of the host.
    host.script("echo 1 > /proc/sys/net/ipv4/conf/ch-egress/route_localnet; nft flush ruleset");
    assert_eq!(heard(&stage, own, Ipv4Addr::LOCALHOST), 0);
    assert_eq!(heard(&stage, own, GATEWAY), 3, "the control");
}

#[test]
fn containers_hear_nothing_of_each_other_by_the_bridge() {
    let lab = lab(1, &network(DUAL, &json!({})));
    let stage = stage(&lab);
    let [own, other] = [&stage.attacker, &stage.victim].map(|it| address(&it.container));
    let mac = mac_of(&stage.attacker.container, "gw0");
    let packet = udp(own.into(), other.into(), (4000, 4000));
    for to in [mac_of(&stage.victim.container, "gw0"), ALL] {
        let ear = Ear::open(&stage.victim.container, "gw0", MARK);
        stage.sends(&ethernet(to, mac, 0x0800, &packet), ONCE);
        assert_eq!(ear.heard(), 0);
    }
}
