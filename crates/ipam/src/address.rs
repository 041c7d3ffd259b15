//! Address arithmetic over both families at once: an address is its family and a 128-bit number.
//!
//! Nothing here iterates over addresses, so a /64 costs as much as a /24.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// The address as a number; IPv4 fills the low 32 bits.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The number as an address of the family of `like`; `None` past the family's last address.
pub(crate) fn address(like: IpAddr, number: u128) -> Option<IpAddr> {
    match like {
        IpAddr::V4(_) => u32::try_from(number).ok().map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(_) => Some(Ipv6Addr::from(number).into()),
    }
}

/// Bits of an address of this family: 32 or 128.
pub(crate) fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Number of bits below the prefix: 8 for a v4 /24, 64 for a v6 /64.
pub fn host_bits(network: IpNetwork) -> u8 {
    width(network.ip()) - network.prefix()
}

/// Whether no bit below the prefix is set, as in `10.0.0.0/24` and unlike `10.0.0.5/24`.
pub fn is_network(network: IpNetwork) -> bool {
    network.ip() == network.network()
}

/// The `n`th address after `base`, or `None` past the end of the family.
pub fn nth(base: IpAddr, n: u128) -> Option<IpAddr> {
    address(base, number(base).checked_add(n)?)
}

/// How far `address` lies above `base`; `None` if below or of the other family.
pub fn offset(base: IpAddr, address: IpAddr) -> Option<u128> {
    if base.is_ipv4() != address.is_ipv4() {
        return None;
    }
    number(address).checked_sub(number(base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arithmetic_stops_at_the_end_of_a_family() {
        assert_eq!(nth("255.255.255.255".parse().unwrap(), 1), None);
        assert_eq!(nth(Ipv6Addr::from(u128::MAX).into(), 1), None);
        assert_eq!(
            offset("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()),
            None
        );
        assert_eq!(
            offset("10.0.0.2".parse().unwrap(), "::2".parse().unwrap()),
            None
        );
    }

    proptest! {
        #[test]
        fn offset_undoes_nth(base: IpAddr, n in 0u128..1 << 40) {
            if let Some(there) = nth(base, n) {
                prop_assert_eq!(offset(base, there), Some(n));
            }
        }
    }
}
