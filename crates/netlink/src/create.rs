//! Creates bridges, VXLAN devices and veth pairs, each with one message and in its final namespace.
//!
//! Nothing is made in one namespace and moved to another: a move costs a grace period, shows the link to the host's udev and
//! NetworkManager for a moment, and fails if the name is taken there. A VXLAN device made with `IFLA_NET_NS_FD` is created in
//! that namespace, but it finds its underlay, opens its UDP socket and keeps its VNI unique in the namespace of the netlink
//! socket: `ops->newlink` gets that one (`rtnl_newlink_create`, the same in 5.10 and in 6.18). This suits the sandbox: the
//! tunnel's packets pass the host's routes and firewall, and the segment's frames never do.

use std::net::IpAddr;

use crate::message::Message;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVxlan};
use rustix::io::Errno;

use crate::error::Refusal;
use crate::{Error, Link, Mac, Netns, Rtnl};

/// A bridge to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Interface name.
    pub name: String,
    /// Hardware address; the kernel picks one if none.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Group number, 0 for none.
    pub group: u32,
}

/// A VXLAN device to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Interface name.
    pub name: String,
    /// VXLAN network identifier, 1 to 2^24 - 1.
    pub vni: u32,
    /// UDP destination port, 4789 by IANA.
    pub port: u16,
    /// UDP source ports: from the first on, below the second. The kernel chooses one by the flow inside.
    pub source_ports: (u16, u16),
    /// This host's tunnel address.
    pub local: IpAddr,
    /// Index of the underlay link in the creating namespace.
    pub underlay: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge to join, in the target namespace.
    pub master: Option<u32>,
}

/// A veth pair to make: this end in the socket's namespace, the peer in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// Interface name of this end.
    pub name: String,
    /// Index of this end; the kernel picks one if none.
    pub index: Option<u32>,
    /// Hardware address of this end; the kernel picks one if none.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge this end joins.
    pub master: Option<u32>,
    /// Group number of this end, 0 for none.
    pub group: u32,
    /// Whether this end is up at once. A port of a bridge that is down passes no frames: its flags can be set first
    /// ([`Rtnl::raise_port`]).
    pub up: bool,
    /// The other end.
    pub peer: VethEnd,
}

/// The far end of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethEnd {
    /// Interface name.
    pub name: String,
    /// Hardware address; the kernel picks one if none.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Group number, 0 for none.
    pub group: u32,
    /// Whether to bring it up at once, which costs one more socket. Otherwise it stays down, so that sysctls can be written
    /// first (`accept_ra`, `dad_transmits`), and [`Rtnl::set_link`] brings it up.
    pub up: bool,
}

impl Rtnl {
    /// Makes a bridge, up, without multicast snooping. [`Error::is_exists`] if the name is taken.
    pub async fn create_bridge(&self, bridge: &Bridge) -> Result<Link, Error> {
        // Only attributes that are needed: a kernel without bridge VLANs refuses even `vlan_filtering` 0.
        let message = LinkBridge::new(&bridge.name).mcast_snooping(false).up();
        let message = shared(message, bridge.mac, bridge.mtu, bridge.group).build();
        self.create(message, format!("bridge {}", bridge.name))
            .await?;
        self.created(&bridge.name).await
    }

    /// Makes a VXLAN device in namespace `into`, up; its UDP socket stays in this socket's namespace.
    /// [`Error::is_exists`] if the name or the VNI is taken: the VNI also, for a short time, by the device of a removed
    /// namespace that the kernel is still tearing down; try again.
    pub async fn create_vxlan(&self, vxlan: &Vxlan, into: &Netns) -> Result<(), Error> {
        let message = LinkVxlan::new(&vxlan.name, vxlan.vni)
            .port(vxlan.port)
            .port_range(vxlan.source_ports.0, vxlan.source_ports.1)
            .dev(vxlan.underlay)
            .learning(false);
        let message = match vxlan.local {
            IpAddr::V4(local) => message.local(local),
            IpAddr::V6(local) => message.local6(local),
        };
        let mut message = message.mtu(vxlan.mtu).setns_by_fd(into.raw_fd()).up();
        if let Some(master) = vxlan.master {
            message = message.controller(master);
        }
        let what = format!(
            "vxlan {} (VNI {}) into {}",
            vxlan.name,
            vxlan.vni,
            into.path().display()
        );
        self.create(message.build(), what).await
    }

    /// Whether this kernel has VXLAN devices, after loading the module if it is one. Asks for a device without a VNI, which
    /// no kernel makes: a kernel that knows the kind refuses it for that reason (`vxlan_validate`).
    pub async fn has_vxlan(&self) -> Result<bool, Error> {
        self.has_kind(InfoKind::Vxlan).await
    }

    async fn has_kind(&self, kind: InfoKind) -> Result<bool, Error> {
        let what = format!("devices of kind {kind}");
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind).build();
        match self.create(message, what).await {
            Err(error) if error.errno == Errno::INVAL.raw_os_error() => Ok(true),
            Err(error) if error.errno == Errno::OPNOTSUPP.raw_os_error() => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Makes a veth pair. [`Error::is_exists`] if a name, or the index, is taken.
    pub async fn create_veth(&self, veth: &Veth, peer_ns: &Netns) -> Result<(), Error> {
        let what = format!(
            "veth {} with {} into {}",
            veth.name,
            veth.peer.name,
            peer_ns.path().display()
        );
        let peer = LinkUnspec::new_with_name(&veth.peer.name).setns_by_fd(peer_ns.raw_fd());
        let peer = one_queue(shared(peer, veth.peer.mac, veth.peer.mtu, veth.peer.group)).build();
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(&veth.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        let message = if veth.up { message.up() } else { message };
        let mut message = one_queue(shared(message, veth.mac, veth.mtu, veth.group));
        if let Some(master) = veth.master {
            message = message.controller(master);
        }
        let mut message = message.build();
        message.header.index = veth.index.unwrap_or_default();
        self.create(message, what.clone()).await?;
        if veth.peer.up {
            // Not in the same message: the kernel would bring the peer up before the two are connected (ENOTCONN).
            let raise = LinkUnspec::new_with_name(&veth.peer.name).up().build();
            let there = Rtnl::open(peer_ns)
                .map_err(|e| Refusal::new(Errno::IO, e.to_string()).on(&what))?;
            let raised = there.request(Message::SetLink(raise), 0).await;
            raised.map_err(|refusal| refusal.on(format_args!("{what}: peer up")))?;
        }
        Ok(())
    }

    /// Creates a device that sends packets back to the link from which they were redirected (see [`Rtnl::redirect`]), and
    /// brings it up. [`Error::is_exists`] if the name is taken. A kernel that loads the module for it also makes two devices,
    /// down, in the machine's first namespace.
    pub async fn create_ifb(&self, name: &str, mtu: u32) -> Result<(), Error> {
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Ifb);
        let message = message.name(name.to_owned()).mtu(mtu).up().build();
        self.create(message, format!("ifb {name}")).await
    }

    async fn create(&self, message: LinkMessage, what: String) -> Result<(), Error> {
        let made = self
            .request(Message::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .await;
        made.map_err(|refusal| refusal.on(what))
    }

    /// The kernel does not say which index it gave (it echoes only since 6.0).
    async fn created(&self, name: &str) -> Result<Link, Error> {
        let gone = || {
            Refusal::new(Errno::NODEV, "vanished after it was made").on(format_args!("link {name}"))
        };
        self.link(name).await?.ok_or_else(gone)
    }
}

/// A veth without XDP ends up with one queue anyway. If none is named, the kernel makes a queue for each CPU and then waits for
/// a grace period to remove them (`veth_newlink` in drivers/net/veth.c).
fn one_queue<T>(message: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
    message
        .append_extra_attribute(LinkAttribute::NumTxQueues(1))
        .append_extra_attribute(LinkAttribute::NumRxQueues(1))
}

/// The part that all kinds have in common.
fn shared<T>(
    message: LinkMessageBuilder<T>,
    mac: Option<Mac>,
    mtu: u32,
    group: u32,
) -> LinkMessageBuilder<T> {
    let message = message.mtu(mtu).link_group(group);
    match mac {
        Some(mac) => message.address(mac.0.to_vec()),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_tells_which_kinds_it_has_and_makes_nothing() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_io().build().unwrap().block_on(ask());
    }

    async fn ask() {
        let rtnl = Rtnl::here(&Netns::current().unwrap()).unwrap();
        let before = rtnl.links().await.unwrap();
        assert!(rtnl.has_vxlan().await.unwrap());
        let nobodys = InfoKind::Other("nobodys".to_owned());
        assert!(!rtnl.has_kind(nobodys).await.unwrap());
        assert_eq!(rtnl.links().await.unwrap(), before);
    }
}
