//! A range: the part of a subnet that may be given out, with the keys of `host-local`.
//!
//! A subnet has three kinds of addresses: those that the allocator offers, those that an attachment can only request, and those
//! that no attachment can have. `pool` and `size` cut a range into blocks, and `check` checks it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    RangeError,
    address::{nth, offset},
    check::{includes, usable},
};

/// The alternatives for one address of an attachment: it comes from the first range with a free one.
pub type RangeSet = Vec<Range>;

/// A subnet and the part of it that may be given out. As JSON it is an entry of `host-local`'s `ranges` with
/// `exclude` added; after [`Range::check`] the optional keys are filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The network, without host bits.
    pub subnet: IpNetwork,
    /// First address that may be given out; default: the first after the network address.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub range_start: Option<IpAddr>,
    /// Last address that may be given out; default: the last of the subnet, for v4 the one before broadcast.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub range_end: Option<IpAddr>,
    /// The gateway, never given out; default: the first address after the network address.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub gateway: Option<IpAddr>,
    /// Addresses never given out, as networks; a plain address is a network of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<IpNetwork>,
}

impl Range {
    /// A whole subnet with all defaults, checked.
    pub fn of(subnet: IpNetwork) -> Result<Self, RangeError> {
        Self {
            subnet,
            range_start: None,
            range_end: None,
            gateway: None,
            exclude: Vec::new(),
        }
        .check()
    }

    /// The range, of which only addresses in `part` are given out: Docker's `--ip-range`.
    #[must_use]
    pub fn narrowed(self, part: IpNetwork) -> Self {
        let (first, last) = usable(self.subnet);
        let (start, end) = (part.network(), part.broadcast());
        Self {
            range_start: Some(start.max(first)),
            range_end: Some(end.min(last)),
            ..self
        }
    }

    /// First address that may be given out.
    pub fn start(&self) -> IpAddr {
        self.range_start.unwrap_or_else(|| usable(self.subnet).0)
    }

    /// Last address that may be given out.
    pub fn end(&self) -> IpAddr {
        self.range_end.unwrap_or_else(|| usable(self.subnet).1)
    }

    /// Whether the allocator may choose `address`.
    pub fn offers(&self, address: IpAddr) -> bool {
        self.is_dynamic(address) && !self.is_kept(address)
    }

    /// Whether the allocator can choose no address: nothing is left beside the gateway and the exclusions.
    pub fn is_empty(&self) -> bool {
        self.spans().is_empty()
    }

    /// Whether an attachment can get `address` only on request: a usable address of the subnet outside `rangeStart` and
    /// `rangeEnd`. Not the network address (v6: the anycast address of the subnet's routers, RFC 4291 2.6.1), the v4 broadcast
    /// address, the gateway and the exclusions.
    pub fn is_static(&self, address: IpAddr) -> bool {
        let (first, last) = usable(self.subnet);
        between(first, address, last) && !self.is_dynamic(address) && !self.is_kept(address)
    }

    /// Whether an attachment may hold `address`, chosen or requested.
    pub fn may_hold(&self, address: IpAddr) -> bool {
        self.offers(address) || self.is_static(address)
    }

    /// Why no attachment can have `address`, for a message; `None` if the address is outside the subnet or can be had.
    pub fn bars(&self, address: IpAddr) -> Option<String> {
        let (first, last) = usable(self.subnet);
        let excluded = |network: &&IpNetwork| network.contains(address);
        if !self.subnet.contains(address) {
            None
        } else if self.gateway == Some(address) {
            Some(format!("the gateway of {}", self.subnet))
        } else if let Some(network) = self.exclude.iter().find(excluded) {
            Some(format!("excluded by {network}"))
        } else if between(first, address, last) {
            None
        } else {
            Some(format!(
                "the network or broadcast address of {}",
                self.subnet
            ))
        }
    }

    /// Whether this range lies inside `other`: its subnet inside the other's, and start and end inside the other's. Gateways
    /// and exclusions are not compared: what may be given out is what both offer.
    pub fn within(&self, other: &Self) -> bool {
        includes(other.subnet, self.subnet)
            && between(other.start(), self.start(), other.end())
            && between(other.start(), self.end(), other.end())
    }

    /// Whether the two have an address in common, from start to end.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        other.is_dynamic(self.start()) || self.is_dynamic(other.start())
    }

    /// Whether `address` lies from start to end, even if it is the gateway or excluded.
    fn is_dynamic(&self, address: IpAddr) -> bool {
        between(self.start(), address, self.end())
    }

    /// The gateway, or excluded.
    fn is_kept(&self, address: IpAddr) -> bool {
        let excluded = |network: &IpNetwork| network.contains(address);
        self.gateway == Some(address) || self.exclude.iter().any(excluded)
    }
}

/// Reads an address as the reference does: an empty text, which templates leave, counts as absent.
pub(crate) fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(from)? {
        Some(text) if !text.is_empty() => text.parse().map(Some).map_err(D::Error::custom),
        _ => Ok(None),
    }
}

/// The address with the same host part in another subnet: for `10.0.1.7` in `10.0.0.0/16` it is `fd00::107` in `fd00::/64`.
/// `None` if `of` is not in `from`'s subnet or `to`'s subnet is too small. [`Range::may_hold`] tells whether `to` may give it
/// out.
pub fn twin(of: IpAddr, from: &Range, to: &Range) -> Option<IpAddr> {
    if !from.subnet.contains(of) {
        return None;
    }
    let place = offset(from.subnet.network(), of)?;
    nth(to.subnet.network(), place).filter(|twin| to.subnet.contains(*twin))
}

/// Whether `address` lies from `low` to `high`, both included; never if families differ.
fn between(low: IpAddr, address: IpAddr, high: IpAddr) -> bool {
    offset(low, address).is_some() && offset(address, high).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, start: Option<&str>, end: Option<&str>, exclude: &[&str]) -> Range {
        Range {
            subnet: subnet.parse().unwrap(),
            range_start: start.map(|a| a.parse().unwrap()),
            range_end: end.map(|a| a.parse().unwrap()),
            gateway: None,
            exclude: exclude.iter().map(|e| e.parse().unwrap()).collect(),
        }
        .check()
        .unwrap()
    }

    #[test]
    fn an_address_is_offered_or_static_or_neither() {
        let v4 = range(
            "10.0.0.0/24",
            Some("10.0.0.16"),
            Some("10.0.0.31"),
            &["10.0.0.20", "10.0.0.240/29"],
        );
        let v6 = range("fd00::/64", Some("fd00::10"), None, &["fd00::8:0/112"]);
        for (range, address, offered, asked_for) in [
            (&v4, "10.0.0.0", false, false),
            (&v4, "10.0.0.1", false, false),
            (&v4, "10.0.0.2", false, true),
            (&v4, "10.0.0.15", false, true),
            (&v4, "10.0.0.16", true, false),
            (&v4, "10.0.0.20", false, false),
            (&v4, "10.0.0.31", true, false),
            (&v4, "10.0.0.32", false, true),
            (&v4, "10.0.0.241", false, false),
            (&v4, "10.0.0.254", false, true),
            (&v4, "10.0.0.255", false, false),
            (&v4, "10.0.1.2", false, false),
            (&v4, "fd00::2", false, false),
            (&v6, "fd00::", false, false),
            (&v6, "fd00::1", false, false),
            (&v6, "fd00::f", false, true),
            (&v6, "fd00::10", true, false),
            (&v6, "fd00::8:9", false, false),
            (&v6, "fd00::ffff:ffff:ffff:ffff", true, false),
            (&v6, "fd00:0:0:1::", false, false),
        ] {
            let a = address.parse().unwrap();
            assert_eq!(
                (range.offers(a), range.is_static(a)),
                (offered, asked_for),
                "{address}"
            );
            assert_eq!(range.may_hold(a), offered || asked_for, "{address}");
            let barred = range.subnet.contains(a) && !range.may_hold(a);
            assert_eq!(range.bars(a).is_some(), barred, "{address}");
        }
    }

    #[test]
    fn a_range_within_another_leaves_it_at_neither_end() {
        let pool = range("10.0.0.0/24", Some("10.0.0.16"), Some("10.0.0.200"), &[]);
        for (subnet, start, end, within) in [
            ("10.0.0.0/24", Some("10.0.0.16"), Some("10.0.0.200"), true),
            ("10.0.0.0/24", Some("10.0.0.20"), Some("10.0.0.20"), true),
            ("10.0.0.0/24", None, Some("10.0.0.200"), false),
            ("10.0.0.0/24", Some("10.0.0.16"), None, false),
            ("10.0.0.64/26", None, None, true),
            ("10.0.0.0/26", None, None, false),
            ("10.0.0.192/26", None, None, false),
            ("10.0.0.0/23", Some("10.0.0.20"), Some("10.0.0.30"), false),
            ("10.0.1.0/24", None, None, false),
            ("fd00::/120", None, None, false),
        ] {
            let asked = range(subnet, start, end, &[]);
            assert_eq!(asked.within(&pool), within, "{subnet} {start:?} {end:?}");
        }
    }

    #[test]
    fn twins_have_the_same_host_part() {
        let v4 = range("10.0.0.0/16", None, None, &[]);
        let twin_in = |of: &str, subnet: &str| {
            let to = range(subnet, None, None, &[]);
            twin(of.parse().unwrap(), &v4, &to).map(|a| a.to_string())
        };
        assert_eq!(twin_in("10.0.1.7", "fd00::/64").unwrap(), "fd00::107");
        assert_eq!(twin_in("10.0.1.7", "10.9.0.0/23").unwrap(), "10.9.1.7");
        assert_eq!(twin_in("10.0.1.7", "10.9.0.0/24"), None, "too small");
        assert_eq!(twin_in("10.1.0.7", "fd00::/64"), None, "not of the pool");
        assert_eq!(twin_in("fd00::7", "fd00::/64"), None, "of the other family");
    }
}
