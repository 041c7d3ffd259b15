//! The crate against the real kernel and the real `nft`, each test in network namespaces of its own. Needs root.

mod decide;
mod egress;
mod ensure;
mod guard;
mod kit;
mod mac_rewrite;
mod ports;
mod release;
mod segments;
mod skeleton;
mod traffic;
mod tunnels;

use crate::Config;

const CONFIG: Config<'_> = Config {
    egress_bridge: "ch-egress",
    segment_links: ["chg", "chh"],
};
