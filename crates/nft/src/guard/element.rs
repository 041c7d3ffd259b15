//! What the sets of the guard have of each port.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute,
};

use super::skeleton::{BUDGETS, GUARDED, IP, IP6, PACKETS4, PACKETS6, SETS, SOURCES4, SOURCES6};
use super::{Elements, GUARD, Port};
use crate::channel::{Change, Channel};
use crate::element::{elements, message_in, octets, owner, user_data};
use crate::error::Error;
use crate::expr::{IFNAME_BYTES, ifname};
use crate::skeleton::on_part;

/// An attribute's length has 16 bits, and all elements of a message are in one.
const AT_ONCE: usize = 250;
/// `NFTA_SET_ELEM_EXPR`, nested, and within it `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`. The library has one attribute in the place of the two.
const EXPRESSION: u16 = 7 | 1 << 15;
const NAME: u16 = 1;
const DATA: u16 = 2 | 1 << 15;
/// `NFTA_LIMIT_RATE`, `_UNIT`, `_BURST`, `_TYPE`, `_FLAGS`; packets in a second, and what is over the limit matches.
const RATE: u16 = 1;
const UNIT: u16 = 2;
const BURST: u16 = 3;
const TYPE: u16 = 4;
const FLAGS: u16 = 5;
const PACKETS: u32 = 0;
const OVER: u32 = 1;

/// An element of one of the guard's sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    set: &'static str,
    key: Vec<u8>,
    /// What nft shows of it beside the key. That of a limit says its rate, as the kernel's own words for it are not read.
    comment: String,
    rate: u32,
}

impl Port {
    /// The elements that the port has.
    pub fn elements(&self) -> BTreeSet<Element> {
        let name = ifname(&self.name);
        let plain = |set, key: Vec<u8>| Element {
            set,
            key,
            comment: String::new(),
            rate: 0,
        };
        let budget = Element {
            comment: format!("{} a second", self.group_rate),
            rate: self.group_rate,
            ..plain(BUDGETS, name.clone())
        };
        let Some(only) = &self.only else {
            return [budget].into();
        };
        let mac = [&only.mac[..], &[0, 0]].concat();
        let source = |address: IpAddr| {
            let set = if address.is_ipv4() {
                SOURCES4
            } else {
                SOURCES6
            };
            plain(set, [&name[..], &mac, &octets(address)].concat())
        };
        // Before an address may be used, and for reports of group memberships at that time.
        let none = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let has_v6 = only.addresses.iter().any(IpAddr::is_ipv6);
        let addresses = only.addresses.iter().copied();
        let sources = addresses.clone().chain(has_v6.then_some(none)).map(source);
        let packet = |address: IpAddr| {
            let (set, kind) = match address {
                IpAddr::V4(_) => (PACKETS4, IP),
                IpAddr::V6(_) => (PACKETS6, IP6),
            };
            plain(
                set,
                [&name[..], &only.mac, &kind, &octets(address)].concat(),
            )
        };
        sources
            .chain(addresses.map(packet))
            .chain([budget, plain(GUARDED, name.clone())])
            .collect()
    }
}

/// The elements of all ports. [`Error::Busy`] if they changed meanwhile.
pub(super) fn all(channel: &mut Channel) -> Result<Elements, Error> {
    let mut found = Elements::new();
    for set in SETS {
        let question = NfTablesMessage::GetSetElement(message_in(GUARD, set, None));
        let answers = channel.dump(&on_part("list set", set, GUARD), question)?;
        for attributes in elements(answers) {
            let element = Element::decode(set, attributes);
            found.entry(element.port()).or_default().insert(element);
        }
    }
    Ok(found)
}

/// The changes that put these elements in.
pub(super) fn additions(elements: &BTreeSet<Element>, flags: u16) -> Vec<Change> {
    by_set(elements, |set, list| Change {
        what: on_part("add elements to set", set, GUARD),
        flags: NLM_F_CREATE | flags,
        message: NfTablesMessage::NewSetElement(message_in(GUARD, set, Some(list))),
    })
}

/// The changes that take these elements out.
pub(super) fn removals(elements: &BTreeSet<Element>) -> Vec<Change> {
    let keys = elements.iter().map(|element| Element {
        comment: String::new(),
        rate: 0,
        ..element.clone()
    });
    by_set(&keys.collect(), |set, list| Change {
        what: on_part("remove elements of set", set, GUARD),
        flags: 0,
        message: NfTablesMessage::DeleteSetElement(message_in(GUARD, set, Some(list))),
    })
}

fn by_set(
    elements: &BTreeSet<Element>,
    change: impl Fn(&'static str, Vec<ListAttribute<SetElementAttribute>>) -> Change,
) -> Vec<Change> {
    let mut changes = vec![];
    for set in SETS {
        let its: Vec<_> = elements.iter().filter(|it| it.set == set).collect();
        changes.extend(its.chunks(AT_ONCE).map(|some| {
            let list = some.iter().map(|element| element.encode());
            change(set, list.collect())
        }));
    }
    changes
}

impl Element {
    fn port(&self) -> String {
        let name = self.key.get(..IFNAME_BYTES).unwrap_or(&self.key);
        let name = String::from_utf8_lossy(name);
        name.trim_end_matches('\0').to_owned()
    }

    fn decode(set: &'static str, attributes: Vec<SetElementAttribute>) -> Self {
        let mut element = Self {
            set,
            key: vec![],
            comment: String::new(),
            rate: 0,
        };
        for attribute in attributes {
            match attribute {
                SetElementAttribute::Key(DataAttribute::Value(key)) => element.key = key,
                SetElementAttribute::UserData(bytes) => element.comment = owner(&bytes),
                _ => {}
            }
        }
        let rate = element.comment.split(' ').next();
        element.rate = rate.and_then(|rate| rate.parse().ok()).unwrap_or_default();
        element
    }

    fn encode(&self) -> ListAttribute<SetElementAttribute> {
        let key = SetElementAttribute::Key(DataAttribute::Value(self.key.clone()));
        let mut attributes = vec![key];
        if self.rate > 0 {
            attributes.push(SetElementAttribute::Other(limit(self.rate)));
            attributes.push(SetElementAttribute::UserData(user_data(&self.comment)));
        }
        ListAttribute::Element(attributes)
    }
}

/// `limit rate over RATE/second burst RATE/2 packets`
fn limit(rate: u32) -> DefaultNla {
    let long = |kind, value: u64| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let short = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let limit = [
        long(RATE, rate.into()),
        long(UNIT, 1),
        short(BURST, (rate / 2).max(1)),
        short(TYPE, PACKETS),
        short(FLAGS, OVER),
    ];
    let expression = [
        DefaultNla::new(NAME, b"limit\0".to_vec()),
        DefaultNla::new(DATA, bytes(&limit)),
    ];
    DefaultNla::new(EXPRESSION, bytes(&expression))
}

fn bytes(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}
