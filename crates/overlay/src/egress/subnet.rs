//! Which subnets the egress bridge has: none that this host already reaches otherwise.

use std::net::{Ipv4Addr, Ipv6Addr};

use cni::Error;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use siphasher::sip::SipHasher13;

use crate::{code, host::Host, kernel};

/// Global ids that are tried.
const ATTEMPTS: u32 = 16;

/// The wanted subnet, or the first of Docker's customary ones that nothing on this host is on the way to.
pub(super) async fn choose(host: &Host, wanted: Option<IpNetwork>) -> Result<Ipv4Network, Error> {
    let taken = taken(host).await?;
    let overlapped = |subnet: IpNetwork| ipam::overlapping(&[subnet], &taken);
    if let Some(IpNetwork::V4(wanted)) = wanted {
        return match overlapped(wanted.into()) {
            None => Ok(wanted),
            Some((_, other)) => Err(Error::new(
                code::DIFFERS,
                format!("egress.subnet: {wanted}: this host has {other} already"),
            )),
        };
    }
    let customary =
        (18..32u8).filter_map(|n| Ipv4Network::new(Ipv4Addr::new(172, n, 0, 0), 16).ok());
    let mut free = customary.filter(|subnet| overlapped((*subnet).into()).is_none());
    let none = || {
        Error::config(
            "egress.subnet: none of 172.18.0.0/16 to 172.31.0.0/16 is free on this host; name one",
        )
    };
    free.next().ok_or_else(none)
}

/// A unique local subnet (RFC 4193) that follows from the host and its node name, so that it is the same after a reboot.
pub(super) async fn choose_v6(host: &Host) -> Result<Ipv6Network, Error> {
    let taken = taken(host).await?;
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
pub(crate) async fn taken(host: &Host) -> Result<Vec<IpNetwork>, Error> {
    let routes = host.rtnl.routes().await.map_err(|error| kernel(&error))?;
    let addresses = host.rtnl.addresses(None).await;
    let addresses = addresses.map_err(|error| kernel(&error))?;
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
}
