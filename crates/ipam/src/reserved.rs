//! Addresses that the protocols reserve. A pool with such addresses would be accepted here and fail later, in the kernel or on
//! the wire, where nobody would suspect the subnet.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::overlapping;

/// Why no host can have an address of the subnet; `None` if hosts can.
pub(crate) fn not_for_hosts(subnet: IpNetwork) -> Option<&'static str> {
    if subnet.prefix() == 0 {
        return Some("the whole address space; want a part of it");
    }
    // Special-purpose addresses: RFC 1122 3.2.1.3, RFC 5771, RFC 4291 2.5.3, 2.5.5.2 and 2.7.
    let reserved = [
        ([127, 0, 0, 0].into(), 8, "has loopback addresses"),
        ([224, 0, 0, 0].into(), 4, "has multicast addresses"),
        (Ipv6Addr::LOCALHOST.into(), 128, "has the loopback address"),
        (
            [0, 0, 0, 0, 0, 0xffff, 0, 0].into(),
            96,
            "has IPv4 addresses in IPv6 spelling",
        ),
        (
            [0xff00, 0, 0, 0, 0, 0, 0, 0].into(),
            8,
            "has multicast addresses",
        ),
    ];
    let meets = |(address, prefix): (IpAddr, u8)| {
        let reserved = IpNetwork::new(address, prefix).ok();
        reserved.is_some_and(|reserved| overlapping(&[subnet], &[reserved]).is_some())
    };
    reserved
        .into_iter()
        .find_map(|(address, prefix, why)| meets((address, prefix)).then_some(why))
}

#[cfg(test)]
mod tests {
    use crate::Range;

    #[test]
    fn subnets_of_which_no_host_can_have_an_address_are_refused_with_the_reason() {
        for (subnet, reason) in [
            ("0.0.0.0/0", "whole address space"),
            ("::/0", "whole address space"),
            ("127.0.0.0/8", "loopback"),
            ("127.1.2.0/24", "loopback"),
            ("126.0.0.0/7", "loopback"),
            ("224.0.0.0/4", "multicast"),
            ("239.1.0.0/16", "multicast"),
            ("ff00::/8", "multicast"),
            ("ff05::/64", "multicast"),
            ("::/64", "loopback"),
            ("::ffff:10.0.0.0/120", "IPv6 spelling"),
        ] {
            let message = Range::of(subnet.parse().unwrap()).unwrap_err();
            let message = message.to_string();
            assert!(
                message.starts_with(&format!("subnet: {subnet}: ")) && message.contains(reason),
                "{message}"
            );
        }
        for subnet in ["10.0.0.0/8", "128.0.0.0/8", "223.0.0.0/8", "fd00::/8"] {
            assert!(Range::of(subnet.parse().unwrap()).is_ok(), "{subnet}");
        }
    }
}
