//! The host's nftables table where it keeps containers from tunnels and networks apart: each damage is told by doctor and mended by sync,
//! CHECK and the next ADD, as all other objects of [`super::host_state`].

use crate::overlay::host_state::{Counted, Damage, Verbs, bench, damage};

const SETS: &str = "does not know what may pass to tunnels and containers";
const RULES: &str = "nftables table inet crosshost: gone or changed by another program";

const WALLS: [Damage; 10] = [
    damage(
        "nft flush set inet crosshost all-tunnels4",
        SETS,
        Verbs::Check,
    ),
    damage(
        "nft flush set inet crosshost nonmembers4",
        SETS,
        Verbs::Check,
    ),
    damage("nft flush set inet crosshost together", SETS, Verbs::Check),
    damage(
        "nft add element inet crosshost together '{ ens3 . ch-egress }'",
        SETS,
        Verbs::Check,
    ),
    damage(
        "nft add element inet crosshost any-source-port '{ 4789 }'",
        SETS,
        Verbs::Check,
    ),
    damage(
        "nft flush chain inet crosshost arriving",
        RULES,
        Verbs::Check,
    ),
    damage(
        "nft insert rule inet crosshost from-containers accept",
        RULES,
        Verbs::Check,
    ),
    damage(
        "nft flush chain inet crosshost to-tunnels",
        RULES,
        Verbs::Check,
    ),
    damage(
        "nft flush chain inet crosshost programs; nft delete chain inet crosshost programs",
        RULES,
        Verbs::Check,
    ),
    damage(
        "nft insert rule inet crosshost forward oifname ch-egress accept",
        RULES,
        Verbs::Check,
    ),
];

#[test]
fn all_agree_on_each_damage_of_what_keeps_networks_and_tunnels_apart() {
    bench(&WALLS, Counted::Apart);
}
