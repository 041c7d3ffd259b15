//! What else on this host has the UDP port or the VNI of a tunnel.
//!
//! Tunnels of any number of networks share a port with each other, and with the VXLAN devices of others that read what they
//! receive in the same way. What cannot be shared is a VNI on one port, a port with a device of another kind (Cilium's, or
//! one with group policies), and a port that a program has bound.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use netlink::{Link, Netns, Vxlan};

use crate::{names, segment::sandbox, state::host::Host};
use plugin::{Error, code};

/// How long a VNI may stay taken by a sandbox that the kernel is still tearing down.
const TEARDOWN: Duration = Duration::from_secs(3);

/// Makes a network's VXLAN device in its sandbox. Code 107, with what is in the way.
pub(crate) async fn create(
    host: &Host,
    network: &str,
    vxlan: &Vxlan,
    sandbox: &Netns,
) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let Err(error) = host.rtnl.create_vxlan(vxlan, sandbox).await else {
            return Ok(());
        };
        let (vni, port) = (vxlan.vni, vxlan.port);
        let other = find(host, vni, port, vxlan.local.is_ipv6()).await;
        let other = match other.ok().flatten() {
            Some(other) => format!("network {network}: {other}; "),
            // A sandbox of this network that was removed a moment ago still holds the VNI.
            None if error.is_exists() && begun.elapsed() < TEARDOWN => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            // Of another namespace, as those of Docker's networks are.
            None if error.is_exists() || error.is_in_use() => format!(
                "network {network}: vni {vni} with vxlanPort {port}: another VXLAN user of this host has the one or the other; "
            ),
            None => String::new(),
        };
        return Err(Error::new(code::KERNEL, format!("{other}{error}")));
    }
}

/// What is in the way of a tunnel, as far as can be found without making it; in the words of the configuration.
pub(crate) async fn find(
    host: &Host,
    vni: u32,
    port: u16,
    v6: bool,
) -> Result<Option<String>, Error> {
    let links = host.rtnl.links().await?;
    let others = links.iter().filter_map(|link: &Link| {
        let tunnel = link.vxlan.as_ref().filter(|tunnel| tunnel.port == port)?;
        let same = tunnel.local.is_none_or(|local| local.is_ipv6() == v6);
        let name = &link.name;
        if tunnel.peculiar && same {
            Some(format!(
                "vxlanPort: {port}: VXLAN device {name} of this host, of another kind, has that UDP port"
            ))
        } else if tunnel.vni == vni && same {
            Some(format!(
                "vni: {vni}: VXLAN device {name} of this host has it on UDP port {port}; want another vni or vxlanPort"
            ))
        } else {
            None
        }
    });
    if let Some(other) = others.into_iter().next() {
        return Ok(Some(other));
    }
    for network in sandbox::networks()? {
        let Some(rtnl) = sandbox::open(&network)? else {
            continue;
        };
        let link = rtnl.link(names::VXLAN).await?;
        let tunnel = link.and_then(|link| link.vxlan);
        let tunnel = tunnel.filter(|it| it.port == port && it.vni == vni);
        let v6_too = |local: IpAddr| local.is_ipv6() == v6;
        if tunnel.is_some_and(|tunnel| tunnel.local.is_none_or(v6_too)) {
            return Ok(Some(format!(
                "vni: {vni}: network {network} has it on this host; want another vni or vxlanPort"
            )));
        }
    }
    let holder = program(port, v6);
    Ok(holder.map(|program| {
        format!(
            "vxlanPort: {port}: {program} on this host has that UDP port; want another vxlanPort"
        )
    }))
}

/// The process that has bound a UDP port. The kernel's own sockets, such as those of tunnels, are no process's.
fn program(port: u16, v6: bool) -> Option<String> {
    let sockets = netlink::bound_to_udp(port).ok()?;
    let mut sockets = sockets.iter().filter(|it| it.is_of(v6));
    let holder = sockets.find_map(|it| netlink::socket_owners(it.inode).into_iter().next())?;
    Some(format!("process {} ({})", holder.pid, holder.comm))
}
