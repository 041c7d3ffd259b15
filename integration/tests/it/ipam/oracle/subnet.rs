//! Subnets and their addresses as numbers, apart from our own crates: what is right is not asked of what is tested.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as the plugins' JSON or a result spells it, with or without a length.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let text = text.split('/').next().unwrap_or_default();
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// An address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Subnet {
    pub(crate) v4: bool,
    pub(crate) base: u128,
    pub(crate) prefix: u32,
}

impl Subnet {
    /// What a text says; none if it is no subnet.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let (ip, prefix) = text.split_once('/')?;
        let ip: IpAddr = ip.parse().ok()?;
        let (v4, base, prefix) = (ip.is_ipv4(), number(ip), prefix.parse().ok()?);
        let width = if v4 { 32 } else { 128 };
        (prefix <= width).then_some(Self { v4, base, prefix })
    }

    /// Number of its addresses; of `::/0` one less.
    pub(crate) fn size(self) -> u128 {
        let bits = if self.v4 { 32 } else { 128 } - self.prefix;
        1u128.checked_shl(bits).unwrap_or(u128::MAX)
    }

    /// Its `n`th address, the network address being number 0.
    pub(crate) fn at(self, n: u128) -> IpAddr {
        let number = self.base.wrapping_add(n);
        if self.v4 {
            Ipv4Addr::from(u32::try_from(number & 0xffff_ffff).unwrap_or_default()).into()
        } else {
            Ipv6Addr::from(number).into()
        }
    }

    /// Which of its addresses this is.
    pub(crate) fn offset(self, address: IpAddr) -> Option<u128> {
        let offset = number(address).checked_sub(self.base)?;
        (address.is_ipv4() == self.v4 && offset < self.size()).then_some(offset)
    }

    /// Whether the address is its network address or (v4) its broadcast address.
    pub(crate) fn is_edge(self, address: IpAddr) -> bool {
        match self.offset(address) {
            Some(0) => true,
            Some(n) => self.v4 && n == self.size() - 1,
            None => false,
        }
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        self.offset(other.at(0)).is_some() || other.offset(self.at(0)).is_some()
    }

    pub(crate) fn text(self) -> String {
        format!("{}/{}", self.at(0), self.prefix)
    }
}
