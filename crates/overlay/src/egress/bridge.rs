//! The egress bridge, and that the host forwards what comes by it.

use std::{fs, net::Ipv6Addr, path::Path};

use cni::Error;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use netlink::{Bridge, LinkChange, Port};

use super::{Ledger, MTU};
use crate::{
    code,
    forwarding::mac_of,
    host::Host,
    kernel,
    names::{EGRESS_BRIDGE, EGRESS_PORT},
};

const V4: &str = "/proc/sys/net/ipv4";
const V6: &str = "/proc/sys/net/ipv6/conf";

/// Who forwards asks for a neighbour from a link-local address, and from none that is still to be found unique. So the
/// bridge has this one beside the one that the kernel gives it a second or two later.
const LINK_LOCAL: Ipv6Network =
    match Ipv6Network::new_checked(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 64) {
        Some(network) => network,
        None => unreachable!(),
    };

/// Lets the host forward, with `v6` also IPv6.
pub(crate) fn forward(v6: bool) -> Result<(), Error> {
    set(&Path::new(V4).join("ip_forward"), "1")?;
    if v6 { forward_v6() } else { Ok(()) }
}

/// The bridge with its addresses, each made where it lacks, and forwarding. Its interface index.
pub(super) async fn ensure(host: &Host, ledger: &Ledger) -> Result<u32, Error> {
    forward(false)?;
    let found = host.rtnl.link(EGRESS_BRIDGE).await;
    let found = found.map_err(|error| kernel(&error))?;
    let bridge = match found {
        Some(bridge) if bridge.up => bridge,
        Some(bridge) => {
            let up = LinkChange {
                up: Some(true),
                ..LinkChange::default()
            };
            let raised = host.rtnl.set_link(bridge.index, &up).await;
            raised.map_err(|error| kernel(&error))?;
            bridge
        }
        None => {
            let spec = Bridge {
                name: EGRESS_BRIDGE.to_owned(),
                mac: Some(mac_of(ledger.gateway().into())),
                mtu: MTU,
                group: 0,
            };
            let made = host.rtnl.create_bridge(&spec).await;
            made.map_err(|error| kernel(&error))?
        }
    };
    if ledger.subnet6.is_some() {
        let own = Path::new(V6).join(EGRESS_BRIDGE);
        // Nothing that a container says gives this host an address or a route.
        set(&own.join("accept_ra"), "0")?;
        set(&own.join("disable_ipv6"), "0")?;
        forward_v6()?;
    }
    for address in addresses(ledger)? {
        let added = host.rtnl.add_address(bridge.index, address).await;
        added.map_err(|error| kernel(&error))?;
    }
    Ok(bridge.index)
}

/// The addresses of the bridge.
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

/// What of the bridge, of this port of it, or of forwarding is not as it should be, if anything. Touches nothing.
pub(super) async fn deviation(
    host: &Host,
    ledger: &Ledger,
    port: &str,
) -> Result<Option<String>, Error> {
    let links = host.rtnl.links().await.map_err(|error| kernel(&error))?;
    let find = |name: &str| links.iter().find(|link| link.name == name);
    let Some(bridge) = find(EGRESS_BRIDGE) else {
        return Ok(Some(format!("{EGRESS_BRIDGE}: is gone")));
    };
    let present = host.rtnl.addresses(Some(bridge.index)).await;
    let present = present.map_err(|error| kernel(&error))?;
    for wanted in addresses(ledger)? {
        if !present.contains(&(bridge.index, wanted)) {
            return Ok(Some(format!("{EGRESS_BRIDGE}: lacks address {wanted}")));
        }
    }
    let about_port = match find(port) {
        None => Some("is gone"),
        Some(link) if link.master != Some(bridge.index) => Some("was taken off the bridge"),
        Some(link) if !link.up => Some("is down"),
        Some(link) if link.port.isolated != Some(true) => Some("is not isolated"),
        Some(_) => None,
    };
    let key = "net.ipv4.ip_forward";
    let forwards = read(&Path::new(V4).join("ip_forward"))? == "1";
    let key6 = "net.ipv6.conf.all.forwarding";
    let forwards6 = ledger.subnet6.is_none() || read(&Path::new(V6).join("all/forwarding"))? == "1";
    Ok(match about_port {
        _ if !bridge.up => Some(format!("{EGRESS_BRIDGE}: is down")),
        Some(what) => Some(format!("{port} on the host: {what}")),
        None if !forwards => Some(format!("{key}: is off")),
        None if !forwards6 => Some(format!("{key6}: is off")),
        None => None,
    })
}

/// Puts the containers' ports on the bridge again that it lost, for example because it was removed and made anew, and isolates
/// those that are not; whether there were any.
pub(super) async fn plug_again(host: &Host, bridge: u32) -> Result<bool, Error> {
    let links = host.rtnl.links().await.map_err(|error| kernel(&error))?;
    let ours = |name: &str| name.starts_with(EGRESS_PORT);
    let lost: Vec<_> = links
        .iter()
        .filter(|link| ours(&link.name))
        .filter(|link| link.master != Some(bridge) || !link.up || link.port.isolated != Some(true))
        .collect();
    for port in &lost {
        let change = LinkChange {
            master: Some(bridge),
            up: Some(true),
            ..LinkChange::default()
        };
        let plugged = host.rtnl.set_link(port.index, &change).await;
        plugged.map_err(|error| kernel(&error))?;
        isolate(host, &port.name).await?;
    }
    Ok(!lost.is_empty())
}

/// Ports of the bridge do not talk to each other.
pub(super) async fn isolate(host: &Host, port: &str) -> Result<(), Error> {
    let isolated = Port {
        isolated: Some(true),
        ..Port::default()
    };
    let done = host.rtnl.set_port(port, &isolated).await;
    done.map_err(|error| kernel(&error))
}

/// The addresses that the kernel has on the bridge, as subnets: they tell what a lost document said.
pub(super) async fn subnets(
    host: &Host,
) -> Result<Option<(Ipv4Network, Option<Ipv6Network>)>, Error> {
    let found = host.rtnl.link(EGRESS_BRIDGE).await;
    let Some(bridge) = found.map_err(|error| kernel(&error))? else {
        return Ok(None);
    };
    let addresses = host.rtnl.addresses(Some(bridge.index)).await;
    let addresses = addresses.map_err(|error| kernel(&error))?;
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

/// Lets the host forward IPv6. A host that forwards stops to listen to routers, and forgets what they said, on each
/// interface that is not told to go on (`accept_ra` 2); one that got its own default route from a router would lose it.
fn forward_v6() -> Result<(), Error> {
    let all = Path::new(V6).join("all/forwarding");
    if read(&all)? == "1" {
        return Ok(());
    }
    let interfaces = fs::read_dir(V6).map_err(|error| failed(Path::new(V6), &error))?;
    for interface in interfaces.filter_map(Result::ok) {
        let listens = interface.path().join("accept_ra");
        if interface.file_name() != "all" && read(&listens).is_ok_and(|value| value == "1") {
            set(&listens, "2")?;
        }
    }
    set(&all, "1")
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::new(code::KERNEL, format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|error| failed(path, &error))?;
    Ok(text.trim().to_owned())
}

/// Read first: on most hosts somebody did so long ago, and a write tells all interfaces.
pub(crate) fn set(path: &Path, value: &str) -> Result<(), Error> {
    if read(path)? == value {
        return Ok(());
    }
    fs::write(path, value).map_err(|error| failed(path, &error))
}
