//! One of our packets, as far as it is known, where it meets foreign chains.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use netlink_packet_netfilter::nftables::{HookNumber, InetHookNumber, MetaKey};

use nft::expr::{DST_NAT, IFNAME_BYTES, NETWORK_HEADER, PORT_OFFSET, TRANSPORT_HEADER};

/// Where a packet meets chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// It arrives at this host and is not routed yet.
    Prerouting,
    /// It arrives, and is for this host.
    Input,
    /// This host forwards it.
    Forward,
    /// This host sends it.
    Output,
    /// It leaves this host, sent or forwarded.
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

    /// The chain in iptables' table `filter`, which has chains at these three hooks only.
    pub(crate) fn of_iptables(self) -> Option<&'static str> {
        match self {
            Self::Input => Some("INPUT"),
            Self::Forward => Some("FORWARD"),
            Self::Output => Some("OUTPUT"),
            Self::Prerouting | Self::Postrouting => None,
        }
    }
}

/// The state of a packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Connection tracking has not seen the packet yet.
    Unseen,
    /// The packet is the first one.
    New,
    /// The packet is the first one, and its destination was translated.
    Translated,
    /// The packet is a reply.
    Reply,
    /// The packet is a reply on a connection whose destination was translated.
    ReplyOfTranslated,
    /// The packet is exempt from connection tracking (`notrack`).
    Untracked,
}

impl State {
    /// As bits of `ct state` (`linux/netfilter/nf_conntrack_common.h`).
    pub(crate) fn of_nft(self) -> u32 {
        match self {
            Self::Unseen => 1,
            Self::New | Self::Translated => 8,
            Self::Reply | Self::ReplyOfTranslated => 2,
            Self::Untracked => 64,
        }
    }

    /// As bits of `--ctstate` (`linux/netfilter/xt_conntrack.h`), which also has bits for translated connections.
    pub(crate) fn of_iptables(self) -> u32 {
        const DNAT: u32 = 1 << 7;
        match self {
            Self::Translated | Self::ReplyOfTranslated => self.of_nft() | DNAT,
            Self::Untracked => 1 << 8,
            _ => self.of_nft(),
        }
    }

    /// The bits of `ct status` that are set, and those that are known.
    pub(crate) fn status(self) -> (u32, u32) {
        match self {
            Self::New => (0, DST_NAT),
            Self::Translated | Self::ReplyOfTranslated => (DST_NAT, DST_NAT),
            Self::Unseen | Self::Reply | Self::Untracked => (0, 0),
        }
    }

    fn is_first(self) -> bool {
        matches!(self, Self::New | Self::Translated)
    }
}

/// What is known of a packet's source or destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Endpoint {
    /// The address.
    pub(crate) address: Option<IpAddr>,
    /// The port.
    pub(crate) port: Option<u16>,
}

impl From<SocketAddr> for Endpoint {
    fn from(at: SocketAddr) -> Self {
        Self {
            address: Some(at.ip()),
            port: Some(at.port()),
        }
    }
}

/// Name and index of an interface. No interface has the index 0: it stands for one that is gone, or not there yet, of which a
/// rule can only know the name.
pub type Interface<'a> = (&'a str, u32);

/// What is known of a packet. `Packet { state, ..Packet::at(hook, v6) }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    /// Where it meets the chains.
    pub(crate) hook: Hook,
    /// The priorities of the chains that meet the packet in this form: it changes on its way through the hook.
    pub(crate) priorities: RangeInclusive<i32>,
    /// Whether it is an IPv6 packet.
    pub(crate) v6: bool,
    /// The interface by which it arrived.
    pub(crate) iif: Option<Interface<'a>>,
    /// The interface by which it leaves.
    pub(crate) oif: Option<Interface<'a>>,
    /// The state of its connection.
    pub(crate) state: State,
    /// Its IP protocol number.
    pub(crate) protocol: Option<u8>,
    /// Its source.
    pub(crate) from: Endpoint,
    /// Its destination.
    pub(crate) to: Endpoint,
}

impl Packet<'_> {
    /// The first packet of a connection, with nothing else known.
    pub(crate) fn at(hook: Hook, v6: bool) -> Self {
        Self {
            hook,
            priorities: i32::MIN..=i32::MAX,
            v6,
            iif: None,
            oif: None,
            state: State::New,
            protocol: None,
            from: Endpoint::default(),
            to: Endpoint::default(),
        }
    }

    /// Whether it still needs to be tracked, so that it can be translated.
    pub(crate) fn needs_tracking(&self) -> bool {
        self.state == State::Unseen
    }

    /// Whether chains of this type see it. NAT chains see only the first packet of a connection, and do not translate a
    /// destination again.
    pub(crate) fn meets(&self, kind: &str) -> bool {
        let leads = matches!(self.hook, Hook::Prerouting | Hook::Output);
        let is_led = leads && self.state == State::Translated;
        kind != "nat" || (self.state.is_first() && !is_led)
    }

    /// The value that `meta` loads into a register.
    pub(crate) fn meta(&self, key: MetaKey) -> Option<Vec<u8>> {
        let name = |interface: Option<Interface<'_>>| {
            let mut name = interface?.0.as_bytes().to_vec();
            name.resize(IFNAME_BYTES, 0);
            Some(name)
        };
        let index = |interface: Option<Interface<'_>>| Some(interface?.1.to_ne_bytes().to_vec());
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

    /// The bytes of a header that `payload` loads, if they lie in one field that is known.
    pub(crate) fn bytes(&self, header: u32, offset: u32, length: u32) -> Option<Vec<u8>> {
        self.fields(header).into_iter().find_map(|(start, field)| {
            let from = usize::try_from(offset.checked_sub(start)?).ok()?;
            let length = usize::try_from(length).ok()?;
            Some(field?.get(from..)?.get(..length)?.to_vec())
        })
    }

    /// The offsets of the fields of a header (RFC 791, 8200, 9293, 768), with their values.
    fn fields(&self, header: u32) -> Vec<(u32, Option<Vec<u8>>)> {
        let address = |end: Endpoint| {
            end.address.map(|address| match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            })
        };
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
