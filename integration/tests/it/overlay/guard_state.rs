//! The source guard as a part of what is made on a host: whatever of it is damaged, `crosshost doctor`, CHECK, `crosshost sync` and the next ADD
//! agree that it is, and mend it.

use crate::overlay::host_state::{Counted, Damage, Verbs, bench, damage};

/// In a network's sandbox.
const SEGMENT: [Damage; 11] = [
    damage(
        "$S sh -c 'echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables'",
        "bridge-nf-call-iptables in the sandbox: is 1, not 0",
        Verbs::CheckAlone,
    ),
    damage(
        "$S nft delete table bridge crosshost-guard",
        "nftables table bridge crosshost-guard in the sandbox: gone",
        Verbs::Check,
    ),
    damage(
        "$S nft flush chain bridge crosshost-guard own4",
        "nftables table bridge crosshost-guard in the sandbox: gone or changed",
        Verbs::CheckAlone,
    ),
    damage(
        "$S nft insert rule bridge crosshost-guard prerouting accept",
        "nftables table bridge crosshost-guard in the sandbox: gone or changed",
        Verbs::CheckAlone,
    ),
    damage(
        "$S nft flush set bridge crosshost-guard guarded",
        "does not hold chp",
        Verbs::CheckAlone,
    ),
    damage(
        "$S nft flush set bridge crosshost-guard sources4",
        "does not hold chp",
        Verbs::CheckAlone,
    ),
    damage(
        "$S nft add element bridge crosshost-guard budgets '{ chp123456789abc }'",
        "speaks of chp123456789abc",
        Verbs::CheckAlone,
    ),
    damage(
        "$S bridge link set dev $CHP learning on",
        "has learning on",
        Verbs::CheckAlone,
    ),
    damage(
        "$S bridge link set dev $CHP flood on",
        "has flood on",
        Verbs::CheckAlone,
    ),
    damage(
        "$S bridge fdb delete $(nsenter --net=$T1 ip -br link show dev eth0 | awk '{print $3}') dev $CHP master",
        "has no bridge entry",
        Verbs::CheckAlone,
    ),
    damage(
        "for mac in $($S bridge fdb show dev vxlan0 | awk '/sticky/ {print $1}'); do
             $S bridge fdb replace $mac dev vxlan0 master static
         done",
        "that frames can move",
        Verbs::Check,
    ),
];

/// Of the host's own link to the segment.
const HOST_LINK: [Damage; 2] = [
    damage(
        "ip neighbour flush dev $CHH nud permanent",
        "has no neighbour 10.0.0.",
        Verbs::CheckAlone,
    ),
    damage(
        "ip neighbour replace $(nsenter --net=$T1 ip -br -4 address show dev eth0 | grep -o '10[0-9.]*') lladdr 02:00:00:00:00:09 dev $CHH nud permanent",
        "neighbour 10.0.0.",
        Verbs::CheckAlone,
    ),
];

/// On the way out of all containers.
const EGRESS: [Damage; 8] = [
    damage(
        "$E nft delete table bridge crosshost-guard",
        "nftables table bridge crosshost-guard in the egress namespace: gone",
        Verbs::Check,
    ),
    damage(
        "$E nft flush set bridge crosshost-guard sources4",
        "does not hold che",
        Verbs::CheckAlone,
    ),
    damage(
        "$E nft flush chain bridge crosshost-guard prerouting",
        "nftables table bridge crosshost-guard in the egress namespace: gone or changed",
        Verbs::CheckAlone,
    ),
    damage(
        "$E bridge link set dev $CHE learning on",
        "has learning on",
        Verbs::CheckAlone,
    ),
    damage(
        "$E bridge fdb delete $(ip -br link show dev ch-egress | awk '{print $3}') dev uplink master",
        "has no bridge entry",
        Verbs::CheckAlone,
    ),
    damage(
        "$E bridge fdb delete $(nsenter --net=$T1 ip -br link show dev gw0 | awk '{print $3}') dev $CHE master",
        "has no bridge entry",
        Verbs::CheckAlone,
    ),
    damage(
        "ip neighbour flush dev ch-egress nud permanent",
        "ch-egress: has no neighbour 172.18.0.2",
        Verbs::CheckAlone,
    ),
    damage(
        "ip neighbour replace 172.18.0.2 lladdr 02:00:00:00:00:09 dev ch-egress nud permanent",
        "ch-egress: has",
        Verbs::CheckAlone,
    ),
];

#[test]
fn all_agree_on_each_damage_of_the_guard_of_a_segment() {
    bench(&SEGMENT, Counted::WithNetwork);
}

#[test]
fn all_agree_on_each_damage_of_what_the_host_knows_of_its_containers() {
    bench(&HOST_LINK, Counted::WithNetwork);
}

#[test]
fn all_agree_on_each_damage_of_the_guard_of_the_way_out() {
    bench(&EGRESS, Counted::Apart);
}
