//! Links: look up, change, remove.
//!
//! Removing a link takes the kernel RCU grace periods (13 ms here), but only once for all links that one message names. Hence
//! [`Rtnl::remove_group`]: links of one attachment share a group number, so one message removes them together (two veths in 13
//! ms instead of 32). The far end of a veth is removed with it, in any namespace.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use crate::message::Message;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkUnspec};
use rustix::io::Errno;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketType};

use crate::error::Refusal;
use crate::{Change, Error, Forwarding, Mac, Rtnl};

/// A network interface, as the kernel shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index in its namespace.
    pub index: u32,
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Hardware address, if it is an Ethernet one.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// `veth`, `bridge`, `vxlan`, ...; none for physical devices and `lo`.
    pub kind: Option<String>,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Group number; 0 is the default group.
    pub group: u32,
    /// The alias text.
    pub alias: Option<String>,
    /// Only a VXLAN device has it.
    pub vxlan: Option<VxlanInfo>,
    /// Only a bridge port has it.
    pub port: Port,
    /// Whether it is a bridge port in the state forwarding.
    pub forwards: bool,
}

/// The tunnel side of a VXLAN device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VxlanInfo {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// UDP source ports, from the first on, below the second; both 0 for those of all sockets.
    pub source_ports: (u16, u16),
    /// Source address of the tunnel.
    pub local: Option<IpAddr>,
    /// Index of the underlay link in the namespace where the device was created; 0 if none.
    pub underlay: u32,
    /// Whether it learns VTEPs from traffic.
    pub learning: bool,
    /// Whether it decodes packets in another way than a plain device: such devices cannot share a UDP port with a plain one.
    pub peculiar: bool,
}

/// Changes of a link; `None` changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Administrative state.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Bridge to join by index; 0 leaves the bridge.
    pub master: Option<u32>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Group number.
    pub group: Option<u32>,
    /// Alias text, at most 255 bytes.
    pub alias: Option<String>,
}

/// The settings of a bridge port, or changes of them; `None` changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    /// Answer ARP and ND for known neighbours instead of sending them out of this port.
    pub neigh_suppress: Option<bool>,
    /// Learn source addresses on this port.
    pub learning: Option<bool>,
    /// Isolated ports do not talk to each other.
    pub isolated: Option<bool>,
    /// Send frames back out of the port they came in by.
    pub hairpin: Option<bool>,
    /// Send frames for unknown receivers out of this port.
    pub flood: Option<bool>,
}

impl Port {
    /// The request that changes a port to this.
    fn message(&self, mut message: LinkMessageBuilder<LinkBridgePort>) -> Message {
        if let Some(on) = self.neigh_suppress {
            message = message.neigh_suppress(on);
        }
        if let Some(on) = self.learning {
            message = message.learning(on);
        }
        if let Some(on) = self.isolated {
            message = message.isolated(on);
        }
        if let Some(on) = self.hairpin {
            message = message.hairpin(on);
        }
        if let Some(on) = self.flood {
            message = message.flood(on);
        }
        // NEWLINK: SETLINK ignores a port's data.
        Message::NewLink(message.build())
    }
}

/// A port of a bridge that is to come up, and what it should have before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaisedPort {
    /// Its index.
    pub index: u32,
    /// Index of its bridge.
    pub bridge: u32,
    /// Static entries of the bridge for this port.
    pub entries: Forwarding,
    /// Its settings.
    pub settings: Port,
}

impl RaisedPort {
    /// The requests, in their order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (Message, u16)> {
        let entries = self.entries.iter();
        let entries = entries.map(|it| Change::Add(*it).request(self.bridge, self.index));
        let up = LinkBridgePort::new(self.index).up();
        entries.chain([(self.settings.message(up), 0)])
    }
}

/// The name of a link of the namespace in which the calling thread is.
pub fn name_of(index: u32) -> Result<String, Error> {
    ask(
        |socket| index_to_name(socket, index),
        format_args!("name of link {index}"),
    )
}

/// The index of a link of the namespace in which the calling thread is.
pub fn index_of(name: &str) -> Result<u32, Error> {
    ask(
        |socket| name_to_index(socket, name),
        format_args!("index of link {name}"),
    )
}

/// Asks a socket of the thread's namespace for `what`.
fn ask<T>(
    asked: impl FnOnce(OwnedFd) -> rustix::io::Result<T>,
    what: fmt::Arguments<'_>,
) -> Result<T, Error> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
    socket.and_then(asked).map_err(|errno| {
        let refusal = Refusal::from(std::io::Error::from(errno));
        refusal.on(what)
    })
}

impl Rtnl {
    /// The link of that name, `None` if there is none.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkUnspec::new_with_name(name).build();
        message.attributes.push(without_statistics());
        match self.get(Message::GetLink(message)).await {
            Ok(Message::Link(found)) => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(refusal) if refusal.is(Errno::NODEV) => Ok(None),
            Err(refusal) => Err(refusal.on(format_args!("link {name}"))),
        }
    }

    /// All links of the namespace, by index.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(without_statistics());
        let link = |message| match message {
            Message::Link(link) => Some(link),
            _ => None,
        };
        let found = self.dump(Message::GetLink(message), link).await;
        let mut links: Vec<Link> = found.map_err(|refusal| refusal.on("list of links"))?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// Changes a link.
    pub async fn set_link(&self, index: u32, change: &LinkChange) -> Result<(), Error> {
        let mut message = LinkUnspec::new_with_index(index);
        message = match change.up {
            Some(true) => message.up(),
            Some(false) => message.down(),
            None => message,
        };
        let mut message = message.build();
        message
            .attributes
            .extend(change.mtu.map(LinkAttribute::Mtu));
        message
            .attributes
            .extend(change.master.map(LinkAttribute::Controller));
        message
            .attributes
            .extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        message
            .attributes
            .extend(change.group.map(LinkAttribute::Group));
        message
            .attributes
            .extend(change.alias.clone().map(LinkAttribute::IfAlias));
        let done = self.request(Message::SetLink(message), 0).await;
        done.map_err(|refusal| refusal.on(format_args!("link {index}: {change}")))
    }

    /// Changes the bridge port of that name.
    pub async fn set_port(&self, name: &str, port: &Port) -> Result<(), Error> {
        let message = port.message(LinkBridgePort::new(0).name(name));
        let done = self.request(message, 0).await;
        done.map_err(|refusal| refusal.on(format_args!("bridge port {name}: {port:?}")))
    }

    /// Gives the port what it should have and then brings it up, in one send.
    pub async fn raise_port(&self, port: &RaisedPort) -> Result<(), Error> {
        let what = || format!("bridge port {}", port.index);
        let answers = self.request_all(port.requests().collect()).await;
        let answers = answers.map_err(|refusal| refusal.on(what()))?;
        for answer in answers {
            answer.map_err(|refusal| refusal.on(what()))?;
        }
        Ok(())
    }

    /// Removes the link of that name; false if there was none.
    pub async fn remove_link(&self, name: &str) -> Result<bool, Error> {
        self.remove(
            LinkUnspec::new_with_name(name).build(),
            format!("removal of link {name}"),
        )
        .await
    }

    /// Removes all links of the group (not 0) in this namespace in one batch; false if there were none.
    pub async fn remove_group(&self, group: u32) -> Result<bool, Error> {
        let message = LinkUnspec::new_with_index(0).link_group(group).build();
        self.remove(message, format!("removal of link group {group}"))
            .await
    }

    async fn remove(&self, message: LinkMessage, what: String) -> Result<bool, Error> {
        match self.request(Message::DelLink(message), 0).await {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.is(Errno::NODEV) => Ok(false),
            Err(refusal) => Err(refusal.on(what)),
        }
    }
}

/// In the syntax of `ip link set`, for messages.
impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.up.map(|up| if up { "up" } else { "down" }.to_owned()),
            self.mtu.map(|mtu| format!("mtu {mtu}")),
            self.master.map(|master| format!("master {master}")),
            self.mac.map(|mac| format!("address {mac}")),
            self.group.map(|group| format!("group {group}")),
            self.alias.as_ref().map(|alias| format!("alias {alias:?}")),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// Statistics are half of a link's message, and are not used here.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}
