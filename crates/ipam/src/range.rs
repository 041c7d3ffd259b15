//! A range: the part of a subnet that may be given out, in `host-local`'s words, and which addresses that are.
//!
//! There are three kinds of addresses in a subnet: those that the allocator offers, those that somebody may ask for by
//! name though the allocator never chooses them, and those that no attachment can have. How a range is cut into blocks
//! is `pool`'s and `size`'s business, what a range refuses `check`'s.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    RangeError,
    address::{nth, offset},
    check::{includes, usable},
};

/// The alternatives for one address of an attachment: the first range with room gives it.
pub type RangeSet = Vec<Range>;

/// A subnet and the part of it that may be given out. As JSON it is an entry of `host-local`'s `ranges` with
/// `exclude` added; after [`Range::check`] the optional keys are filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The network, without host bits.
    pub subnet: IpNetwork,
    /// First address that may be given out; default: the first after the network address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    /// Last address that may be given out; default: the last of the subnet, for v4 the one before broadcast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
    /// The gateway, never given out; default: the first address after the network address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

    /// First address that may be given out.
    pub fn start(&self) -> IpAddr {
        self.range_start.unwrap_or_else(|| usable(self.subnet).0)
    }

    /// Last address that may be given out.
    pub fn end(&self) -> IpAddr {
        self.range_end.unwrap_or_else(|| usable(self.subnet).1)
    }

    /// Whether an attachment may hold `address` by the choice of the allocator.
    pub fn offers(&self, address: IpAddr) -> bool {
        self.is_dynamic(address) && !self.is_kept(address)
    }

    /// Whether an attachment may hold `address` only by asking for it: a usable address of the subnet that
    /// `rangeStart` and `rangeEnd` leave out. Not so the network address (v6: the anycast address of the subnet's
    /// routers, RFC 4291 2.6.1), the v4 broadcast address, the gateway, and what is excluded.
    pub fn is_static(&self, address: IpAddr) -> bool {
        let (first, last) = usable(self.subnet);
        between(first, address, last) && !self.is_dynamic(address) && !self.is_kept(address)
    }

    /// Whether an attachment may hold `address` at all, chosen or asked for.
    pub fn may_hold(&self, address: IpAddr) -> bool {
        self.offers(address) || self.is_static(address)
    }

    /// Whether this range asks for no more than `other` has: the same subnet or one inside it, and start and end
    /// inside the other's. Gateways and exclusions are not compared: what may be given out is what both offer.
    pub fn within(&self, other: &Self) -> bool {
        includes(other.subnet, self.subnet)
            && between(other.start(), self.start(), other.end())
            && between(other.start(), self.end(), other.end())
    }

    /// From start to end, whoever has it.
    fn is_dynamic(&self, address: IpAddr) -> bool {
        between(self.start(), address, self.end())
    }

    /// The gateway, or excluded.
    fn is_kept(&self, address: IpAddr) -> bool {
        let excluded = |network: &IpNetwork| network.contains(address);
        self.gateway == Some(address) || self.exclude.iter().any(excluded)
    }
}

/// The address of `to`'s subnet that lies as far from its network address as `of` does in `from`'s: of
/// `10.0.1.7` in `10.0.0.0/16` it is `fd00::107` in `fd00::/64`. `None` if `of` is not in `from`'s subnet or
/// `to`'s subnet is too small. Whether `to` may give it out is another question ([`Range::may_hold`]).
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
