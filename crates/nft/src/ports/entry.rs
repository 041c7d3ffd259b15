//! Elements of the maps and sets of published ports, and their owners.
//!
//! An element may have several owners: networks of a container that all publish its port 80 as 8080, or lead there over one
//! egress address. So its comment begins with the digests of all owners, followed by the first owner in words.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute,
};

use super::skeleton::{SETS4, SETS6, Sets};
use crate::channel::{Change, Channel};
use crate::element::{LONGEST_COMMENT, elements, message, octets, owner, user_data};
use crate::error::Error;
use crate::expr::ifname;
use crate::skeleton::on;

/// An attribute's length has 16 bits, and one attribute holds all elements of a message. This is for the longest key, comment
/// and data.
const AT_ONCE: usize = 150;

/// A port of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Whether it is a port of IPv6.
    pub v6: bool,
    /// The host's address; `None` means any.
    pub address: Option<IpAddr>,
    /// The IP protocol number: 6, 17, 132.
    pub protocol: u8,
    /// The port number.
    pub port: u16,
}

/// An entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Packets to a port of the host go to a container.
    Port {
        /// The port.
        at: HostPort,
        /// The container's address and port.
        to: SocketAddr,
    },
    /// Packets to a container's port get the host's address if they return by the interface by which they came; so do packets
    /// of the host itself.
    Hairpin {
        /// The interface by which the container is reached.
        via: String,
        /// The protocol.
        protocol: u8,
        /// The container's address and port.
        to: SocketAddr,
    },
    /// All packets to a container's port that come by a port of the host get the host's address.
    Hidden {
        /// The protocol.
        protocol: u8,
        /// The container's address and port.
        to: SocketAddr,
    },
}

/// The set or map of an element, and its key there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    set: &'static str,
    bytes: Vec<u8>,
}

/// An element without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The owners' digests, oldest first. The data is the first owner's.
    pub owners: Vec<String>,
    /// The first owner, in words.
    pub text: String,
    /// Where a port leads, as the map has it; empty in a set.
    pub(super) data: Vec<u8>,
}

/// Elements by key.
pub type Elements = BTreeMap<Key, Element>;

impl HostPort {
    /// The key.
    pub fn key(&self) -> Key {
        let sets = sets(self.v6);
        let mut bytes = self.address.map(octets).unwrap_or_default();
        bytes.extend(tail(self.protocol, self.port));
        let set = match self.address {
            None => sets.ports,
            Some(_) => sets.bound,
        };
        Key { set, bytes }
    }
}

impl Entry {
    /// The key.
    pub fn key(&self) -> Key {
        match self {
            Self::Port { at, .. } => at.key(),
            Self::Hairpin { via, protocol, to } => {
                let mut bytes = ifname(via);
                bytes.extend(socket(*protocol, to));
                let set = sets(to.is_ipv6()).hairpin;
                Key { set, bytes }
            }
            Self::Hidden { protocol, to } => Key {
                set: sets(to.is_ipv6()).hidden,
                bytes: socket(*protocol, to),
            },
        }
    }

    /// The element of this entry; `text` is the first owner in words.
    pub fn element(&self, owners: Vec<String>, text: String) -> Element {
        let data = match self {
            Self::Port { to, .. } => target(*to),
            _ => vec![],
        };
        Element { owners, text, data }
    }
}

impl Element {
    /// Whether a port leads to this address.
    pub fn leads_to(&self, to: SocketAddr) -> bool {
        self.data == target(to)
    }

    /// From a comment, which may be cut, and data.
    pub fn is_like(&self, other: &Self) -> bool {
        self.data == other.data && self.comment() == other.comment()
    }

    /// Whether the end of the text may be missing.
    pub fn is_cut(&self) -> bool {
        // Where a character does not fit, a few bytes stay unused.
        self.comment().len() > LONGEST_COMMENT - char::MAX.len_utf8()
    }

    /// Whether the comment has room for all owners. The text gets the rest.
    pub(super) fn has_room(&self) -> bool {
        let digests = self.owners.iter().map(|owner| owner.len() + 1);
        digests.sum::<usize>() <= LONGEST_COMMENT
    }

    fn comment(&self) -> String {
        let mut comment = self.owners.join(",");
        // nft prints a comment between quotes and cannot escape.
        let plain = |c: char| if c.is_control() || c == '"' { '?' } else { c };
        comment.extend(std::iter::once(' ').chain(self.text.chars().map(plain)));
        comment.truncate(comment.floor_char_boundary(LONGEST_COMMENT));
        comment
    }

    fn of(comment: &str, data: Vec<u8>) -> Self {
        let (owners, text) = comment.split_once(' ').unwrap_or((comment, ""));
        Self {
            owners: owners.split(',').map(str::to_owned).collect(),
            text: text.to_owned(),
            data,
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            6 => "tcp",
            17 => "udp",
            132 => "sctp",
            _ => "?",
        };
        match self.address {
            Some(address) => write!(f, "{}/{protocol}", SocketAddr::new(address, self.port)),
            None => write!(f, "{}/{protocol}", self.port),
        }
    }
}

/// So often a set is listed in search of two lists that agree.
const DUMPS: usize = 10;

/// The element with this key.
pub(super) fn find(channel: &mut Channel, key: &Key) -> Result<Option<Element>, Error> {
    let question = NfTablesMessage::GetSetElement(message(key.set, Some(list(&[(key, None)]))));
    let answers = channel.get(&on("read an element of", key.set), question)?;
    Ok(elements(answers).find_map(decode).map(|(_, held)| held))
}

/// All elements of one set. [`Error::Busy`] if they changed meanwhile.
///
/// After a commit the kernel grows a set's hash table from a work queue. A dump in several messages that this overtakes
/// lacks elements and says nothing of it, since it goes on by position (`nft_rhash_walk`, `net/netfilter/nft_set_hash.c`).
/// So what takes several messages is read until two dumps in a row have as many elements.
pub(super) fn all(channel: &mut Channel, set: &'static str) -> Result<Elements, Error> {
    let mut before = None;
    for _ in 0..DUMPS {
        let question = NfTablesMessage::GetSetElement(message(set, None));
        let answers = channel.dump(&on("list", set), question)?;
        let is_one_message = answers.len() <= 1;
        let found = elements(answers).filter_map(decode);
        let found: Elements = found
            .map(|(bytes, held)| (Key { set, bytes }, held))
            .collect();
        if is_one_message || before == Some(found.len()) {
            return Ok(found);
        }
        before = Some(found.len());
    }
    Err(Error::Busy {
        what: on("list", set),
    })
}

/// The sets of both versions of IP.
pub(super) fn all_sets() -> impl Iterator<Item = &'static str> {
    let names = |sets: &Sets| [sets.ports, sets.bound, sets.hairpin, sets.hidden];
    [&SETS4, &SETS6].into_iter().flat_map(names)
}

/// The completeness markers of the four maps. 255 is no protocol.
pub(super) fn markers() -> Elements {
    let marker = |v6: bool, is_bound: bool| {
        let none: IpAddr = if v6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let at = HostPort {
            v6,
            address: is_bound.then_some(none),
            protocol: u8::MAX,
            port: 0,
        };
        let to = SocketAddr::new(none, 0);
        let says = "is gone once another program has emptied this map".to_owned();
        let held = Entry::Port { at, to }.element(vec!["seal".to_owned()], says);
        (at.key(), held)
    };
    let both = [false, true].into_iter();
    both.flat_map(|v6| [marker(v6, false), marker(v6, true)])
        .collect()
}

/// The maps of ports that are bound to one address.
pub(super) fn bound_sets() -> [&'static str; 2] {
    [SETS4.bound, SETS6.bound]
}

impl Key {
    /// The host port, if the key is one.
    pub fn port(&self) -> Option<HostPort> {
        let v6 = self.set == SETS6.ports || self.set == SETS6.bound;
        let sets = sets(v6);
        let (address, tail) = if self.set == sets.bound {
            let address: IpAddr = if v6 {
                self.bytes.first_chunk::<16>().copied()?.into()
            } else {
                self.bytes.first_chunk::<4>().copied()?.into()
            };
            (Some(address), &self.bytes[octets(address).len()..])
        } else if self.set == sets.ports {
            (None, self.bytes.as_slice())
        } else {
            return None;
        };
        // As `tail` has them.
        let port = tail.get(4..6)?.first_chunk()?;
        Some(HostPort {
            v6,
            address,
            protocol: *tail.first()?,
            port: u16::from_be_bytes(*port),
        })
    }

    /// The name of the set.
    pub(super) fn set(&self) -> &'static str {
        self.set
    }
}

/// The changes that turn one into the other: removals first, as new elements may have the same keys.
pub(super) fn changes(found: &Elements, wanted: &Elements) -> Vec<Change> {
    let differs = |key: &Key, held: &Element, other: &Elements| {
        other.get(key).is_none_or(|other| !other.is_like(held))
    };
    let goes: Vec<_> = found
        .iter()
        .filter(|(key, held)| differs(key, held, wanted))
        .map(|(key, _)| (key, None))
        .collect();
    let comes: Vec<_> = wanted
        .iter()
        .filter(|(key, held)| differs(key, held, found))
        .map(|(key, held)| (key, Some(held)))
        .collect();
    let goes = batches(&goes).map(|(set, elements)| Change {
        what: on("remove elements of", set),
        flags: 0,
        message: NfTablesMessage::DeleteSetElement(message(set, Some(elements))),
    });
    let comes = batches(&comes).map(|(set, elements)| Change {
        what: on("add elements to", set),
        flags: NLM_F_CREATE,
        message: NfTablesMessage::NewSetElement(message(set, Some(elements))),
    });
    goes.chain(comes).collect()
}

type Piece<'a> = (&'a Key, Option<&'a Element>);

/// Each message is about one set, and no longer than allowed.
fn batches<'a>(
    pieces: &'a [Piece<'a>],
) -> impl Iterator<Item = (&'static str, Vec<ListAttribute<SetElementAttribute>>)> + 'a {
    let of_sets = pieces.chunk_by(|(a, _), (b, _)| a.set == b.set);
    let batches = of_sets.flat_map(|of_set| of_set.chunks(AT_ONCE));
    batches.map(|batch| (batch[0].0.set, list(batch)))
}

fn list(pieces: &[Piece<'_>]) -> Vec<ListAttribute<SetElementAttribute>> {
    let element = |(key, held): &Piece<'_>| {
        let value = |bytes: &Vec<u8>| DataAttribute::Value(bytes.clone());
        let mut element = vec![SetElementAttribute::Key(value(&key.bytes))];
        if let Some(held) = held {
            if !held.data.is_empty() {
                element.push(SetElementAttribute::Data(value(&held.data)));
            }
            element.push(SetElementAttribute::UserData(user_data(&held.comment())));
        }
        ListAttribute::Element(element)
    };
    pieces.iter().map(element).collect()
}

fn decode(element: Vec<SetElementAttribute>) -> Option<(Vec<u8>, Element)> {
    let (mut key, mut data, mut comment) = (None, vec![], String::new());
    for attribute in element {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => key = Some(bytes),
            SetElementAttribute::Data(DataAttribute::Value(bytes)) => data = bytes,
            SetElementAttribute::UserData(bytes) => comment = owner(&bytes),
            _ => {}
        }
    }
    Some((key?, Element::of(&comment, data)))
}

fn sets(v6: bool) -> &'static Sets {
    if v6 { &SETS6 } else { &SETS4 }
}

/// Pads a part of a concatenation to whole words.
fn padded(part: &[u8]) -> Vec<u8> {
    let mut bytes = part.to_vec();
    bytes.resize(part.len().next_multiple_of(4), 0);
    bytes
}

/// Where a port leads, as a map has it.
fn target(to: SocketAddr) -> Vec<u8> {
    let mut data = octets(to.ip());
    data.extend(padded(&to.port().to_be_bytes()));
    data
}

fn tail(protocol: u8, port: u16) -> Vec<u8> {
    let mut bytes = padded(&[protocol]);
    bytes.extend(padded(&port.to_be_bytes()));
    bytes
}

fn socket(protocol: u8, to: &SocketAddr) -> Vec<u8> {
    let mut bytes = octets(to.ip());
    bytes.extend(tail(protocol, to.port()));
    bytes
}
