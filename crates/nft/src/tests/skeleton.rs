//! nft is the oracle: what it makes of `skeleton.nft` and what we make must not differ to it.

use crate::{Nft, Status};
use serde_json::Value;

use super::CONFIG;
use super::kit::Namespace;

const SKELETON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/skeleton.nft");

/// `nft -j` without what cannot be the same: handles, which count all objects ever made.
pub(super) fn json(namespace: &Namespace) -> Value {
    let text = namespace.sh("nft -j list table inet crosshost");
    let mut value = serde_json::from_str(&text).unwrap();
    forget_handles(&mut value);
    value
}

fn forget_handles(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(forget_handles),
        Value::Object(object) => {
            object.remove("handle");
            object.values_mut().for_each(forget_handles);
        }
        _ => {}
    }
}

/// The expressions as the kernel has them; nft adds the rules' handles to the lines that have no bracket.
pub(super) fn bytecode(namespace: &Namespace) -> Vec<String> {
    let text = namespace.sh("nft --debug=netlink list table inet crosshost 2>&1");
    let lines = text.lines().filter(|line| line.contains("[ "));
    lines.map(str::to_owned).collect()
}

#[test]
fn equals_what_nft_makes_of_the_file() {
    let (theirs, ours) = (Namespace::new(), Namespace::new());
    theirs.sh(&format!("nft -f {SKELETON}"));
    ours.run(|| Nft::open().unwrap().ensure(&CONFIG).unwrap());

    assert_eq!(json(&ours), json(&theirs));
    assert_eq!(bytecode(&ours), bytecode(&theirs));
    // Of each version of IP: two of prerouting, one of output, of postrouting, of from-containers, of arriving, of input, of programs,
    // of forward.
    let each = 10 + 8 + 8 + 7 + 8 + 10 + 8 + 10 + 11;
    // to-tunnels; from-containers; arriving; input; forward; forged; client-ports.
    let others = 5 + (6 + 4 * 3 + 1) + 3 * 3 + 6 + (4 + 4 + 4 + 3 * 3) + 6 * 3 + 6 * 9;
    assert_eq!(bytecode(&ours).len(), 2 * each + others);

    let text = ours.sh("nft list table inet crosshost");
    let file = std::fs::read_to_string(SKELETON).unwrap();
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    let without_comments = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert_eq!(text, without_comments, "nft prints ours as the file");
}

#[test]
fn elements_equal_those_of_nft() {
    let (theirs, ours) = (Namespace::new(), Namespace::new());
    theirs.sh(&format!(
        "nft -f {SKELETON}
         nft add element inet crosshost egress4 '{{ 172.18.0.0/16 comment \"gw\", 240.0.0.0/4 comment \"end\" }}'
         nft add element inet crosshost egress6 '{{ fd00:1::/64 comment \"gw\", fe00::/7 comment \"end\" }}'"
    ));
    ours.run(|| {
        let mut nft = Nft::open().unwrap();
        nft.ensure(&CONFIG).unwrap();
        for (network, owner) in [
            ("172.18.3.4/16", "gw"),
            ("240.0.0.0/4", "end"),
            ("fd00:1::5/64", "gw"),
            ("fe00::/7", "end"),
        ] {
            nft.add_egress(network.parse().unwrap(), owner).unwrap();
        }
    });
    assert_eq!(json(&ours), json(&theirs));
}

#[test]
fn a_table_made_by_nft_is_complete_to_us() {
    let namespace = Namespace::new();
    namespace.sh(&format!("nft -f {SKELETON}"));
    namespace.run(|| {
        let mut nft = Nft::open().unwrap();
        assert_eq!(nft.status(&CONFIG).unwrap(), Status::Complete);
    });
}
