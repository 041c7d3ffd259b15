//! The translation of MACs, against nft's words and against real frames.

use crate::{MacRewrite, Macs};

use super::kit::Namespace;

const COMPUTED: [u8; 6] = [2, 0x42, 10, 0, 0, 5];
const ASKED: [u8; 6] = [2, 0x11, 0x22, 0x33, 0x44, 0x55];

fn set(namespace: &Namespace, macs: &Macs) -> bool {
    namespace.run(|| {
        let mut table = MacRewrite::open().unwrap();
        let changed = table.set(macs).unwrap();
        assert!(table.is(macs).unwrap());
        assert!(!table.set(macs).unwrap(), "nothing to change");
        changed
    })
}

#[test]
fn the_rules_are_what_nft_would_make_of_them() {
    let namespace = Namespace::new();
    let one = Macs::from([(COMPUTED, ASKED)]);
    let is = |macs: &Macs| namespace.run(|| MacRewrite::open().unwrap().is(macs).unwrap());
    assert!(is(&Macs::new()) && !is(&one));
    assert!(set(&namespace, &one));
    let ours = namespace.sh("nft list table bridge crosshost");
    let rule = "ether daddr 02:42:0a:00:00:05 ether daddr set 02:11:22:33:44:55";
    assert!(ours.contains(rule), "{ours}");
    namespace.sh(&format!(
        "nft delete table bridge crosshost
         nft add table bridge crosshost
         nft add chain bridge crosshost prerouting '{{ type filter hook prerouting priority -300; }}'
         nft add rule bridge crosshost prerouting {rule}"
    ));
    assert!(is(&one), "nft's own rule is ours");
    let two = Macs::from([(COMPUTED, ASKED), ([2, 0x42, 10, 0, 0, 6], [6; 6])]);
    assert!(!is(&two));
    assert!(set(&namespace, &two) && set(&namespace, &one));
    assert!(set(&namespace, &Macs::new()), "the table goes");
    assert_eq!(namespace.sh("nft list ruleset"), "");
}

#[test]
fn a_frame_to_the_one_mac_reaches_the_other() {
    let bridge = Namespace::new();
    let (a, b) = (Namespace::new(), Namespace::new());
    bridge.sh("ip link add br0 up type bridge");
    for (space, address, mac) in [
        (&a, "10.0.0.4", "02:42:0a:00:00:04"),
        (&b, "10.0.0.5", "02:11:22:33:44:55"),
    ] {
        let (pid, port) = (space.pid(), &mac[15..]);
        bridge.sh(&format!(
            "ip link add p{port} master br0 up type veth peer name eth0 netns {pid}"
        ));
        space.sh(&format!(
            "ip link set eth0 address {mac}; ip address add {address}/24 dev eth0; ip link set eth0 up"
        ));
    }
    // As a host with an old snapshot has it.
    a.sh("ip neighbour add 10.0.0.5 lladdr 02:42:0a:00:00:05 dev eth0");
    let ping = "ping -c1 -W1 10.0.0.5 > /dev/null && echo yes || echo no";
    assert_eq!(a.sh(ping), "no\n");
    set(&bridge, &Macs::from([(COMPUTED, ASKED)]));
    assert_eq!(a.sh(ping), "yes\n");
}
