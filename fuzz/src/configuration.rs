//! The configuration on standard input: what is refused names a key; what is accepted is sound, and means the same when it is
//! written in our own words.

use std::net::IpAddr;

use cni::Version;
use ipam::{Range, RangeSet};
use ipam_kv::config::Conf;
use serde_json::Value;

use super::{call, message, normal};

/// log2 of the addresses of the largest block, and of the number of blocks of the largest v4 pool (`ipam::size`).
const MOST: (u8, u8) = (12, 24);

/// Holds any bytes to that.
pub fn check(stdin: &[u8]) {
    if names_a_file(stdin) {
        return;
    }
    let (call, conf) = match call::read("ADD", "", stdin) {
        Ok(read) => read,
        Err(error) => return message::names_a_key(&error),
    };
    is_sound(&conf);
    // What was attached can be detached, and looked at where the version knows how.
    let detached = call::read("DEL", "", stdin).expect("accepted by ADD");
    assert_eq!(normal::text(&detached.1), normal::text(&conf));
    assert_eq!(
        call::call("CHECK", "", stdin).is_ok(),
        call.conf.version >= Version::V0_4_0
    );

    let ours = normal::configuration(&call, &conf);
    for ours in [ours.clone(), normal::in_capitals(&ours)] {
        let (_, again) = call::read("ADD", "", ours.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{ours}: {error}"));
        assert_eq!(normal::text(&again), normal::text(&conf), "{ours}");
    }
}

/// Whether a resolver file is to be read: any file of this machine.
fn names_a_file(stdin: &[u8]) -> bool {
    fn find(value: &Value) -> bool {
        match value {
            Value::Object(map) => map
                .iter()
                .any(|(key, value)| key.eq_ignore_ascii_case("resolvConf") || find(value)),
            _ => false,
        }
    }
    serde_json::from_slice(stdin).is_ok_and(|value| find(&value))
}

/// What the rest of the product takes for granted of a checked configuration.
fn is_sound(conf: &Conf) {
    let sets = &conf.spec.ranges;
    for (n, set) in sets.iter().enumerate() {
        let subnets = |set: &RangeSet| set.iter().map(|range| range.subnet).collect::<Vec<_>>();
        for earlier in &sets[..n] {
            assert_eq!(ipam::overlapping(&subnets(earlier), &subnets(set)), None);
        }
        assert!(!set.is_empty());
        for (m, range) in set.iter().enumerate() {
            assert_eq!(range.subnet.is_ipv4(), set[0].subnet.is_ipv4());
            is_sound_range(range);
            for earlier in &set[..m] {
                assert!(!meet(earlier, range), "{earlier:?} {range:?}");
            }
        }
    }
    have_equal_blocks(sets, conf.spec.block_prefix);
    let mut pools = sets.iter().flatten();
    for range in conf.narrow.iter().flatten() {
        is_sound_range(range);
        assert!(
            pools.any(|pool| range.within(pool)),
            "{range:?} is in no pool"
        );
        pools = sets.iter().flatten();
    }
    assert!(
        conf.requested.is_sorted_by(|one, next| one < next),
        "{:?}",
        conf.requested
    );
    assert!(
        conf.requested.iter().all(|ip| ip.to_canonical() == *ip),
        "{:?}",
        conf.requested
    );
    assert!(conf.spec.reclaim_after.is_none_or(|seconds| seconds >= 10));
    assert!(conf.spec.segment || conf.spec.vni.is_none());
    assert!(conf.spec.vni.is_none_or(|vni| (1..1 << 24).contains(&vni)));
    assert!(
        conf.spec
            .mtu
            .is_none_or(|mtu| (576..=65_535).contains(&mtu))
    );
}

/// A range lies in its subnet, filled in, and gives out nothing that is somebody's already.
fn is_sound_range(range: &Range) {
    let subnet = range.subnet;
    assert!(
        ipam::is_network(subnet) && ipam::host_bits(subnet) >= 2,
        "{range:?}"
    );
    let (start, end) = (
        range.range_start.expect("filled in"),
        range.range_end.expect("filled in"),
    );
    let gateway = range.gateway.expect("filled in");
    assert!(
        [start, end, gateway].iter().all(|ip| subnet.contains(*ip)),
        "{range:?}"
    );
    assert!(start <= end, "{range:?}");
    let is_inside = |one: &ipnetwork::IpNetwork| {
        subnet.contains(one.network()) && subnet.contains(one.broadcast())
    };
    assert!(range.exclude.iter().all(is_inside), "{range:?}");
    assert!(range.exclude.is_sorted(), "{range:?}");

    let mut reserved: Vec<IpAddr> = vec![subnet.network(), gateway];
    reserved.extend(subnet.is_ipv4().then(|| subnet.broadcast()));
    reserved.extend(
        range
            .exclude
            .iter()
            .flat_map(|one| [one.network(), one.broadcast()]),
    );
    assert!(
        !reserved.into_iter().any(|ip| range.may_hold(ip)),
        "{range:?}"
    );
    assert_eq!(range.clone().check().as_ref(), Ok(range), "checked again");
    let record = serde_json::to_string(range).expect("a record");
    assert_eq!(
        serde_json::from_str::<Range>(&record).as_ref().ok(),
        Some(range),
        "{record}"
    );
}

/// Whether both have an address in common.
fn meet(one: &Range, other: &Range) -> bool {
    one.start().max(other.start()) <= one.end().min(other.end())
}

/// All pools of a network are cut into blocks of as many addresses, none too large and none cut too small.
fn have_equal_blocks(sets: &[RangeSet], asked: Option<u8>) {
    let bits = |range: &Range| {
        let width = if range.subnet.is_ipv4() { 32 } else { 128 };
        let prefix = ipam::block_prefix(sets, asked, range);
        assert!(
            (range.subnet.prefix()..=width).contains(&prefix),
            "{prefix}: {range:?}"
        );
        let (host, block) = (ipam::host_bits(range.subnet), width - prefix);
        assert!(
            block <= MOST.0 && (width == 128 || host - block <= MOST.1),
            "{prefix}: {range:?}"
        );
        block
    };
    let all: Vec<u8> = sets.iter().flatten().map(bits).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
}
