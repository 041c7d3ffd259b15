//! Networks as elements of the egress sets, and the owner that each carries.
//!
//! The kernel knows no prefixes. An interval is two elements: its first address, and the first address behind it, flagged as
//! an end. An interval up to the last address has no second element. The kernel treats the two independently: it accepts a
//! network that shares one end with another, and removes the start of one with the end of the next. So changes are decided
//! here on the whole set, and the generation id makes the decision hold (see `channel`). The owner is user data of the first
//! element, in the form that nft prints as a comment.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementFlags,
    SetElementList, SetElementMessage,
};

use crate::channel::{Change, Channel};
use crate::error::Error;
use crate::family::{Family, IPV4, IPV6};
use crate::skeleton::{TABLE, on};

/// libnftnl: `NFTNL_UDATA_SET_ELEM_COMMENT` or `NFTNL_UDATA_RULE_COMMENT`, then one byte of length, then text and a zero.
const COMMENT: u8 = 0;
/// The kernel takes 256 bytes of user data (`NFT_USERDATA_MAXLEN`), but stores an element's length plus one in a byte: 255
/// bytes are refused, and 256 are lost. Less kind, length and zero.
pub(crate) const LONGEST_COMMENT: usize = 251;
/// nft's own limit is 128 with the zero.
const OWNER_BYTES: usize = 127;

/// A run of addresses, both ends included, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    family: &'static Family,
    first: u128,
    last: u128,
}

impl Interval {
    /// Host bits are ignored.
    pub(crate) fn of(network: IpNetwork) -> Self {
        let family = if network.is_ipv4() { &IPV4 } else { &IPV6 };
        let first = match network.network() {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let hosts = family
            .top()
            .checked_shr(network.prefix().into())
            .unwrap_or(0);
        Self {
            family,
            first,
            last: first | hosts,
        }
    }

    /// All intervals of the family's egress set, ascending, with their owners. [`Error::Busy`] if they changed meanwhile.
    pub(crate) fn all(
        channel: &mut Channel,
        family: &'static Family,
    ) -> Result<Vec<(Self, String)>, Error> {
        let question = NfTablesMessage::GetSetElement(message(family.egress, None));
        let answers = channel.dump(&on("list set", family.egress), question)?;
        let mut parts: Vec<Part> = elements(answers).map(Part::new).collect();
        // Where two networks adjoin, the end of the first and the start of the second have the same key.
        parts.sort_by_key(|part| (part.key, !part.end));
        let mut intervals = vec![];
        for (at, Part { key, end, owner }) in parts.iter().enumerate() {
            if !end {
                let behind = parts
                    .get(at + 1)
                    .map(|next| next.key.saturating_sub(1).max(*key));
                let last = behind.unwrap_or(family.top());
                intervals.push((
                    Self {
                        family,
                        first: *key,
                        last,
                    },
                    owner.clone(),
                ));
            }
        }
        Ok(intervals)
    }

    pub(crate) fn family(&self) -> &'static Family {
        self.family
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// `None` for a range without a prefix, which is not one of ours.
    pub(crate) fn network(&self) -> Option<IpNetwork> {
        let host_bits = (self.last - self.first).count_ones();
        let prefix = u8::try_from(u32::from(self.family.key_bytes) * 8 - host_bits).ok()?;
        let network = IpNetwork::new(self.family.address(self.first), prefix).ok()?;
        (Self::of(network) == *self).then_some(network)
    }

    pub(crate) fn addition(&self, owner: &str) -> Result<Change, Error> {
        let message = message(
            self.family.egress,
            Some(self.elements(Some(comment(owner)?))),
        );
        let message = NfTablesMessage::NewSetElement(message);
        Ok(Change {
            what: self.deed("add"),
            flags: NLM_F_CREATE,
            message,
        })
    }

    pub(crate) fn removal(&self) -> Change {
        let message = message(self.family.egress, Some(self.elements(None)));
        let message = NfTablesMessage::DeleteSetElement(message);
        Change {
            what: self.deed("remove"),
            flags: 0,
            message,
        }
    }

    /// For errors: "add 10.0.0.0/24 in set egress4 of table crosshost".
    pub(crate) fn deed(&self, verb: &str) -> String {
        on(&format!("{verb} {self} in set"), self.family.egress)
    }

    fn elements(&self, comment: Option<Vec<u8>>) -> Vec<ListAttribute<SetElementAttribute>> {
        let key = |number: u128| {
            let bytes = &number.to_be_bytes()[16 - usize::from(self.family.key_bytes)..];
            SetElementAttribute::Key(DataAttribute::Value(bytes.to_vec()))
        };
        let mut start = vec![key(self.first)];
        start.extend(comment.map(SetElementAttribute::UserData));
        let mut elements = vec![ListAttribute::Element(start)];
        if self.last < self.family.top() {
            let end = SetElementAttribute::Flags(SetElementFlags::IntervalEnd);
            elements.push(ListAttribute::Element(vec![end, key(self.last + 1)]));
        }
        elements
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(network) = self.network() {
            return write!(f, "{network}");
        }
        let [first, last] = [self.first, self.last].map(|end| self.family.address(end));
        write!(f, "{first}-{last}")
    }
}

/// One element as the kernel has it.
struct Part {
    key: u128,
    end: bool,
    owner: String,
}

impl Part {
    fn new(attributes: Vec<SetElementAttribute>) -> Self {
        let mut part = Self {
            key: 0,
            end: false,
            owner: String::new(),
        };
        for attribute in attributes {
            match attribute {
                SetElementAttribute::Key(DataAttribute::Value(key)) => {
                    part.key = key.iter().fold(0, |key, byte| key << 8 | u128::from(*byte));
                }
                SetElementAttribute::Flags(flags) => {
                    part.end = flags.contains(SetElementFlags::IntervalEnd);
                }
                SetElementAttribute::UserData(bytes) => part.owner = owner(&bytes),
                _ => {}
            }
        }
        part
    }
}

/// The elements in the kernel's answers to a question for those of a set.
pub fn elements(answers: Vec<NfTablesMessage>) -> impl Iterator<Item = Vec<SetElementAttribute>> {
    let messages = answers.into_iter().filter_map(|answer| match answer {
        NfTablesMessage::NewSetElement(message) => Some(message.attributes),
        _ => None,
    });
    let lists = messages.flatten().filter_map(|attribute| match attribute {
        SetElementList::Elements(list) => Some(list),
        _ => None,
    });
    lists.flatten().filter_map(|item| match item {
        ListAttribute::Element(attributes) => Some(attributes),
        _ => None,
    })
}

pub(crate) fn message(
    set: &str,
    elements: Option<Vec<ListAttribute<SetElementAttribute>>>,
) -> SetElementMessage {
    message_in(TABLE, set, elements)
}

/// The same for a set of another table of ours.
pub(crate) fn message_in(
    table: &str,
    set: &str,
    elements: Option<Vec<ListAttribute<SetElementAttribute>>>,
) -> SetElementMessage {
    let mut attributes = vec![
        SetElementList::Table(table.to_owned()),
        SetElementList::Set(set.to_owned()),
    ];
    attributes.extend(elements.map(SetElementList::Elements));
    SetElementMessage { attributes }
}

fn comment(owner: &str) -> Result<Vec<u8>, Error> {
    let unfit = |why| Error::Unfit {
        what: "owner",
        name: owner.to_owned(),
        why,
    };
    // nft prints a comment between quotes and cannot escape.
    if owner.chars().any(|c| c.is_control() || c == '"') {
        return Err(unfit("holds a quote or a control character"));
    }
    if owner.len() > OWNER_BYTES {
        return Err(unfit("longer than 127 bytes"));
    }
    Ok(user_data(owner))
}

/// What an element or a rule carries, so that nft prints it as a comment; at most [`LONGEST_COMMENT`] bytes.
pub(crate) fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[COMMENT, length], comment.as_bytes(), &[0]].concat()
}

/// An address as it is in a packet and in a key.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The comment among an element's user data; empty if there is none.
pub(crate) fn owner(mut userdata: &[u8]) -> String {
    while let [kind, length, rest @ ..] = userdata {
        let (value, rest) = rest
            .split_at_checked(usize::from(*length))
            .unwrap_or((rest, &[]));
        if *kind == COMMENT {
            return String::from_utf8_lossy(value)
                .trim_end_matches('\0')
                .to_owned();
        }
        userdata = rest;
    }
    String::new()
}
