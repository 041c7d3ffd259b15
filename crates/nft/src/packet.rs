//! A packet of ours before the chains of others, as far as it is known.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use netlink_packet_netfilter::nftables::{HookNumber, InetHookNumber, MetaKey};

use crate::element::octets;
use crate::rules::{IFNAME_BYTES, NETWORK_HEADER, PORT_OFFSET, TRANSPORT_HEADER};

/// `IPS_DST_NAT`, `IPS_DST_NAT_DONE`
pub(crate) const DST_NAT: u32 = 1 << 5;
const DST_NAT_DONE: u32 = 1 << 8;

/// Where a packet meets the chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// It comes to this host, and nobody knows where to.
    Prerouting,
    /// It comes to this host.
    Input,
    /// It goes through this host.
    Forward,
    /// It leaves this host.
    Output,
    /// It leaves this host, wherever it came from.
    Postrouting,
}

impl Hook {
    pub(crate) fn number(self) -> HookNumber {
        HookNumber::Inet(match self {
            Self::Prerouting => InetHookNumber::PreRouting,
            Self::Input => InetHookNumber::LocalIn,
            Self::Forward => InetHookNumber::Forward,
            Self::Output => InetHookNumber::LocalOut,
            Self::Postrouting => InetHookNumber::PostRouting,
        })
    }

    /// The chain in table `filter` of iptables, which has one at these hooks alone.
    pub(crate) fn of_iptables(self) -> Option<&'static str> {
        match self {
            Self::Input => Some("INPUT"),
            Self::Forward => Some("FORWARD"),
            Self::Output => Some("OUTPUT"),
            Self::Prerouting | Self::Postrouting => None,
        }
    }
}

/// What is known of one end of a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Endpoint {
    /// The address.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: Option<u16>,
}

impl From<SocketAddr> for Endpoint {
    fn from(at: SocketAddr) -> Self {
        Self {
            address: Some(at.ip()),
            port: Some(at.port()),
        }
    }
}

/// What is known of a packet. `Packet { state, ..Packet::at(hook, v6) }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Where it meets the chains.
    pub hook: Hook,
    /// The chains of which priorities meet it like this: it is changed on its way.
    pub priorities: RangeInclusive<i32>,
    /// Of IPv6.
    pub v6: bool,
    /// Name and index of the interface that it came by.
    pub iif: Option<(&'a str, u32)>,
    /// The same of the one that it leaves by.
    pub oif: Option<(&'a str, u32)>,
    /// How its connection stands, one of the constants below.
    pub state: u32,
    /// The number of its protocol in IP.
    pub protocol: Option<u8>,
    /// Where it comes from.
    pub from: Endpoint,
    /// Where it goes.
    pub to: Endpoint,
}

impl Packet<'_> {
    /// Of no connection yet: before the kernel has looked.
    pub const UNSEEN: u32 = 1;
    /// A reply to what was let out.
    pub const ESTABLISHED: u32 = 2;
    /// The first of a connection.
    pub const NEW: u32 = 8;
    /// The first of a connection, to another address than it was sent to; the second bit is known to iptables alone.
    pub const TRANSLATED: u32 = Self::NEW | Self::OF_IPTABLES;
    /// Of no connection.
    pub const UNTRACKED: u32 = 64;

    const OF_IPTABLES: u32 = 1 << 7;

    /// The first one of a connection, of which nothing else is known.
    pub fn at(hook: Hook, v6: bool) -> Self {
        Self {
            hook,
            priorities: i32::MIN..=i32::MAX,
            v6,
            iif: None,
            oif: None,
            state: Self::NEW,
            protocol: None,
            from: Endpoint::default(),
            to: Endpoint::default(),
        }
    }

    /// Whether it has to become one of a connection yet, to be led on.
    pub(crate) fn needs_tracking(&self) -> bool {
        self.state == Self::UNSEEN
    }

    /// Whether chains of this type see it: those of NAT see the first one of a connection alone, and none looks where to lead
    /// what is led somewhere already.
    pub(crate) fn meets(&self, kind: &str) -> bool {
        let is_led = self.hook == Hook::Prerouting && self.state != Self::NEW;
        kind != "nat" || (self.state & Self::NEW != 0 && !is_led)
    }

    /// How its connection stands, in the bits of `ct state`.
    pub(crate) fn nft_state(&self) -> u32 {
        self.state & !Self::OF_IPTABLES
    }

    /// What has become of its connection, in the bits of `ct status`, if that is known: that of a first packet.
    pub(crate) fn status(&self) -> Option<u32> {
        match self.state {
            Self::NEW => Some(0),
            Self::TRANSLATED => Some(DST_NAT | DST_NAT_DONE),
            _ => None,
        }
    }

    /// What a rule reads of it into a register.
    pub(crate) fn meta(&self, key: MetaKey) -> Option<Vec<u8>> {
        let name = |interface: Option<(&str, u32)>| {
            let mut name = interface?.0.as_bytes().to_vec();
            name.resize(IFNAME_BYTES, 0);
            Some(name)
        };
        let index = |interface: Option<(&str, u32)>| Some(interface?.1.to_ne_bytes().to_vec());
        match key {
            MetaKey::Iifname => name(self.iif),
            MetaKey::Oifname => name(self.oif),
            MetaKey::Iif => index(self.iif),
            MetaKey::Oif => index(self.oif),
            MetaKey::Nfproto => Some(vec![if self.v6 { 10 } else { 2 }]),
            MetaKey::L4Proto => self.protocol.map(|number| vec![number]),
            _ => None,
        }
    }

    /// Some bytes of one of its headers, as a rule reads them; if they are of one field that is known.
    pub(crate) fn bytes(&self, header: u32, offset: u32, length: u32) -> Option<Vec<u8>> {
        self.fields(header).into_iter().find_map(|(start, field)| {
            let from = usize::try_from(offset.checked_sub(start)?).ok()?;
            let length = usize::try_from(length).ok()?;
            Some(field?.get(from..)?.get(..length)?.to_vec())
        })
    }

    /// Where its fields begin in a header (RFC 791, 8200, 9293, 768), and what is in them.
    fn fields(&self, header: u32) -> Vec<(u32, Option<Vec<u8>>)> {
        let address = |end: Endpoint| end.address.map(octets);
        let port = |end: Endpoint| end.port.map(|port| port.to_be_bytes().to_vec());
        let protocol = self.protocol.map(|number| vec![number]);
        let (from, to) = (self.from, self.to);
        match header {
            NETWORK_HEADER if self.v6 => {
                vec![(6, protocol), (8, address(from)), (24, address(to))]
            }
            NETWORK_HEADER => vec![(9, protocol), (12, address(from)), (16, address(to))],
            TRANSPORT_HEADER => vec![(0, port(from)), (PORT_OFFSET, port(to))],
            _ => vec![],
        }
    }
}
