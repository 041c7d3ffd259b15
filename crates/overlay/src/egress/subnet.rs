//! Which subnets the egress bridge has: none that this host already reaches otherwise.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use plugin::{Error, code};
use siphasher::sip::SipHasher13;

use super::Wanted;
use crate::state::host::Host;

/// Global ids that are tried.
const ATTEMPTS: u32 = 16;

/// The wanted subnet, or the first of Docker's customary ones, that nothing on this host and no network has.
pub(super) async fn choose(host: &Host, wanted: &Wanted) -> Result<Ipv4Network, Error> {
    let taken = taken(host).await?;
    let networks = [&wanted.beside[..], &wanted.others].concat();
    let overlapped = |subnet: IpNetwork, by: &[IpNetwork]| {
        let found = ipam::overlapping(&[subnet], by);
        found.map(|(_, other)| other)
    };
    if let Some(IpNetwork::V4(wanted)) = wanted.subnet {
        let refused = |why: String| {
            let why = format!("egress.subnet: {wanted}: {why}");
            Err(Error::new(code::DIFFERS, why))
        };
        return if let Some(other) = overlapped(wanted.into(), &taken) {
            refused(format!("this host has {other} already"))
        } else if let Some(other) = overlapped(wanted.into(), &networks) {
            refused(format!("a network has {other}"))
        } else {
            Ok(wanted)
        };
    }
    let taken = [taken, networks].concat();
    let free = |subnet: &Ipv4Network| overlapped((*subnet).into(), &taken).is_none();
    let none = || {
        let all = "172.18.0.0/16 to 172.31.0.0/16 and 192.168.0.0/20 to 192.168.240.0/20";
        let why = "is free on this host and of networks; name one";
        Error::config(format!("egress.subnet: none of {all} {why}"))
    };
    customary().find(free).ok_or_else(none)
}

/// The subnets that Docker gives its bridges by default, in its order.
fn customary() -> impl Iterator<Item = Ipv4Network> {
    let large = (18..32).map(|n| (Ipv4Addr::new(172, n, 0, 0), 16));
    let small = (0..16).map(|n| (Ipv4Addr::new(192, 168, n * 16, 0), 20));
    let all = large.chain(small);
    all.filter_map(|(address, length)| Ipv4Network::new(address, length).ok())
}

/// A unique local subnet (RFC 4193) that follows from the host and its node name, so that it is the same after a reboot.
pub(super) async fn choose_v6(host: &Host, wanted: &Wanted) -> Result<Ipv6Network, Error> {
    let taken = [&taken(host).await?[..], &wanted.beside, &wanted.others].concat();
    let machine = journal::clock::machine_id();
    let boot = journal::clock::boot_id();
    let identity = machine.or_else(|| boot.ok()).unwrap_or_default();
    let mut free = (0..ATTEMPTS)
        .filter_map(|attempt| unique_local(&identity, attempt))
        .filter(|subnet| ipam::overlapping(&[(*subnet).into()], &taken).is_none());
    let none = || Error::config("egress: no unique local subnet of IPv6 is free on this host");
    free.next().ok_or_else(none)
}

/// The subnet of a host at this attempt: its global id is a SipHash-1-3 with keys of zero, so that a host has the one that
/// versions up to commit 86dc1f2 gave it, which left the choice of the hash to Rust's standard library.
fn unique_local(identity: &str, attempt: u32) -> Option<Ipv6Network> {
    let mut hashed = identity.as_bytes().to_vec();
    hashed.push(0xff);
    hashed.extend(attempt.to_le_bytes());
    let global_id = u128::from(SipHasher13::new().hash(&hashed) >> 24);
    let bits = 0xfd << 120 | global_id << 80;
    Ipv6Network::new(Ipv6Addr::from_bits(bits), 64).ok()
}

/// What this host has a route to, but for everything, and its own addresses.
pub async fn taken(host: &Host) -> Result<Vec<IpNetwork>, Error> {
    let routes = host.rtnl.routes().await?;
    let addresses = host.rtnl.addresses(None).await?;
    let taken = routes.iter().map(|route| route.dst);
    let taken = taken.chain(addresses.iter().map(|(_, address)| *address));
    Ok(taken.filter(|network| network.prefix() > 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_its_subnet_over_versions() {
        // As commit 86dc1f2 gave them.
        for (identity, attempt, subnet) in [
            ("0123456789abcdef0123456789abcdef", 0, "fd7e:f041:714e::/64"),
            ("0123456789abcdef0123456789abcdef", 1, "fdbd:172a:8118::/64"),
            ("", 0, "fd5a:c398:e5ba::/64"),
        ] {
            assert_eq!(unique_local(identity, attempt), subnet.parse().ok());
        }
    }

    #[test]
    fn there_are_thirty_customary_subnets_that_do_not_overlap() {
        let all: Vec<_> = customary().map(IpNetwork::V4).collect();
        let spelled = [0, 13, 14, 29].map(|n: usize| all[n].to_string());
        let wanted = [
            "172.18.0.0/16",
            "172.31.0.0/16",
            "192.168.0.0/20",
            "192.168.240.0/20",
        ];
        assert_eq!(spelled, wanted);
        for (n, subnet) in all.iter().enumerate() {
            assert_eq!(ipam::overlapping(&[*subnet], &all[n + 1..]), None);
        }
    }
}
