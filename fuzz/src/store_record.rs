//! A record in the store: what is read and written again is the same, what a newer version wrote is refused, and a damaged
//! one is refused by its key.

use std::{fmt::Debug, net::IpAddr};

use cluster::{
    Acknowledgement, BlockRecord, Lease, LedgerRecord, MacRecord, Network, NetworkSpec, Node,
    Versioned, decode, encode,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use store::{Entry, Key};

use super::message;

/// The revision at which the records stand.
const REVISION: u64 = 7;

/// Holds any value of a key to that, taken for each kind of record.
pub fn check(value: &[u8]) {
    if let Some(network) = read::<Network>("networks/n", value) {
        can_be_used(&network);
    }
    if let Some(block) = read::<BlockRecord>("blocks/n/10.0.0.0_29", value) {
        let mut others = block.exclusions.keys();
        assert!(others.all(|ip| {
            block
                .home(*ip)
                .is_none_or(|home| home == block.exclusions[ip].node)
        }));
        let dropped = block.last_dropped(REVISION);
        assert!(dropped <= REVISION || value.windows(7).any(|word| word == b"dropped"));
    }
    read::<Node>("nodes/docker01", value);
    read::<MacRecord>("blocks/n/02:11:22:33:44:55", value);
    read::<Lease>("leases/n/10.0.0.2", value);
    read::<LedgerRecord>("ledgers/n/docker01", value);
    read::<Acknowledgement>("acks/n/docker01", value);
}

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    path: &str,
    value: &[u8],
) -> Option<T> {
    let key = Key::new(format!("crosshost/v1/{path}")).expect("a key");
    let decoded = |value: &[u8]| {
        decode::<T>(&Entry {
            key: key.clone(),
            value: value.to_vec(),
            revision: REVISION,
        })
    };
    let first = match decoded(value) {
        Ok(first) => first,
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with(&format!("record {key}: ")), "{text}");
            // As it leaves a plugin and the operator's command.
            message::is_a_line(&cni::line(text));
            return None;
        }
    };
    assert_eq!(first.revision, REVISION);
    let written = encode(&first.record).expect("what was read can be written");
    let Versioned { record, .. } = decoded(&written).expect("what was written can be read");
    assert_eq!(record, first.record);
    assert_eq!(encode(&record).expect("written before"), written);

    let mut foreign: Value = serde_json::from_slice(&written).expect("JSON");
    let schema = foreign["schema"].as_u64().expect("a schema");
    // Zero was never written by anyone; so any answer is right.
    for other in [
        schema.into(),
        (schema + 1).into(),
        u32::MAX.into(),
        u64::MAX.into(),
        Value::Null,
        "1".into(),
    ] {
        let same = other == schema;
        foreign["schema"] = other;
        let refused = decoded(foreign.to_string().as_bytes()).is_err();
        assert_eq!(refused, !same, "schema {}", foreign["schema"]);
    }
    Some(record)
}

/// A network that came from the store was checked by whoever wrote it. Were it not, nothing may break but its own use.
fn can_be_used(network: &Network) {
    let agreed = NetworkSpec {
        name: network.name.clone(),
        ranges: network.ranges.clone(),
        ..NetworkSpec::default()
    };
    agreed.agree(network).expect("a network agrees with itself");
    for range in network.ranges.iter().flatten() {
        assert!(network.subnets().contains(&range.subnet));
        let ends: [IpAddr; 3] = [range.start(), range.end(), range.subnet.network()];
        for address in ends {
            let held = network.range_of(address);
            assert!(held.is_none_or(|range| range.may_hold(address)));
            if let Some(block) = network.block_of(range, address) {
                assert!(block.contains(address));
                assert!(
                    !range.offers(address) || range.uses(block),
                    "{range:?} {block}"
                );
            }
        }
    }
}
