//! The container's side of an attachment: its NIC, addresses and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::{CniResult, Interface, Ip};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use journal::Attachment;
use netlink::{Mac, Netns, Rtnl, Veth, VethEnd};
use plugin::Error;

use crate::{
    egress::{self, Nic},
    endpoint::desired,
    host_state::{self, Deviation, Known, Object, Observed, Space, deviations},
    names::{self, EGRESS_NIC},
    segment::{forwarding::mac_of, sandbox::Sandbox},
    state::{attachment::Record, host::Host},
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
pub(crate) const LINK_SCOPE: u8 = 253;

/// Makes the veth pair between sandbox and container. The container's end stays down until it has its addresses, and the other one until
/// it is known what may come from it.
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
        up: false,
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

/// Sets what keeps the kernel from giving these new links of the container addresses of its own, while they are down. All at
/// once, by one visit to its namespace.
pub(crate) async fn quiet(space: &Space<'_>, links: &[&str], has_v6: bool) -> Result<(), Error> {
    let settings = links.iter().flat_map(|link| Object::quiet(link, has_v6));
    let settings: Vec<_> = settings.collect();
    let mut nothing = Observed::default();
    let done = host_state::apply(space, &settings, &mut nothing);
    done.await.map(drop)
}

/// The MAC that follows from the addresses; that of a pair from its IPv4 address.
pub(crate) fn computed_mac(ips: &[Ip]) -> Result<Mac, Error> {
    let addresses = ips.iter().map(|ip| ip.address.ip());
    let first = addresses.min_by_key(IpAddr::is_ipv6).map(mac_of);
    first.ok_or_else(|| Error::decode("IPAM result: no address"))
}

/// Gives the container what its result says, on its new links: its own interface, and the egress NIC if something of that has
/// still to be set. `has_v6`: the network has IPv6.
pub(crate) async fn apply(
    space: &Space<'_>,
    attachment: &Attachment,
    (result, mac): (&CniResult, Mac),
    nic: Option<Nic>,
    has_v6: bool,
) -> Result<(), Error> {
    let ifname = attachment.ifname.as_str();
    let unfinished = nic.filter(Nic::is_unfinished);
    let is_v4 = |object: &Object| match object {
        Object::Address { address, .. } => address.is_ipv4(),
        Object::Route { route, .. } => route.dst.is_ipv4(),
        _ => false,
    };
    let mut objects = vec![desired::loopback()];
    objects.extend(desired::inside(ifname, result));
    objects.retain(|object| {
        let is_missing = |nic: Nic| nic.new || !is_v4(object);
        !object.is_of(EGRESS_NIC) || unfinished.is_some_and(is_missing)
    });
    if has_v6 {
        objects.extend(desired::link_local(ifname, mac));
    }
    if let Some(nic) = unfinished.filter(|nic| nic.v6.is_some()) {
        objects.extend(desired::link_local(EGRESS_NIC, nic.mac()));
    }
    objects.sort_by_key(|object| matches!(object, Object::Route { .. }));
    let is_link = |object: &&Object| matches!(object, Object::Link(_));
    let links: Vec<_> = objects.iter().filter(is_link).cloned().collect();
    // What is new has nothing yet but itself.
    let mut seen = Observed::of(space, &links).await?;
    let done = host_state::apply(space, &objects, &mut seen);
    done.await.map(drop)
}

/// What a container has of these objects.
pub(crate) async fn look(space: &Space<'_>, objects: &[Object]) -> Result<Observed, Error> {
    let known = Known {
        links: space.rtnl.links().await?,
        has_all: true,
        beyond: None,
    };
    Observed::beside(known, space, objects).await
}

/// What of a container's interface deviates from what this host's documents say, which `describe` computes from the addresses that
/// the interface has. Nothing where the container is gone, or a verb is at work on it.
pub(crate) async fn deviating(
    host: &Host,
    record: &Record,
    name: &str,
    describe: impl FnOnce(&[IpNetwork]) -> Vec<Object>,
) -> Result<Vec<Deviation>, Error> {
    let Some(_idle) = host.lock_idle_container(&record.attachment)? else {
        return Ok(Vec::new());
    };
    let container = Netns::open(&record.netns).ok();
    let Some(container) = container.filter(|it| it.id() == record.netns_id) else {
        return Ok(Vec::new());
    };
    let rtnl = Rtnl::open(&container)?;
    let addresses = match rtnl.link(name).await? {
        Some(link) => rtnl.addresses(Some(link.index)).await?,
        None => Vec::new(),
    };
    let addresses: Vec<_> = addresses.into_iter().map(|(_, it)| it).collect();
    let objects = describe(&addresses);
    let seen = look(&Space::of_container(host, &container, &rtnl), &objects).await?;
    // Nothing but its runtime changes anything in a container.
    let found = deviations(&objects, &seen).map(|found| Deviation {
        is_curable: false,
        ..found
    });
    Ok(found.collect())
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
    let ifname = &attachment.ifname;
    result.interfaces.push(interface(ifname, mac, mtu, netns));
    // With an egress NIC nothing answers at the segment's gateway address.
    let gateway = |ip: &Ip| if nic.is_some() { None } else { ip.gateway };
    result.ips.extend(ipam.ips.iter().map(|ip| Ip {
        gateway: gateway(ip),
        interface: Some(own),
        ..Ip::new(ip.address)
    }));
    if let Some(nic) = nic {
        add_egress(&mut result, netns, nic);
    }
    result
}

/// Adds the egress NIC of a container in this namespace, with its addresses and default routes.
pub(crate) fn add_egress(result: &mut CniResult, netns: &str, nic: Nic) {
    let index = result.interfaces.len();
    result
        .interfaces
        .push(interface(EGRESS_NIC, nic.mac(), egress::MTU, netns));
    let v6 = nic.v6;
    let v6 = v6.map(|v6| (v6.address.into(), v6.gateway.into(), EVERYWHERE6.into()));
    let v4 = (nic.address.into(), nic.gateway.into(), EVERYWHERE.into());
    for (address, gateway, everywhere) in [v4].into_iter().chain(v6) {
        result.ips.push(Ip {
            gateway: Some(gateway),
            interface: Some(index),
            ..Ip::new(address)
        });
        result.routes.push(cni::Route {
            gw: Some(gateway),
            ..cni::Route::to(everywhere)
        });
    }
}

fn interface(name: &str, mac: Mac, mtu: u32, netns: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        mac: Some(mac.to_string()),
        mtu: Some(mtu),
        sandbox: Some(netns.to_owned()),
        ..Interface::default()
    }
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
