//! A packet of ours before the chains of others, as far as it is known.

use netlink_packet_netfilter::nftables::{HookNumber, InetHookNumber, MetaKey};

use crate::rules::{IFNAME_BYTES, UDP};

/// `IPS_DST_NAT`, `IPS_DST_NAT_DONE`
pub(crate) const DST_NAT: u32 = 1 << 5;
const DST_NAT_DONE: u32 = 1 << 8;

/// Where a packet meets the chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// It comes to this host.
    Input,
    /// It goes through this host.
    Forward,
    /// It leaves this host.
    Output,
}

impl Hook {
    pub(crate) fn number(self) -> HookNumber {
        HookNumber::Inet(match self {
            Self::Input => InetHookNumber::LocalIn,
            Self::Forward => InetHookNumber::Forward,
            Self::Output => InetHookNumber::LocalOut,
        })
    }

    /// The chain of iptables.
    pub(crate) fn of_iptables(self) -> &'static str {
        match self {
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
        }
    }
}

/// What is known of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Where it meets the chains.
    pub hook: Hook,
    /// Of IPv6.
    pub v6: bool,
    /// Name and index of the interface that it came by.
    pub iif: Option<(&'a str, u32)>,
    /// The same of the one that it leaves by.
    pub oif: Option<(&'a str, u32)>,
    /// How its connection stands, one of the constants below.
    pub state: u32,
    /// It is of UDP to this port; else of any protocol.
    pub udp: Option<u16>,
}

impl Packet<'_> {
    /// A reply to what was let out.
    pub const ESTABLISHED: u32 = 2;
    /// The first of a connection.
    pub const NEW: u32 = 8;
    /// The first of a connection, to another address than it was sent to; the second bit is known to iptables alone.
    pub const TRANSLATED: u32 = Self::NEW | 1 << 7;
    /// Of no connection.
    pub const UNTRACKED: u32 = 64;

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
            MetaKey::L4Proto => self.udp.map(|_| vec![UDP]),
            _ => None,
        }
    }
}
