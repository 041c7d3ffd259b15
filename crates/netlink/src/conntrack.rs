//! Removes connections from conntrack, over ctnetlink, the protocol of conntrack(8).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rustix::io::Errno;

use crate::Error;
use crate::attribute::{find, put};
use crate::dialogue::Dialogue;
use crate::entry::address;
use crate::error::Refusal;

const NETLINK_NETFILTER: isize = 12;
/// `NFNL_SUBSYS_CTNETLINK << 8`, and `IPCTNL_MSG_CT_GET`, `_DELETE` of it.
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_ZONE`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// In a tuple: `CTA_TUPLE_ZONE`, `CTA_TUPLE_IP` with `CTA_IP_V4_SRC` and `CTA_IP_V6_SRC`, `CTA_IP_V4_DST` and `CTA_IP_V6_DST`,
/// `CTA_TUPLE_PROTO` with `CTA_PROTO_NUM` and `CTA_PROTO_DST_PORT`.
const TUPLE_ZONE: u16 = 3;
const IP: u16 = 1;
const SOURCES: [u16; 2] = [1, 3];
const DESTINATIONS: [u16; 2] = [2, 4];
const PROTOCOL: u16 = 2;
const NUMBER: u16 = 1;
const PORT: u16 = 3;
/// `NLA_F_NESTED`
const NESTED: u16 = 1 << 15;

/// Connections by their original destination port and by one of their ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flows {
    /// Whether they are of IPv6.
    pub v6: bool,
    /// The IP protocol number.
    pub protocol: u8,
    /// The original destination ports.
    pub ports: RangeInclusive<u16>,
    /// Tells them from connections to the same port of other hosts, which this host only forwards.
    pub end: End,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The original destination is one of these addresses.
    To(Arc<[IpAddr]>),
    /// Replies come from this address.
    AnsweredBy(IpAddr),
}

/// A connection to remove, as the kernel identifies it.
struct Tracked {
    v6: bool,
    original: Vec<u8>,
    id: Option<Vec<u8>>,
}

/// What tells which connection it is.
struct Ends {
    protocol: u8,
    /// The original destination port, where the protocol has ports.
    port: Option<u16>,
    /// The original source and destination, and the source of replies.
    source: IpAddr,
    destination: IpAddr,
    answering: IpAddr,
}

/// Removes these connections of the default zone in the calling thread's network namespace; returns how many there were. A
/// kernel without conntrack has none.
pub fn forget(flows: &[Flows]) -> Result<usize, Error> {
    let mut forgotten = 0;
    for v6 in [false, true] {
        let mut ends = BTreeMap::<_, Vec<_>>::new();
        for flow in flows.iter().filter(|flow| flow.v6 == v6) {
            for port in flow.ports.clone() {
                let ends = ends.entry((flow.protocol, port)).or_default();
                ends.push(&flow.end);
            }
        }
        if ends.is_empty() {
            continue;
        }
        forgotten += forget_where(v6, |it| {
            let is_end = |end: &&End| match end {
                End::To(addresses) => addresses.contains(&it.destination),
                End::AnsweredBy(address) => *address == it.answering,
            };
            let ends = it.port.and_then(|port| ends.get(&(it.protocol, port)));
            ends.is_some_and(|ends| ends.iter().any(is_end))
        })?;
    }
    Ok(forgotten)
}

/// The same of all connections that one of these addresses began or answers.
pub fn forget_all_of(addresses: &BTreeSet<IpAddr>) -> Result<usize, Error> {
    let mut forgotten = 0;
    for v6 in [false, true] {
        if addresses.iter().any(|address| address.is_ipv6() == v6) {
            forgotten += forget_where(v6, |it| {
                addresses.contains(&it.source) || addresses.contains(&it.answering)
            })?;
        }
    }
    Ok(forgotten)
}

/// Removes the connections of one version of IP for which `wanted` is true.
fn forget_where(v6: bool, wanted: impl Fn(&Ends) -> bool) -> Result<usize, Error> {
    let forgot = || {
        let mut dialogue = Dialogue::open(NETLINK_NETFILTER)?;
        let mut forgotten = 0;
        let mut found = Vec::new();
        let family = if v6 { AF_INET6 } else { AF_INET };
        let listed = dialogue.dump(GET, &[family, 0, 0, 0], |message| {
            found.extend(tracked(message, v6, &wanted));
        });
        match listed {
            // The kernel has no conntrack.
            Err(refusal) if refusal.is(Errno::INVAL) || refusal.is(Errno::OPNOTSUPP) => {
                return Ok(0);
            }
            listed => listed?,
        }
        for one in &found {
            match dialogue.request(DELETE, &one.message()) {
                Err(refusal) if refusal.is(Errno::NOENT) => {}
                told => {
                    told?;
                    forgotten += 1;
                }
            }
        }
        Ok(forgotten)
    };
    forgot().map_err(|refusal: Refusal| refusal.on("tracked connections"))
}

/// The connection of a message, if it is of the default zone and `wanted`.
fn tracked(message: &[u8], v6: bool, wanted: impl Fn(&Ends) -> bool) -> Option<Tracked> {
    let attributes = message.get(HEADER..)?;
    let original = find(attributes, ORIGINAL)?;
    // Only other zones than the default one are sent: a zone for both directions beside the tuples, one for this direction in
    // the tuple.
    let zones = [find(attributes, ZONE), find(original, TUPLE_ZONE)];
    if zones.into_iter().flatten().any(|zone| zone != [0, 0]) {
        return None;
    }
    let proto = find(original, PROTOCOL)?;
    let end = |tuple, kinds: [u16; 2]| address(find(find(tuple, IP)?, kinds[usize::from(v6)])?);
    let port = find(proto, PORT).and_then(<[u8]>::first_chunk);
    let ends = Ends {
        protocol: *find(proto, NUMBER)?.first()?,
        port: port.map(|port| u16::from_be_bytes(*port)),
        source: end(original, SOURCES)?,
        destination: end(original, DESTINATIONS)?,
        answering: end(find(attributes, REPLY)?, SOURCES)?,
    };
    wanted(&ends).then(|| Tracked {
        v6,
        original: original.to_vec(),
        id: find(attributes, ID).map(<[u8]>::to_vec),
    })
}

impl Tracked {
    /// With its id, so that a newer connection between the same ends stays.
    fn message(&self) -> Vec<u8> {
        let family = if self.v6 { AF_INET6 } else { AF_INET };
        let mut message = vec![family, 0, 0, 0];
        put(&mut message, ORIGINAL | NESTED, &self.original);
        if let Some(id) = &self.id {
            put(&mut message, ID, id);
        }
        message
    }
}
