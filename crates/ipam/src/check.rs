//! Checks a range and fills in its defaults. Both are those of the reference plugin, so a configuration written for
//! `host-local` means the same here.
//!
//! The default gateway is the first address. The network address, the IPv4 broadcast address and the gateway are never given
//! out. A /31 or /32 is too small.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{
    Range,
    address::{host_bits, is_network, nth, offset},
    reserved::not_for_hosts,
};

/// Why a range cannot be used; the text names key and value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {value}: {why}")]
pub struct RangeError {
    key: String,
    value: String,
    why: String,
}

impl RangeError {
    pub(crate) fn new(key: &str, value: &impl ToString, why: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            value: value.to_string(),
            why: why.into(),
        }
    }

    /// The same error with its key below `path`.
    pub(crate) fn below(self, path: &str) -> Self {
        Self {
            key: format!("{path}.{}", self.key),
            ..self
        }
    }
}

impl Range {
    /// The range with its defaults filled in and its exclusions in order, or why it is refused.
    pub fn check(self) -> Result<Self, RangeError> {
        let subnet = self.subnet;
        if !is_network(subnet) {
            let network = format!("{}/{}", subnet.network(), subnet.prefix());
            let why = format!("has host bits set; the network is {network}");
            return Err(RangeError::new("subnet", &subnet, why));
        }
        if host_bits(subnet) < 2 {
            let why = "too small: no address is left besides network, gateway and broadcast";
            return Err(RangeError::new("subnet", &subnet, why));
        }
        if let Some(why) = not_for_hosts(subnet) {
            return Err(RangeError::new("subnet", &subnet, why));
        }
        let (first, last) = usable(subnet);
        let inside = |key, address: IpAddr| {
            let address = address.to_canonical();
            let why = || format!("not a usable address of subnet {subnet}");
            offset(first, address)
                .zip(offset(address, last))
                .map(|_| address)
                .ok_or_else(|| RangeError::new(key, &address, why()))
        };
        let start = self
            .range_start
            .map_or(Ok(first), |a| inside("rangeStart", a))?;
        let end = self.range_end.map_or(Ok(last), |a| inside("rangeEnd", a))?;
        if offset(start, end).is_none() {
            let why = format!("lies before rangeStart {start}");
            return Err(RangeError::new("rangeEnd", &end, why));
        }
        let gateway = self.gateway.map_or(first, |gateway| gateway.to_canonical());
        // The reference accepts any gateway, but one outside the subnet could not be reached.
        if !subnet.contains(gateway) {
            let why = format!("not in subnet {subnet}");
            return Err(RangeError::new("gateway", &gateway, why));
        }
        Ok(Self {
            subnet,
            range_start: Some(start),
            range_end: Some(end),
            gateway: Some(gateway),
            exclude: exclusions(subnet, self.exclude)?,
        })
    }
}

/// The exclusions of a subnet in a canonical form, so that two configurations with the same meaning compare equal: without host
/// bits (an example of whereabouts has some), in order, none inside another.
fn exclusions(subnet: IpNetwork, given: Vec<IpNetwork>) -> Result<Vec<IpNetwork>, RangeError> {
    let mut exclude = Vec::with_capacity(given.len());
    for entry in given {
        if !includes(subnet, entry) {
            let why = format!("not inside subnet {subnet}");
            return Err(RangeError::new("exclude", &entry, why));
        }
        exclude.push(IpNetwork::new(entry.network(), entry.prefix()).unwrap_or(entry));
    }
    // Two networks are nested or disjoint, so those inside another one follow it.
    exclude.sort_unstable();
    exclude.dedup_by(|next, kept| includes(*kept, *next));
    Ok(exclude)
}

/// First and last usable address: all but the network address and the IPv4 broadcast address.
pub(crate) fn usable(subnet: IpNetwork) -> (IpAddr, IpAddr) {
    let network = subnet.network();
    let most = 1u128
        .checked_shl(u32::from(host_bits(subnet)))
        .map_or(u128::MAX, |n| n - 1);
    let broadcast = u128::from(subnet.is_ipv4() && most > 0);
    let at = |n| nth(network, n).unwrap_or(network);
    (at(1), at(most - broadcast))
}

/// Whether `inner` is the network `outer` or a part of it.
pub(crate) fn includes(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// The first pair of subnets of which one contains the other's start, if any.
pub fn overlapping(ours: &[IpNetwork], theirs: &[IpNetwork]) -> Option<(IpNetwork, IpNetwork)> {
    let meet = |a: &IpNetwork, b: &IpNetwork| a.contains(b.network()) || b.contains(a.network());
    ours.iter()
        .find_map(|a| theirs.iter().find(|b| meet(a, b)).map(|b| (*a, *b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(json: [Option<&str>; 4], exclude: &[&str]) -> Result<Range, RangeError> {
        let [subnet, start, end, gateway] = json;
        let address = |text: Option<&str>| text.map(|t| t.parse().unwrap());
        let subnet = subnet.unwrap().parse().unwrap();
        Range {
            subnet,
            range_start: address(start),
            range_end: address(end),
            gateway: address(gateway),
            exclude: exclude.iter().map(|e| e.parse().unwrap()).collect(),
        }
        .check()
    }

    #[test]
    fn defaults_are_the_references() {
        let v4 = range([Some("10.0.0.0/24"), None, None, None], &[]).unwrap();
        assert_eq!(
            (v4.start().to_string(), v4.end().to_string()),
            ("10.0.0.1".into(), "10.0.0.254".into())
        );
        assert_eq!(v4.gateway.unwrap().to_string(), "10.0.0.1");
        let v6 = range([Some("fd00::/64"), None, None, None], &[]).unwrap();
        assert_eq!(
            (v6.start().to_string(), v6.end().to_string()),
            ("fd00::1".into(), "fd00::ffff:ffff:ffff:ffff".into())
        );
    }

    #[test]
    fn refusals_name_key_and_value() {
        let subnet = Some("10.0.0.0/24");
        for (given, key, value) in [
            (
                [Some("10.0.0.5/24"), None, None, None],
                "subnet",
                "10.0.0.5/24",
            ),
            (
                [Some("10.0.0.0/31"), None, None, None],
                "subnet",
                "10.0.0.0/31",
            ),
            (
                [Some("fd00::/127"), None, None, None],
                "subnet",
                "fd00::/127",
            ),
            (
                [subnet, Some("10.0.1.5"), None, None],
                "rangeStart",
                "10.0.1.5",
            ),
            (
                [subnet, None, Some("10.0.0.255"), None],
                "rangeEnd",
                "10.0.0.255",
            ),
            (
                [subnet, Some("10.0.0.9"), Some("10.0.0.8"), None],
                "rangeEnd",
                "10.0.0.8",
            ),
            (
                [subnet, None, None, Some("10.9.0.1")],
                "gateway",
                "10.9.0.1",
            ),
            (
                [subnet, Some("fd00::1"), None, None],
                "rangeStart",
                "fd00::1",
            ),
        ] {
            let message = range(given, &[]).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("{key}: {value}:")),
                "{message}"
            );
        }
    }

    #[test]
    fn an_exclusion_that_is_not_inside_the_subnet_is_refused() {
        for (entry, value) in [
            ("10.0.1.0/28", "10.0.1.0/28"),
            ("10.0.0.0/23", "10.0.0.0/23"),
            ("10.0.1.7", "10.0.1.7/32"),
            ("fd00::/120", "fd00::/120"),
        ] {
            let given = range(
                [Some("10.0.0.0/24"), None, None, None],
                &["10.0.0.9", entry],
            );
            let message = given.unwrap_err().to_string();
            let wanted = format!("exclude: {value}: not inside subnet 10.0.0.0/24");
            assert_eq!(message, wanted);
        }
    }

    #[test]
    fn exclusions_have_one_spelling() {
        let given = [
            "10.0.0.7",
            "10.0.0.66/26",
            "10.0.0.6",
            "10.0.0.64/28",
            "10.0.0.7/32",
        ];
        let range = range([Some("10.0.0.0/24"), None, None, None], &given).unwrap();
        let spelled: Vec<_> = range.exclude.iter().map(ToString::to_string).collect();
        assert_eq!(spelled, ["10.0.0.6/32", "10.0.0.7/32", "10.0.0.64/26"]);
    }

    #[test]
    fn overlap_is_found_in_both_directions() {
        let net = |text: &str| vec![text.parse().unwrap()];
        assert!(overlapping(&net("10.0.0.0/16"), &net("10.0.5.0/24")).is_some());
        assert!(overlapping(&net("10.0.5.0/24"), &net("10.0.0.0/16")).is_some());
        assert!(overlapping(&net("10.0.5.0/24"), &net("10.0.6.0/24")).is_none());
    }
}
