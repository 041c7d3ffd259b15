//! Notifications of the kernel: multicast groups of netlink, decoded only as far as to know whether they may concern our
//! objects. The caller then looks for itself; so a notification that is truncated or lost costs one more look.

use std::io;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use rustix::io::Errno;

use crate::attribute::find;
use crate::{Netns, NetnsError, rtnl};

/// Groups of rtnetlink (`RTNLGRP_`, uapi `linux/rtnetlink.h`).
const LINK: u32 = 1;
const NEIGH: u32 = 3;
const TC: u32 = 4;
const IPV4_IFADDR: u32 = 5;
const IPV4_ROUTE: u32 = 7;
const IPV6_IFADDR: u32 = 9;
const IPV6_ROUTE: u32 = 11;
const IPV4_NETCONF: u32 = 24;
const IPV6_NETCONF: u32 = 25;
/// `NFNLGRP_NFTABLES` (uapi `linux/netfilter/nfnetlink.h`).
const NFTABLES: u32 = 7;

/// Kinds of messages (`RTM_`).
const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const DELROUTE: u16 = 25;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const DELQDISC: u16 = 37;
const DELTFILTER: u16 = 45;
const NEWNETCONF: u16 = 80;

/// Bytes of a message's header, and of what comes before the attributes of a link, of switches and of nftables.
const HEADER: usize = 16;
const OF_LINK: usize = 16;
const OF_NETCONF: usize = 4;
const OF_NFTABLES: usize = 4;

/// How much of a notification is read. One of rtnetlink has a single object, and what is needed comes first.
const BEGINNING: usize = 512;
/// How much of a notification of nftables is read: it may have many changes. If it is longer, the rest may concern our table.
const RULES: usize = 4096;

/// The objects whose changes a socket reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All links, configured neighbour and bridge entries, and the loss of queueing disciplines and their filters: for a
    /// namespace of our own.
    Sandbox,
    /// The links whose names begin with this prefix, addresses other than link-local ones, the loss of routes to other hosts,
    /// and the switches of all interfaces, such as `ip_forward`: for a namespace that other programs use too.
    Host(&'static str),
    /// The nftables tables of this name.
    Rules(&'static str),
}

/// A socket that receives notifications of changes in one namespace.
///
/// It keeps the namespace alive as long as it is open.
pub struct Notices {
    socket: TokioSocket,
    scope: Scope,
    received: Vec<u8>,
}

impl Notices {
    /// Listens in `netns`. Must be called inside a tokio runtime with I/O enabled.
    pub fn open(netns: &Netns, scope: Scope) -> Result<Self, NetnsError> {
        let socket = rtnl::born_in(netns, || subscribe(scope))?;
        let capacity = match scope {
            Scope::Rules(_) => RULES,
            _ => BEGINNING,
        };
        Ok(Self {
            socket,
            scope,
            received: Vec::with_capacity(capacity),
        })
    }

    /// Waits for the next notification; returns whether it may concern the scope, also if notifications were lost.
    pub async fn next(&mut self) -> io::Result<bool> {
        self.received.clear();
        match self.socket.recv(&mut self.received).await {
            Ok(()) => Ok(concerns(&self.received, self.scope)),
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// A socket of the namespace in which the calling thread is.
fn subscribe(scope: Scope) -> io::Result<TokioSocket> {
    let (protocol, groups): (_, &[u32]) = match scope {
        Scope::Sandbox => (NETLINK_ROUTE, &[LINK, NEIGH, TC]),
        Scope::Host(_) => (
            NETLINK_ROUTE,
            &[
                LINK,
                IPV4_IFADDR,
                IPV6_IFADDR,
                IPV4_ROUTE,
                IPV6_ROUTE,
                IPV4_NETCONF,
                IPV6_NETCONF,
            ],
        ),
        Scope::Rules(_) => (NETLINK_NETFILTER, &[NFTABLES]),
    };
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

/// Whether a datagram has a message about the scope.
fn concerns(datagram: &[u8], scope: Scope) -> bool {
    let mut rest = datagram;
    while let Some((length, kind)) = header(rest) {
        let end = length.min(rest.len());
        let body = rest.get(HEADER..end).unwrap_or_default();
        let ours = match scope {
            Scope::Sandbox => touches_sandbox(kind, body),
            Scope::Host(prefix) => touches_host(kind, body, prefix),
            Scope::Rules(table) => names_table(body, table),
        };
        if ours || (length > rest.len() && matches!(scope, Scope::Rules(_))) {
            return true;
        }
        rest = rest
            .get(length.next_multiple_of(4).max(HEADER)..)
            .unwrap_or_default();
    }
    false
}

/// Length and kind of the first message.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    Some((usize::try_from(length).ok()?, kind))
}

fn touches_sandbox(kind: u16, body: &[u8]) -> bool {
    /// `NUD_NOARP`, `NUD_PERMANENT`: a configured entry. A bridge learns and forgets others by itself.
    const SET: u16 = 0x40 | 0x80;
    match kind {
        NEWLINK | DELLINK | DELQDISC | DELTFILTER => true,
        NEWNEIGH | DELNEIGH => body
            .get(8..10)
            .is_none_or(|state| u16::from_ne_bytes([state[0], state[1]]) & SET != 0),
        _ => false,
    }
}

fn touches_host(kind: u16, body: &[u8], prefix: &str) -> bool {
    /// `RT_SCOPE_UNIVERSE`
    const EVERYWHERE: u8 = 0;
    /// `RT_TABLE_MAIN`, `RTN_UNICAST`
    const MAIN: u8 = 254;
    const UNICAST: u8 = 1;
    /// `NETCONFA_IFINDEX`, `NETCONFA_IFINDEX_ALL` (uapi `linux/netconf.h`).
    const IFINDEX: u16 = 1;
    const OF_ALL: [u8; 4] = (-1_i32).to_ne_bytes();
    match kind {
        NEWLINK | DELLINK => has_text(body, OF_LINK, 3, |name| name.starts_with(prefix)),
        NEWADDR | DELADDR => body.get(3) == Some(&EVERYWHERE),
        DELROUTE => body.get(4) == Some(&MAIN) && body.get(7) == Some(&UNICAST),
        NEWNETCONF => has(body, OF_NETCONF, IFINDEX, |number| number == OF_ALL),
        _ => false,
    }
}

fn names_table(body: &[u8], table: &str) -> bool {
    // In every notification of nftables the name of the table is the first attribute.
    has_text(body, OF_NFTABLES, 1, |name| name == table)
}

/// Whether the first attribute of this kind is such a text, if it is in the truncated message.
fn has_text(body: &[u8], before: usize, kind: u16, is: impl Fn(&str) -> bool) -> bool {
    has(body, before, kind, |value| {
        let text = value.split(|byte| *byte == 0).next();
        text.and_then(|text| std::str::from_utf8(text).ok())
            .is_some_and(&is)
    })
}

/// The same for any value.
fn has(body: &[u8], before: usize, kind: u16, is: impl Fn(&[u8]) -> bool) -> bool {
    find(body.get(before..).unwrap_or_default(), kind).is_some_and(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn named(before: usize, kind: u16, name: &str) -> Vec<u8> {
        let mut body = vec![0; before];
        body.extend(u16::try_from(4 + name.len() + 1).unwrap().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(name.as_bytes());
        body.push(0);
        body
    }

    #[test]
    fn a_host_hears_of_its_own_links_and_not_of_others() {
        let of = |name: &str| {
            concerns(
                &message(DELLINK, &named(OF_LINK, 3, name)),
                Scope::Host("ch"),
            )
        };
        assert!(of("ch-egress") && of("chh0123"));
        assert!(!of("veth0123") && !of("docker0"));
        let address = |scope: u8| {
            let body = [2, 24, 0, scope, 0, 0, 0, 0];
            concerns(&message(DELADDR, &body), Scope::Host("ch"))
        };
        assert!(
            address(0) && !address(253),
            "link-local ones come with each link"
        );
        let switch = |interface: i32| {
            let mut body = vec![2, 0, 0, 0, 8, 0, 1, 0];
            body.extend(interface.to_ne_bytes());
            concerns(&message(NEWNETCONF, &body), Scope::Host("ch"))
        };
        assert!(switch(-1) && !switch(7), "those of each new link come, too");
    }

    #[test]
    fn a_sandbox_hears_of_entries_that_were_set_and_not_of_learnt_ones() {
        let of = |state: u16| {
            let mut body = vec![0; 12];
            body[8..10].copy_from_slice(&state.to_ne_bytes());
            concerns(&message(DELNEIGH, &body), Scope::Sandbox)
        };
        assert!(of(0x80) && of(0x40) && !of(0x02));
    }

    #[test]
    fn the_second_of_two_changes_of_rules_is_heard_and_one_that_is_cut_off_may_be_ours() {
        let rule = |table: &str| message(0x0a06, &named(OF_NFTABLES, 1, table));
        let scope = Scope::Rules("crosshost");
        assert!(!concerns(&rule("filter"), scope));
        let both = [rule("filter"), rule("crosshost")].concat();
        assert!(concerns(&both, scope));
        let others = [rule("filter"), rule("nat")].concat();
        assert!(!concerns(&others, scope));
        assert!(concerns(&others[..others.len() - 4], scope));
    }

    #[test]
    fn garbage_ends() {
        for scope in [Scope::Sandbox, Scope::Host("ch"), Scope::Rules("crosshost")] {
            for length in 0..40 {
                concerns(&vec![0; length], scope);
                concerns(&vec![0xff; length], scope);
            }
        }
    }
}
