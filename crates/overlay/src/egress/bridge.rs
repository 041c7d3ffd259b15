//! The host's interface on the egress bridge, and that the host forwards what comes by it.

use std::net::Ipv6Addr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use netlink::Sysctl;
use plugin::Error;

use super::{
    Ledger, desired,
    inside::{self, Inside},
};
use crate::{
    host_state::{self, Deviation, Observed, Space, deviations},
    names::EGRESS_BRIDGE,
    state::host::Host,
};

const FORWARD: Sysctl = Sysctl::new("ipv4/ip_forward");
const FORWARD6: Sysctl = Sysctl::new("ipv6/conf/all/forwarding");

/// A host that forwards asks for a neighbour from a link-local address, which must have passed duplicate address detection. So the
/// interface has this one beside the one that the kernel gives it a second or two later.
const LINK_LOCAL: Ipv6Network =
    match Ipv6Network::new_checked(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 64) {
        Some(network) => network,
        None => unreachable!(),
    };

/// Lets the host forward, with `v6` also IPv6.
pub(crate) async fn forward(host: &Host, v6: bool) -> Result<(), Error> {
    set(&FORWARD, "1")?;
    if v6 { forward_v6(host).await } else { Ok(()) }
}

/// How closely the bridge is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// As an ADD does: bridge, pair and addresses, by questions over sockets that are open.
    AtLinks,
    /// At all of it, with the ports of all containers.
    AtAll,
}

/// The bridge, and the host's interface with its addresses, each made or mended where it lacks, and forwarding. The caller
/// holds the egress lock.
pub(super) async fn ensure(host: &Host, ledger: &Ledger, look: Look) -> Result<Inside, Error> {
    forward(host, false).await?;
    let mut inside = Inside::open_or_make(host).await?;
    let outer = Space::of_host(host);
    let mut interface = desired::interface(addresses(ledger)?, ledger.subnet6.is_some());
    if look == Look::AtAll {
        interface.push(desired::neighbours(ledger));
    }
    let mut seen = Observed::of(&outer, &interface).await?;
    let made = inside.apply(host, ledger, look, &seen).await?;
    if made > 0 {
        seen.renew(&outer, &interface).await?;
    }
    inside.changes = made + host_state::apply(&outer, &interface, &mut seen).await?;
    if inside.changes > 0 && look == Look::AtLinks {
        // An interface that was made anew knows nobody.
        let neighbours = [desired::neighbours(ledger)];
        let mut known = Observed::of(&outer, &neighbours).await?;
        inside.changes += host_state::apply(&outer, &neighbours, &mut known).await?;
    }
    inside.outside = seen.link(EGRESS_BRIDGE).map_or(0, |link| link.index);
    if ledger.subnet6.is_some() {
        forward_v6(host).await?;
    }
    Ok(inside)
}

/// The addresses of the interface.
fn addresses(ledger: &Ledger) -> Result<Vec<IpNetwork>, Error> {
    let odd = |error: ipnetwork::IpNetworkError| Error::config(format!("egress.subnet: {error}"));
    let v4 = Ipv4Network::new(ledger.gateway(), ledger.subnet.prefix()).map_err(odd)?;
    let mut addresses = vec![IpNetwork::V4(v4)];
    if let (Some(subnet), Some(gateway)) = (ledger.subnet6, ledger.counterpart(ledger.gateway())) {
        let v6 = Ipv6Network::new(gateway, subnet.prefix()).map_err(odd)?;
        addresses.extend([IpNetwork::V6(v6), LINK_LOCAL.into()]);
    }
    Ok(addresses)
}

/// What of the interface and of the bridge is not as it should be, with these ports of containers. Touches nothing.
pub(super) async fn deviating(
    host: &Host,
    ledger: &Ledger,
    ports: &[String],
) -> Result<Vec<Deviation>, Error> {
    let mut interface = desired::interface(addresses(ledger)?, ledger.subnet6.is_some());
    interface.push(desired::neighbours(ledger));
    let seen = Observed::of(&Space::of_host(host), &interface).await?;
    let Some(inside) = Inside::open(host).await? else {
        let gone = "the egress bridge's namespace is gone".to_owned();
        return Ok(vec![Deviation::of(gone)]);
    };
    let mut found = inside.deviating(host, ledger, ports, &seen).await?;
    found.extend(deviations(&interface, &seen));
    Ok(found)
}

/// The settings that let the host forward, with `v6` also IPv6.
pub(crate) fn switches(v6: bool) -> impl Iterator<Item = Sysctl> {
    [Some(FORWARD), v6.then_some(FORWARD6)]
        .into_iter()
        .flatten()
}

/// The first of these that is off, if one is.
pub(super) fn switched_off(v6: bool) -> Result<Option<Sysctl>, Error> {
    for switch in switches(v6) {
        let value = switch.read()?;
        if value.as_deref() != Some("1") {
            return Ok(Some(switch));
        }
    }
    Ok(None)
}

/// Refuses where [`forward`] would fail: a switch is off, and cannot be turned. Changes nothing.
pub(crate) fn refuse_forwarding(v6: bool) -> Result<(), Error> {
    let Some(switch) = switched_off(v6)? else {
        return Ok(());
    };
    switch.check_writable().map_err(Error::from)
}

/// The addresses that the kernel has on the interface, as subnets: they tell what a lost document said.
pub(super) async fn subnets(
    host: &Host,
) -> Result<Option<(Ipv4Network, Option<Ipv6Network>)>, Error> {
    let Some(link) = inside::outside(host).await? else {
        return Ok(None);
    };
    let addresses = host.rtnl.addresses(Some(link.index)).await?;
    let v4 = addresses.iter().find_map(|(_, address)| match address {
        IpNetwork::V4(v4) => Ipv4Network::new(v4.network(), v4.prefix()).ok(),
        IpNetwork::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|(_, address)| match address {
        IpNetwork::V6(v6) if v6.ip().is_unique_local() => {
            Ipv6Network::new(v6.network(), v6.prefix()).ok()
        }
        _ => None,
    });
    Ok(v4.map(|v4| (v4, v6)))
}

/// Lets the host forward IPv6. A host that forwards no longer listens to routers, and forgets what they said, on each
/// interface that is not told to go on (`accept_ra` 2); one that got its default route from a router would lose it. So the
/// interfaces that hold a router's route are told to go on, each by itself. No other one: on an interface that others make
/// for their containers, now or later (`default`), a container could make itself the host's router.
///
/// The switch stays on after the last container, as others may rely on it by then, and so does what it makes necessary.
async fn forward_v6(host: &Host) -> Result<(), Error> {
    if FORWARD6.is("1") {
        return Ok(());
    }
    let advertised = host.rtnl.advertised().await?;
    let links = host.rtnl.links().await?;
    for link in links.iter().filter(|link| advertised.contains(&link.index)) {
        let listens = Sysctl::of_link("ipv6", &link.name, "accept_ra");
        if listens.is("1") {
            set(&listens, "2")?;
        }
    }
    set(&FORWARD6, "1")
}

fn set(sysctl: &Sysctl, value: &str) -> Result<(), Error> {
    sysctl.set(value).map(drop).map_err(Error::from)
}
