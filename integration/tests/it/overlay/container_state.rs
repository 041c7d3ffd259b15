//! The same for what a container has: CHECK and `crosshost doctor` agree on what is damaged. Only the container's runtime repairs it, by
//! a DEL and an ADD.

use std::net::IpAddr;

use super::host_state::{Bench, dual_lab};
use crate::doctor_report::ask;

/// A damage in the container, of which CHECK and doctor say the same, and what ends it.
struct Inside {
    does: &'static str,
    says: &'static str,
    undo: &'static str,
}

const fn inside(does: &'static str, says: &'static str, undo: &'static str) -> Inside {
    Inside { does, says, undo }
}

/// What the container itself has, which its runtime alone mends. `$C` enters it; what CHECK says by the result alone is in `check.rs`.
const CONTAINER: [Inside; 9] = [
    inside(
        "$C ip link set eth0 name lost",
        "eth0: is gone",
        "$C ip link set lost name eth0",
    ),
    inside(
        "$C ip link set eth0 down",
        "eth0: is down",
        "$C ip link set eth0 up",
    ),
    inside(
        "$C ip link set eth0 address 02:00:00:00:00:01",
        "eth0: has MAC 02:00:00:00:00:01, not 02:42:0a:00:00",
        "$C ip link set eth0 address $OWN",
    ),
    inside(
        "$C ip link set gw0 name lost",
        "gw0: is gone",
        "$C ip link set lost name gw0",
    ),
    inside(
        "$C ip link set gw0 down",
        "gw0: is down",
        "$C ip link set gw0 up; routes",
    ),
    inside(
        "$C ip link set gw0 mtu 1280",
        "gw0: has MTU 1280, not 1500",
        "$C ip link set gw0 mtu 1500",
    ),
    inside(
        "$C ip address delete $OUT dev gw0",
        "gw0: lacks address 172.18.",
        "$C ip address add $OUT dev gw0; routes",
    ),
    inside(
        "$C ip -4 route delete default",
        "route to 0.0.0.0/0: is gone",
        "routes",
    ),
    inside(
        "$C ip -6 route delete default",
        "route to ::/0: is gone",
        "routes",
    ),
];

#[test]
fn check_and_doctor_agree_on_each_damage_of_a_container() {
    let lab = dual_lab();
    let mut bench = Bench::new(&lab);
    bench.is_whole("at first");
    let IpAddr::V4(address) = bench.attached.address else {
        panic!("the first address is of IPv4");
    };
    let [a, b, c, d] = address.octets();
    let settings = format!(
        "
        OWN=02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}; OUT=172.18.0.2/16
        G6=$(ip -6 -o address show dev ch-egress scope global | awk '{{print $4}}' | cut -d/ -f1)
        routes() {{ $C ip route replace default via 172.18.0.1; $C ip -6 route replace default via $G6; }}"
    );
    bench.settings.push_str(&settings);
    for Inside { does, says, undo } in CONTAINER {
        bench.does(does);
        for when in ["at once", "after sync"] {
            let wrong = ask(bench.host).lines("wrong");
            let told = wrong.iter().any(|line| line.contains(says));
            assert!(told, "{does}: {when}: doctor: {wrong:?}");
            let all = wrong
                .iter()
                .all(|it| it.contains("DEL and ADD its container"));
            assert!(all, "{does}: {when}: {wrong:?}");
            let check = bench.check();
            let text = format!("{} {}", check.stdout, check.stderr);
            assert!(
                !check.status.success() && text.contains(says),
                "{does}: {when}: CHECK: {text}"
            );
            bench.host.crosshost(&["sync"]).ok();
        }
        bench.does(undo);
        bench.is_whole(&format!("{does}, undone"));
    }
    // What is there twice is a later plugin's, or the container's own.
    bench.does(
        "$C ip address add 10.0.0.200/24 dev eth0
         $C ip address add 192.0.2.1/24 dev gw0
         $C ip route add 192.0.3.0/24 via 192.0.2.9
         $C ip route add default via 192.0.2.9 metric 9
         $C ip link add other0 type veth peer name other1",
    );
    bench.is_whole("doubled");
    bench.attached.detach().ok();
}
