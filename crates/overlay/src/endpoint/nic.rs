//! The container's side of an attachment: its NIC, addresses and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::{CniResult, Interface, Ip};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use journal::Attachment;
use netlink::{LinkChange, Mac, Netns, Rtnl, Sysctl, Veth, VethEnd};
use plugin::Error;

use crate::{
    egress::Nic,
    names::{self, EGRESS_NIC},
    segment::{forwarding::mac_of, sandbox::Sandbox},
    vanished,
};

/// The destinations of the default routes.
const EVERYWHERE: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0) {
    Some(network) => network,
    None => unreachable!(),
};
const EVERYWHERE6: Ipv6Network = match Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 0) {
    Some(network) => network,
    None => unreachable!(),
};

/// The kernel's number of the scope of what is on a link (`RT_SCOPE_LINK`).
const LINK_SCOPE: u8 = 253;

/// Makes the veth pair between sandbox and container; the container's end stays down until it has its addresses.
pub(crate) async fn plug(
    sandbox: &Sandbox,
    attachment: &Attachment,
    mtu: u32,
    container: &Netns,
) -> Result<(), Error> {
    let group = names::group(attachment);
    let peer = VethEnd {
        name: attachment.ifname.clone(),
        mac: None,
        mtu,
        group,
        up: false,
    };
    let name = names::port(attachment);
    let veth = Veth {
        name,
        index: Some(names::port_index(attachment)),
        mac: None,
        mtu: sandbox.mtu,
        master: Some(sandbox.bridge),
        group: 0,
        peer,
    };
    sandbox
        .rtnl
        .create_veth(&veth, container)
        .await
        .map_err(|error| {
            let network = &attachment.network;
            Error::new(crate::code::KERNEL, format!("network {network}: {error}"))
        })
}

/// No address but ours, on all of the container's new links at once, while they are down: each entry into a namespace
/// costs a thread. Where the network has no IPv6 the links have none either: no link-local address, no multicast joins
/// and router solicitations that would flood to every host. Where it has, nobody's router advertisement counts, and the
/// link-local address is ours to give: the kernel would first look for a second that nobody else has it.
pub(crate) fn quiet(container: &Netns, links: &[&str], has_v6: bool) -> Result<(), Error> {
    let wanted: &[(&str, &str)] = if has_v6 {
        &[
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("keep_addr_on_down", "1"),
            // The last: an interface that is up gets an address with it.
            ("disable_ipv6", "0"),
        ]
    } else {
        &[("disable_ipv6", "1")]
    };
    let settings: Vec<_> = links
        .iter()
        .flat_map(|link| wanted.iter().map(move |(name, value)| (link, name, *value)))
        .map(|(link, name, value)| (Sysctl::of_link("ipv6", link, name), value))
        .collect();
    let set = container.set_sysctls(&settings);
    set.map_err(Error::from)
}

/// The MAC that follows from the addresses; that of a pair from its IPv4 address.
pub(crate) fn computed_mac(ips: &[Ip]) -> Result<Mac, Error> {
    let addresses = ips.iter().map(|ip| ip.address.ip());
    let first = addresses.min_by_key(IpAddr::is_ipv6).map(mac_of);
    first.ok_or_else(|| Error::decode("IPAM result: no address"))
}

/// The link-local address that goes with a MAC: its modified EUI-64 (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Option<IpNetwork> {
    let mut id = [0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    id[..3].copy_from_slice(&mac.0[..3]);
    id[5..].copy_from_slice(&mac.0[3..]);
    id[0] ^= 2;
    let bits = 0xfe80 << 112 | u128::from(u64::from_be_bytes(id));
    IpNetwork::new(Ipv6Addr::from_bits(bits).into(), 64).ok()
}

/// Raises the container's loopback interface: not every runtime does, nor has each chain the plugin `loopback`.
pub(crate) async fn raise_loopback(rtnl: &Rtnl) -> Result<(), Error> {
    let link = rtnl.link("lo").await?;
    let Some(link) = link.filter(|link| !link.up) else {
        return Ok(());
    };
    let raised = rtnl.set_link(link.index, &up()).await;
    raised.map_err(Error::from)
}

fn up() -> LinkChange {
    LinkChange {
        up: Some(true),
        ..LinkChange::default()
    }
}

/// Gives the container's end its MAC, raises it, and gives it addresses and routes.
pub(crate) async fn address(
    rtnl: &Rtnl,
    attachment: &Attachment,
    mac: Mac,
    ipam: &CniResult,
    nic: Option<&Nic>,
    has_v6: bool,
) -> Result<(), Error> {
    let ifname = &attachment.ifname;
    let link = rtnl.link(ifname).await?;
    let link = link.ok_or_else(|| vanished(ifname.as_str()))?;
    let change = LinkChange {
        mac: Some(mac),
        ..up()
    };
    rtnl.set_link(link.index, &change).await?;
    let addresses = ipam.ips.iter().map(|ip| ip.address);
    for address in addresses.chain(link_local(mac).filter(|_| has_v6)) {
        rtnl.add_address(link.index, address).await?;
    }
    for route in applied_routes(ipam, nic) {
        let cni::Route {
            dst,
            gw: gateway,
            mtu,
            advmss,
            priority,
            table,
            scope,
            ..
        } = route;
        let route = netlink::Route {
            dst,
            gateway,
            dev: link.index,
            mtu,
            advmss,
            priority,
            source: None,
            table,
            scope,
        };
        match rtnl.add_route(&route).await {
            // The way out that another network of the container has made stays.
            Err(error) if error.is_exists() && dst.prefix() == 0 => {}
            added => added?,
        }
    }
    Ok(())
}

/// Adds to what the IPAM plugin gave the default routes over the segment's gateways. Code 7 if it gave no gateway.
pub(crate) fn leave_by_gateway(given: &mut CniResult) -> Result<(), Error> {
    let mut families = 0;
    for everywhere in [IpNetwork::from(EVERYWHERE), EVERYWHERE6.into()] {
        let Some(gateway) = gateway_of(&given.ips, &cni::Route::to(everywhere)) else {
            continue;
        };
        families += 1;
        if given.routes.iter().all(|route| route.dst != everywhere) {
            given.routes.push(cni::Route {
                gw: Some(gateway),
                ..cni::Route::to(everywhere)
            });
        }
    }
    if families == 0 {
        let why = "the IPAM plugin names no gateway of the address";
        return Err(Error::config(format!("egress: gateway: {why}")));
    }
    Ok(())
}

/// The IPAM plugin's routes that go over the segment: a default route of a family that has its way out by the egress NIC
/// is that one's.
fn applied_routes(ipam: &CniResult, nic: Option<&Nic>) -> Vec<cni::Route> {
    let has_egress = |dst: &IpNetwork| match (dst, nic) {
        (_, None) => false,
        (IpNetwork::V4(_), Some(_)) => true,
        (IpNetwork::V6(_), Some(nic)) => nic.v6.is_some(),
    };
    let ours = |route: &&cni::Route| !(route.dst.prefix() == 0 && has_egress(&route.dst));
    let routes = ipam.routes.iter().filter(ours);
    routes
        .map(|route| cni::Route {
            gw: route.gw.or_else(|| gateway_of(&ipam.ips, route)),
            ..route.clone()
        })
        .collect()
}

/// A route without a gateway goes by the gateway of its family, as in the reference plugins; but for one that says that its
/// destination is on the link.
fn gateway_of(ips: &[Ip], route: &cni::Route) -> Option<IpAddr> {
    let mut ips = ips.iter();
    let gateway = ips.find(|ip| ip.address.is_ipv4() == route.dst.is_ipv4());
    let on_link = route.scope.is_some_and(|scope| scope >= LINK_SCOPE);
    gateway.filter(|_| !on_link).and_then(|ip| ip.gateway)
}

/// Gives the egress NIC what it has not yet of addresses and default routes, and raises it.
pub(crate) async fn open_egress(rtnl: &Rtnl, nic: &Nic) -> Result<(), Error> {
    let link = rtnl.link(EGRESS_NIC).await?;
    let link = link.ok_or_else(|| vanished(EGRESS_NIC))?;
    let v4 = nic.new.then(|| {
        let (address, gateway) = (nic.address.into(), nic.gateway.into());
        (address, gateway, EVERYWHERE.into())
    });
    let v6 = nic.v6.filter(|v6| v6.new).map(|v6| {
        let (address, gateway) = (v6.address.into(), v6.gateway.into());
        (address, gateway, EVERYWHERE6.into())
    });
    let families: Vec<(IpNetwork, IpAddr, IpNetwork)> = v4.into_iter().chain(v6).collect();
    let own = link_local(mac_of(nic.address.ip().into())).filter(|_| nic.v6.is_some());
    let addresses = families.iter().map(|(address, _, _)| *address);
    for address in addresses.chain(own) {
        rtnl.add_address(link.index, address).await?;
    }
    rtnl.set_link(link.index, &up()).await?;
    for (_, gateway, everywhere) in families {
        let route = netlink::Route::new(everywhere, Some(gateway), link.index);
        match rtnl.add_route(&route).await {
            Err(error) if !error.is_exists() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Leaves out of the result the default routes that the container does not have: it keeps those of the network that it
/// joined first.
pub(crate) async fn drop_refused(rtnl: &Rtnl, result: &mut CniResult) -> Result<(), Error> {
    let there = rtnl.routes().await?;
    result.routes.retain(|route| {
        let stands = |it: &netlink::Route| (it.dst, it.gateway) == (route.dst, route.gw);
        route.dst.prefix() != 0 || there.iter().any(stands)
    });
    Ok(())
}

/// The result: what the container hangs on first, as the reference `bridge` has its bridge first; then the container's
/// interface and its egress NIC. The reference `firewall` takes the first one for a bridge of the host, which it keeps apart from
/// others: `outside` is a link of the host to this network's containers.
pub(crate) fn result(
    attachment: &Attachment,
    outside: String,
    netns: &str,
    mac: Mac,
    mtu: u32,
    ipam: CniResult,
    nic: Option<Nic>,
) -> CniResult {
    let inside = |name: &str, mac: Mac, mtu: u32| Interface {
        name: name.to_owned(),
        mac: Some(mac.to_string()),
        mtu: Some(mtu),
        sandbox: Some(netns.to_owned()),
        ..Interface::default()
    };
    let of_host = |name: String| Interface {
        name,
        ..Interface::default()
    };
    let routes = applied_routes(&ipam, nic.as_ref());
    let mut result = CniResult {
        dns: ipam.dns,
        routes,
        ..CniResult::default()
    };
    result.interfaces.push(of_host(outside));
    if nic.is_some() {
        let port = names::egress_port(attachment);
        result.interfaces.push(of_host(port));
    }
    let own = result.interfaces.len();
    result.interfaces.push(inside(&attachment.ifname, mac, mtu));
    // With an egress NIC nothing answers at the segment's gateway address.
    let gateway = |ip: &Ip| if nic.is_some() { None } else { ip.gateway };
    result.ips.extend(ipam.ips.iter().map(|ip| Ip {
        gateway: gateway(ip),
        interface: Some(own),
        ..Ip::new(ip.address)
    }));
    if let Some(nic) = nic {
        result.interfaces.push(inside(
            EGRESS_NIC,
            mac_of(nic.address.ip().into()),
            crate::egress::MTU,
        ));
        let v6 = nic
            .v6
            .map(|v6| (v6.address.into(), v6.gateway.into(), EVERYWHERE6.into()));
        let v4 = (nic.address.into(), nic.gateway.into(), EVERYWHERE.into());
        for (address, gateway, everywhere) in [v4].into_iter().chain(v6) {
            result.ips.push(Ip {
                gateway: Some(gateway),
                interface: Some(own + 1),
                ..Ip::new(address)
            });
            result.routes.push(cni::Route {
                gw: Some(gateway),
                ..cni::Route::to(everywhere)
            });
        }
    }
    result
}

/// The result with what an earlier plugin of the chain answered, which the specification wants passed on: after ours, and for
/// name servers only where we know none.
pub(crate) fn after(previous: &CniResult, mut ours: CniResult) -> CniResult {
    let shift = ours.interfaces.len();
    let CniResult {
        interfaces,
        ips,
        routes,
        dns,
        extra,
    } = previous.clone();
    ours.interfaces.extend(interfaces);
    ours.ips.extend(ips.into_iter().map(|ip| Ip {
        interface: ip.interface.map(|index| index + shift),
        ..ip
    }));
    ours.routes.extend(routes);
    if ours.dns == cni::Dns::default() {
        ours.dns = dns;
    }
    ours.extra.extend(extra);
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_that_of_the_kernel() {
        let mac = Mac([0x02, 0x42, 0x0a, 0, 0, 0x02]);
        let address = link_local(mac).map(|address| address.to_string());
        assert_eq!(address.as_deref(), Some("fe80::42:aff:fe00:2/64"));
    }
}
