//! The sandbox: one namespace per network and host, with the bridge and the tunnel device.
//!
//! It keeps the segment away from all that a host does to its own traffic. It appears with the first endpoint of the
//! network on this host and goes with the last one.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use cluster::Network;
use journal::Found;
use netlink::{Link, Netns, NetnsError, Rtnl};
use serde::{Deserialize, Serialize};

use crate::{
    endpoint::source_guard,
    host_state::{self, Known, Mtu, Object, Observed, Space, deviations},
    names::{self, BRIDGE, VXLAN},
    segment::{desired, forwarding::Translations, mac_rewrite},
    state::{attachment::Stage, host::Host, underlay::Underlay},
    vanished,
};
use nft::TUNNEL_SOURCE_PORTS;
use plugin::{Error, readable};

/// How messages say that something is in a sandbox.
const PLACE: &str = " in the sandbox";

/// The attachments that use a sandbox, by hash. It is removed with the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users(pub BTreeSet<String>);

/// An open sandbox.
pub struct Sandbox {
    /// Its namespace.
    pub netns: Netns,
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
    /// Whether the tunnel device, which an earlier version made, sends from any port ([`nft::TUNNEL_SOURCE_PORTS`]).
    pub any_source_port: bool,
    /// Whether it was found as it should be.
    pub stood: bool,
    /// How many of its objects had to be made or changed.
    pub changes: usize,
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
/// ADDs find, by two questions to the kernel.
pub async fn find(
    host: &Host,
    network: &Network,
    underlay: &Underlay,
) -> Result<Option<Sandbox>, Error> {
    let wanted = desired::links(network, underlay);
    standing(host, network, underlay.vtep, &wanted).await
}

/// The same where it cannot be told by which interface the tunnels leave, for example while the default route is away: if it sends
/// from `vtep`, by whatever interface and with whatever MTU it has.
pub async fn find_as_is(
    host: &Host,
    network: &Network,
    vtep: IpAddr,
) -> Result<Option<Sandbox>, Error> {
    let wanted = desired::links_as_they_are(network, vtep);
    standing(host, network, vtep, &wanted).await
}

async fn standing(
    host: &Host,
    network: &Network,
    vtep: IpAddr,
    wanted: &[Object],
) -> Result<Option<Sandbox>, Error> {
    let Some((netns, rtnl)) = here(&network.name)? else {
        return Ok(None);
    };
    let seen = Observed::of(&space(host, &netns, &rtnl), wanted).await?;
    if deviations(wanted, &seen).next().is_some() {
        return Ok(None);
    }
    let sandbox = Sandbox::seen((netns, rtnl), &seen, end(network, vtep), 0);
    Ok(sandbox.map(|sandbox| Sandbox {
        stood: true,
        ..sandbox
    }))
}

/// The end of a network's tunnel at this address.
pub(crate) fn end(network: &Network, vtep: IpAddr) -> SocketAddr {
    SocketAddr::new(vtep, network.vxlan_port.unwrap_or(cluster::VXLAN_PORT))
}

/// A sandbox as a place of objects.
pub(crate) fn space<'a>(host: &'a Host, netns: &'a Netns, rtnl: &'a Rtnl) -> Space<'a> {
    Space {
        netns,
        rtnl,
        place: PLACE,
        host,
    }
}

/// Makes the sandbox, or mends what it lacks; the caller holds the network's lock.
pub async fn ensure(host: &Host, network: &Network, underlay: &Underlay) -> Result<Sandbox, Error> {
    let netns = Netns::create(&names::sandboxes(), &network.name)?;
    let rtnl = Rtnl::open(&netns)?;
    let links = rtnl.links().await?;
    let noted = host.translations.load(&network.name);
    // A table that no document notes, because /run was lost or another program made it, would hide which containers have the
    // addresses now. A new namespace has none.
    let is_new = links.iter().all(|link| link.name != BRIDGE);
    let is_noted = matches!(noted, Ok(Found::Readable(_)));
    let rewrote = !is_new && !is_noted && mac_rewrite::set(&netns, &Translations::new())?;
    let least = Mtu::AtLeast(underlay.segment_mtu());
    // An ADD raises its port when it is known what may come from it.
    let kept_down = kept_down(host, &network.name, &links)?;
    let ports = links.iter().filter(|link| is_port(link));
    let ports = ports.filter(|port| !kept_down.contains(&port.name));
    let ports = ports.map(|port| desired::port(&port.name, least));
    let mut wanted = desired::segment(network, underlay);
    wanted.extend(ports);
    let changes;
    let seen = {
        let space = space(host, &netns, &rtnl);
        let known = Known {
            links,
            has_all: true,
            beyond: None,
        };
        let mut seen = Observed::beside(known, &space, &wanted).await?;
        changes = host_state::apply(&space, &wanted, &mut seen).await?;
        seen
    };
    let end = end(network, underlay.vtep);
    let changes = changes + usize::from(rewrote);
    let sandbox = Sandbox::seen((netns, rtnl), &seen, end, changes);
    let mut sandbox = sandbox.ok_or_else(|| vanished(VXLAN))?;
    sandbox.changes += source_guard::repair(host, &network.name, &sandbox).await?;
    Ok(sandbox)
}

/// The ports among these links that are down because their ADD is not that far, or was killed.
fn kept_down(host: &Host, network: &str, links: &[Link]) -> Result<BTreeSet<String>, Error> {
    let is_down = |name: &str| links.iter().any(|link| link.name == name && !link.up);
    let mut kept = BTreeSet::new();
    for hash in readable(&host.users, network)?.unwrap_or_default().0 {
        let port = names::port_of(&hash);
        if is_down(&port) {
            let record = readable(&host.records, &hash)?;
            let is_made = record.is_none_or(|record| record.stage == Stage::Made);
            kept.extend((!is_made).then_some(port));
        }
    }
    Ok(kept)
}

/// Whether a link of the sandbox is the host's end of an attachment.
fn is_port(link: &Link) -> bool {
    link.name.starts_with(names::PORT)
}

impl Sandbox {
    /// A sandbox whose tunnel has this end, if it has a bridge and a VXLAN device, however these are.
    pub(crate) fn seen(
        (netns, rtnl): (Netns, Rtnl),
        seen: &Observed,
        end: SocketAddr,
        changes: usize,
    ) -> Option<Self> {
        let (bridge, vxlan) = (seen.link(BRIDGE)?, seen.link(VXLAN)?);
        let tunnel = vxlan.vxlan.as_ref();
        Some(Self {
            netns,
            rtnl,
            bridge: bridge.index,
            vxlan: vxlan.index,
            mtu: vxlan.mtu,
            end,
            any_source_port: tunnel.is_none_or(|it| it.source_ports != TUNNEL_SOURCE_PORTS),
            stood: false,
            changes,
        })
    }

    /// Whether bridge and tunnel device are still those that were found or made.
    pub(crate) async fn still_stands(&self, host: &Host, network: &Network) -> Result<bool, Error> {
        let wanted = desired::links_as_they_are(network, self.end.ip());
        let seen = Observed::of(&self.space(host), &wanted).await?;
        let indices = [BRIDGE, VXLAN].map(|name| seen.link(name).map(|link| link.index));
        let is_whole = deviations(&wanted, &seen).next().is_none();
        Ok(is_whole && indices == [Some(self.bridge), Some(self.vxlan)])
    }

    /// As a place of objects.
    pub(crate) fn space<'a>(&'a self, host: &'a Host) -> Space<'a> {
        space(host, &self.netns, &self.rtnl)
    }

    /// What need not be asked: bridge and tunnel device are there.
    pub(crate) fn known(&self) -> Known<'static> {
        let links = [(self.bridge, BRIDGE), (self.vxlan, VXLAN)];
        let links = links.map(|(index, name)| Link {
            index,
            name: name.to_owned(),
            ..Link::default()
        });
        Known {
            links: links.into(),
            ..Known::default()
        }
    }

    /// What is there of these objects, none of which is bridge or tunnel device.
    pub(crate) async fn look(&self, host: &Host, objects: &[Object]) -> Result<Observed, Error> {
        Observed::beside(self.known(), &self.space(host), objects).await
    }

    /// Applies those of these objects that differ, and says how many changes that took; the caller holds the network's lock.
    pub(crate) async fn apply(&self, host: &Host, objects: &[Object]) -> Result<usize, Error> {
        let mut seen = self.look(host, objects).await?;
        host_state::apply(&self.space(host), objects, &mut seen).await
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
    Ok(open_netns(network)?.map(|(_, rtnl)| rtnl))
}

/// The same with its namespace.
pub(crate) fn open_netns(network: &str) -> Result<Option<(Netns, Rtnl)>, Error> {
    let found = Netns::find(&names::sandboxes(), network)?;
    let opened = found.map(with_socket).transpose();
    opened.map_err(Error::from)
}

fn with_socket(netns: Netns) -> Result<(Netns, Rtnl), NetnsError> {
    let rtnl = Rtnl::open(&netns)?;
    Ok((netns, rtnl))
}

/// The same of one that is mounted in this mount namespace.
fn here(network: &str) -> Result<Option<(Netns, Rtnl)>, Error> {
    match Netns::open(&names::sandboxes().join(network)) {
        Ok(netns) => with_socket(netns).map(Some).map_err(Error::from),
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

/// Notes that an attachment does not use it any more; whether it was the last one. The caller holds the network's lock, and removes
/// the sandbox.
pub(crate) fn leave(host: &Host, network: &str, attachment: &str) -> Result<bool, Error> {
    let mut users = readable(&host.users, network)?.unwrap_or_default();
    users.0.remove(attachment);
    if !users.0.is_empty() {
        host.users.save(network, &users)?;
    }
    Ok(users.0.is_empty())
}

/// Whether a sandbox has containers' ports.
pub(crate) async fn has_ports(rtnl: &Rtnl) -> Result<bool, Error> {
    let links = rtnl.links().await?;
    Ok(links.iter().any(is_port))
}

/// Removes the sandbox, in which this socket is, and what is noted of it; the caller holds the network's lock, and has taken the
/// host off the segment.
pub(crate) async fn remove(host: &Host, network: &str, rtnl: Option<Rtnl>) -> Result<(), Error> {
    if let Some(rtnl) = rtnl {
        // The kernel empties a namespace at its leisure; the VNI must be free for the next sandbox now.
        rtnl.remove_link(VXLAN).await?;
    }
    Netns::remove(&names::sandboxes(), network)?;
    Ok(host.translations.remove(network)?)
}
