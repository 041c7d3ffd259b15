//! The sandbox: one namespace per network and host, with the bridge and the tunnel device.
//!
//! It keeps the segment away from all that a host does to its own traffic. It appears with the first endpoint of the
//! network on this host and goes with the last one.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use cluster::{Network, NetworkSnapshot};
use ipnetwork::IpNetwork;
use journal::Found;
use netlink::{
    Bridge, Change, Link, LinkChange, Mac, Netns, NetnsError, Port, Rtnl, Sysctl, Vxlan,
};
use plugin::{Error, readable};
use serde::{Deserialize, Serialize};

use crate::{
    firewall::table,
    follow::membership,
    host_link,
    names::{self, BRIDGE, VXLAN},
    segment::{
        forwarding::{Translations, Trust, changes, desired},
        mac_rewrite, vxlan_conflict,
    },
    state::{host::Host, underlay::Underlay},
    vanished,
};

/// How long a VNI may stay taken by a sandbox that the kernel is still tearing down.
const TEARDOWN: Duration = Duration::from_secs(3);

/// The attachments that use a sandbox, by hash. It is removed with the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users(pub BTreeSet<String>);

/// An open sandbox.
pub struct Sandbox {
    /// A socket in it.
    pub rtnl: Rtnl,
    /// Index of the bridge.
    pub bridge: u32,
    /// Index of the tunnel device.
    pub vxlan: u32,
    /// MTU of the segment on this host in bytes: the most that an attachment may ask for.
    pub mtu: u32,
    /// The tunnel's end: the address that it sends from, and the port of all its ends.
    pub end: SocketAddr,
    /// Whether it was found as it should be.
    pub stood: bool,
    /// Whether a port was off the bridge, down, or of too small an MTU, or the tunnel's port answered as it should not.
    pub replugged: bool,
}

/// MTU of a container's interface, in bytes: as asked for by its conflist, or by the network, or the segment's.
pub fn mtu(network: &Network, wanted: Option<u32>, segment: u32) -> Result<u32, Error> {
    match wanted.or(network.mtu) {
        Some(mtu) if mtu > segment => Err(Error::config(format!(
            "mtu: {mtu}: this host's underlay carries {segment} at most inside the tunnel"
        ))),
        Some(mtu) => Ok(mtu),
        None => Ok(segment),
    }
}

/// The sandbox, if it stands as the network wants it over this underlay; the caller holds the network's lock. This is what most
/// ADDs find.
pub async fn find(network: &Network, underlay: &Underlay) -> Result<Option<Sandbox>, Error> {
    standing(network, |_, bridge| wanted(network, underlay, bridge)).await
}

/// The same where it cannot be told by which interface the tunnels leave, for example while the default route is away: if it sends
/// from `vtep`, by whatever interface and with whatever MTU it has.
pub async fn find_as_is(network: &Network, vtep: IpAddr) -> Result<Option<Sandbox>, Error> {
    let as_is = |vxlan: &Link, bridge| {
        let underlay = vxlan.vxlan.as_ref().map_or(0, |info| info.underlay);
        spec(network, vtep, underlay, vxlan.mtu, bridge)
    };
    standing(network, as_is).await
}

/// The sandbox, if its bridge is up and its tunnel device is as `wanted` says, given the device and the index of the bridge.
async fn standing(
    network: &Network,
    wanted: impl Fn(&Link, u32) -> Vxlan,
) -> Result<Option<Sandbox>, Error> {
    let Some(rtnl) = here(&network.name)? else {
        return Ok(None);
    };
    let bridge = rtnl.link(BRIDGE).await?.filter(|bridge| bridge.up);
    let vxlan = rtnl.link(VXLAN).await?;
    let Some((bridge, vxlan)) = bridge.zip(vxlan) else {
        return Ok(None);
    };
    let spec = wanted(&vxlan, bridge.index);
    if !fits(&vxlan, &spec) {
        return Ok(None);
    }
    Ok(Some(Sandbox {
        rtnl,
        bridge: bridge.index,
        vxlan: vxlan.index,
        mtu: vxlan.mtu,
        end: end(&spec),
        stood: true,
        replugged: false,
    }))
}

fn spec(network: &Network, vtep: IpAddr, underlay: u32, mtu: u32, bridge: u32) -> Vxlan {
    Vxlan {
        name: VXLAN.to_owned(),
        vni: network.vni.unwrap_or_default(),
        port: network.vxlan_port.unwrap_or(cluster::VXLAN_PORT),
        local: vtep,
        underlay,
        mtu,
        master: Some(bridge),
    }
}

/// Makes the sandbox, or mends what it lacks; the caller holds the network's lock.
pub async fn ensure(host: &Host, network: &Network, underlay: &Underlay) -> Result<Sandbox, Error> {
    let mtu = underlay.segment_mtu();
    let netns = Netns::create(&names::sandboxes(), &network.name)?;
    let rtnl = Rtnl::open(&netns)?;
    let vni = network.vni.unwrap_or_default();
    let noted = host.translations.load(&network.name);
    if !matches!(noted, Ok(Found::Readable(_))) {
        // A table of which nobody knows any more, since /run was lost, would hide who has the addresses now.
        mac_rewrite::set(&netns, &Translations::new())?;
    }
    let links = rtnl.links().await?;
    let find = |name: &str| links.iter().find(|link| link.name == name).cloned();

    let bridge = if let Some(bridge) = find(BRIDGE) {
        bridge
    } else {
        // The host has no address on the segment, and must not get one by itself.
        netns.set_sysctls(&[(Sysctl::of_link("ipv6", "default", "disable_ipv6"), "1")])?;
        let [_, a, b, c] = vni.to_be_bytes();
        let spec = Bridge {
            name: BRIDGE.to_owned(),
            mac: Some(Mac([0x02, 0x43, 0, a, b, c])),
            mtu,
            group: 0,
        };
        rtnl.create_bridge(&spec).await?
    };
    if network.subnets().iter().any(IpNetwork::is_ipv6) {
        // Answers for remote neighbours need the family on the bridge; still no address, and nothing that it hears gives one.
        let settings = [
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("disable_ipv6", "0"),
        ];
        let settings = settings.map(|(name, value)| (Sysctl::of_link("ipv6", BRIDGE, name), value));
        netns.set_sysctls(&settings)?;
    }
    // A bridge that is down carries nothing, and one that was made anew has lost the ports of the old.
    if !bridge.up {
        change(
            &rtnl,
            &bridge,
            LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .await?;
    }
    let mut replugged = plug_again(&rtnl, &links, bridge.index, mtu).await?;
    let spec = wanted(network, underlay, bridge.index);
    let vxlan = match find(VXLAN) {
        Some(vxlan) if fits(&vxlan, &spec) => vxlan,
        other => {
            if other.is_some() {
                rtnl.remove_link(VXLAN).await?;
            }
            create_vxlan(host, network, &spec, &netns).await?;
            let made = rtnl.link(VXLAN).await?;
            made.ok_or_else(|| vanished(VXLAN))?
        }
    };
    // Only where it is not so: the kernel tells all listeners of it, also the watcher that looks.
    if (vxlan.port.neigh_suppress, vxlan.port.learning) != (Some(true), Some(false)) {
        let port = Port {
            neigh_suppress: Some(true),
            learning: Some(false),
            ..Port::default()
        };
        let set = rtnl.set_port(VXLAN, &port).await;
        set?;
        replugged = true;
    }
    Ok(Sandbox {
        rtnl,
        bridge: bridge.index,
        vxlan: vxlan.index,
        mtu,
        end: end(&spec),
        stood: false,
        replugged,
    })
}

/// Puts the attachments' ports on the bridge again, up, and lets them carry what the segment does, or what it once did;
/// whether there was one to be put right.
async fn plug_again(rtnl: &Rtnl, links: &[Link], bridge: u32, mtu: u32) -> Result<bool, Error> {
    let mut any = false;
    let right = |link: &Link| link.master == Some(bridge) && link.up && link.mtu >= mtu;
    for stray in links.iter().filter(|link| is_port(link) && !right(link)) {
        let plugged = LinkChange {
            master: Some(bridge),
            up: Some(true),
            mtu: Some(mtu.max(stray.mtu)),
            ..LinkChange::default()
        };
        change(rtnl, stray, plugged).await?;
        any = true;
    }
    Ok(any)
}

/// Whether a link of the sandbox is the host's end of an attachment.
fn is_port(link: &Link) -> bool {
    link.name.starts_with(names::PORT)
}

async fn change(rtnl: &Rtnl, link: &Link, change: LinkChange) -> Result<(), Error> {
    let changed = rtnl.set_link(link.index, &change).await;
    changed.map_err(Error::from)
}

fn fits(link: &Link, spec: &Vxlan) -> bool {
    link.up && link.master == spec.master && differs(link, spec).is_none()
}

/// The tunnel device that the network wants over this underlay.
pub fn wanted(network: &Network, underlay: &Underlay, bridge: u32) -> Vxlan {
    let mtu = underlay.segment_mtu();
    spec(network, underlay.vtep, underlay.index, mtu, bridge)
}

/// The tunnel's end.
pub fn end(spec: &Vxlan) -> SocketAddr {
    SocketAddr::new(spec.local, spec.port)
}

/// What of a tunnel device is not as wanted, if anything.
pub fn differs(link: &Link, spec: &Vxlan) -> Option<String> {
    let Some(info) = &link.vxlan else {
        return Some("is no VXLAN device".to_owned());
    };
    let local = info
        .local
        .map_or("none".to_owned(), |local| local.to_string());
    let values = [
        ("VNI", info.vni.to_string(), spec.vni.to_string()),
        ("UDP port", info.port.to_string(), spec.port.to_string()),
        ("local address", local, spec.local.to_string()),
        (
            "underlay link",
            info.underlay.to_string(),
            spec.underlay.to_string(),
        ),
        ("MTU", link.mtu.to_string(), spec.mtu.to_string()),
        ("learning", info.learning.to_string(), false.to_string()),
    ];
    let mut values = values.into_iter();
    let (what, has, wants) = values.find(|(_, has, wants)| has != wants)?;
    Some(format!("has {what} {has}, not {wants}"))
}

async fn create_vxlan(
    host: &Host,
    network: &Network,
    spec: &Vxlan,
    netns: &Netns,
) -> Result<(), Error> {
    let begun = std::time::Instant::now();
    loop {
        let Err(error) = host.rtnl.create_vxlan(spec, netns).await else {
            return Ok(());
        };
        let other = vxlan_conflict::find(host, spec.vni, spec.port, spec.local.is_ipv6());
        let other = match other.await.ok().flatten() {
            Some(other) => format!("network {}: {other}; ", network.name),
            // A sandbox of this network that was removed a moment ago still holds the VNI.
            None if error.is_exists() && begun.elapsed() < TEARDOWN => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            // Of another namespace, as those of Docker's networks are.
            None if error.is_exists() || error.is_in_use() => format!(
                "network {}: vni {} with vxlanPort {}: another VXLAN user of this host has the one or the other; ",
                network.name, spec.vni, spec.port
            ),
            None => String::new(),
        };
        return Err(Error::new(crate::code::KERNEL, format!("{other}{error}")));
    }
}

impl Sandbox {
    /// Brings the forwarding entries to what the news say, as far as they can be relied on, and says how many were not
    /// so; the caller holds the network's lock.
    pub async fn reconcile(
        &self,
        host: &Host,
        network: &str,
        snapshot: &NetworkSnapshot,
        node: &str,
        trust: Trust<'_>,
    ) -> Result<usize, Error> {
        let steps = self.due(host, network, snapshot, node, trust).await?;
        self.rtnl.change(self.bridge, self.vxlan, &steps).await?;
        Ok(steps.len())
    }

    /// What would bring them there.
    pub(crate) async fn due(
        &self,
        host: &Host,
        network: &str,
        snapshot: &NetworkSnapshot,
        node: &str,
        trust: Trust<'_>,
    ) -> Result<Vec<Change>, Error> {
        let present = self.rtnl.forwarding(self.bridge, self.vxlan).await?;
        let wanted =
            host_link::entries(host, network, desired(snapshot, node, self.end.ip(), trust))?;
        Ok(changes(&wanted, &present))
    }
}

/// The networks that have a sandbox on this host, as far as they are mounted in this mount namespace.
pub fn networks() -> Result<Vec<String>, Error> {
    Netns::list(&names::sandboxes()).map_err(Error::from)
}

/// The networks whose sandboxes are mounted in another mount namespace alone. [`ensure`] mounts them here, too.
pub fn networks_elsewhere() -> Result<Vec<String>, Error> {
    Netns::list_elsewhere(&names::sandboxes()).map_err(Error::from)
}

/// An existing sandbox's socket, whichever mount namespace the sandbox is mounted in; `None` if there is no sandbox.
pub fn open(network: &str) -> Result<Option<Rtnl>, Error> {
    let found = Netns::find(&names::sandboxes(), network)?;
    let opened = found.map(|netns| Rtnl::open(&netns)).transpose();
    opened.map_err(Error::from)
}

/// The same of one that is mounted in this mount namespace.
fn here(network: &str) -> Result<Option<Rtnl>, Error> {
    match Netns::open(&names::sandboxes().join(network)) {
        Ok(netns) => Rtnl::open(&netns).map(Some).map_err(Error::from),
        Err(NetnsError::Gone { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Notes that an attachment uses the network's sandbox; the caller holds the network's lock.
pub fn enter(host: &Host, network: &str, attachment: &str) -> Result<(), Error> {
    let mut users = readable(&host.users, network)?.unwrap_or_default();
    users.0.insert(attachment.to_owned());
    host.users.save(network, &users).map_err(Error::from)
}

/// Notes that an attachment does not use it any more, and removes the sandbox with its last user.
pub async fn leave(host: &Host, network: &str, attachment: &str) -> Result<(), Error> {
    let _lock = host.lock_network(network)?;
    let mut users = readable(&host.users, network)?.unwrap_or_default();
    users.0.remove(attachment);
    if !users.0.is_empty() {
        return host.users.save(network, &users).map_err(Error::from);
    }
    remove_unused(host, network).await
}

/// Whether a sandbox has containers' ports.
pub(crate) async fn has_ports(rtnl: &Rtnl) -> Result<bool, Error> {
    let links = rtnl.links().await?;
    Ok(links.iter().any(is_port))
}

/// Removes the sandbox of a network that has no users, unless it still has a container's port; the caller holds the
/// network's lock.
pub async fn remove_unused(host: &Host, network: &str) -> Result<(), Error> {
    if let Some(rtnl) = open(network)? {
        if has_ports(&rtnl).await? {
            // Of a list that was lost: from here on the ports tell.
            return host.users.remove(network).map_err(Error::from);
        }
        // The kernel empties a namespace at its leisure; the VNI must be free for the next sandbox now.
        rtnl.remove_link(VXLAN).await?;
    }
    host_link::leave(host, network).await?;
    Netns::remove(&names::sandboxes(), network)?;
    let forgotten = host.translations.remove(network);
    forgotten?;
    let _open = table::forget_tunnel(host, network)?;
    membership::leave(host, network)?;
    host.users.remove(network).map_err(Error::from)
}
