//! The messages that are used here: links, addresses, routes, neighbours and queueing disciplines. The library's
//! `RouteNetlinkMessage` has everything in rtnetlink(7), and its code for traffic control, rules and statistics would add a
//! tenth of a megabyte to each binary.

use crate::Link;
use crate::entry::Entry;
use crate::traffic::Traffic;
use netlink_packet_core::{
    DecodeError, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkPayload,
    NetlinkSerializable, Parseable,
};
use netlink_packet_route::{
    address::AddressMessage, link::LinkMessage, neighbour::NeighbourMessage, route::RouteMessage,
};

/// A request or an answer, named after its `RTM_` constant (uapi `linux/rtnetlink.h`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A link as the kernel has it: an answer, never a request.
    Link(Link),
    /// A neighbour or FDB entry as the kernel has it.
    Neighbour(Entry),
    NewLink(LinkMessage),
    DelLink(LinkMessage),
    GetLink(LinkMessage),
    SetLink(LinkMessage),
    NewAddress(AddressMessage),
    GetAddress(AddressMessage),
    NewRoute(RouteMessage),
    GetRoute(RouteMessage),
    NewNeighbour(NeighbourMessage),
    DelNeighbour(NeighbourMessage),
    GetNeighbour(NeighbourMessage),
    /// A queueing discipline as the kernel has it: an answer, never a request.
    Qdisc(Traffic),
    NewQdisc(Traffic),
    DelQdisc(Traffic),
    GetQdisc(Traffic),
    /// A filter as the kernel has it.
    Filter(Traffic),
    NewFilter(Traffic),
    DelFilter(Traffic),
    GetFilter(Traffic),
}

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;
const NEW_QDISC: u16 = 36;
const NEW_FILTER: u16 = 44;

impl Message {
    /// The payload of a request.
    fn content(&self) -> Option<&dyn Emitable> {
        Some(match self {
            Self::Link(_) | Self::Neighbour(_) | Self::Qdisc(_) | Self::Filter(_) => return None,
            Self::NewLink(it) | Self::DelLink(it) | Self::GetLink(it) | Self::SetLink(it) => it,
            Self::NewAddress(it) | Self::GetAddress(it) => it,
            Self::NewRoute(it) | Self::GetRoute(it) => it,
            Self::NewNeighbour(it) | Self::DelNeighbour(it) | Self::GetNeighbour(it) => it,
            Self::NewQdisc(it)
            | Self::DelQdisc(it)
            | Self::GetQdisc(it)
            | Self::NewFilter(it)
            | Self::DelFilter(it)
            | Self::GetFilter(it) => it,
        })
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        // After each kind's NEW come DEL, GET and SET.
        match self {
            Self::Link(_) | Self::NewLink(_) => NEW_LINK,
            Self::DelLink(_) => NEW_LINK + 1,
            Self::GetLink(_) => NEW_LINK + 2,
            Self::SetLink(_) => NEW_LINK + 3,
            Self::NewAddress(_) => NEW_ADDRESS,
            Self::GetAddress(_) => NEW_ADDRESS + 2,
            Self::NewRoute(_) => NEW_ROUTE,
            Self::GetRoute(_) => NEW_ROUTE + 2,
            Self::Neighbour(_) | Self::NewNeighbour(_) => NEW_NEIGHBOUR,
            Self::DelNeighbour(_) => NEW_NEIGHBOUR + 1,
            Self::GetNeighbour(_) => NEW_NEIGHBOUR + 2,
            Self::Qdisc(_) | Self::NewQdisc(_) => NEW_QDISC,
            Self::DelQdisc(_) => NEW_QDISC + 1,
            Self::GetQdisc(_) => NEW_QDISC + 2,
            Self::Filter(_) | Self::NewFilter(_) => NEW_FILTER,
            Self::DelFilter(_) => NEW_FILTER + 1,
            Self::GetFilter(_) => NEW_FILTER + 2,
        }
    }

    fn buffer_len(&self) -> usize {
        self.content().map_or(0, Emitable::buffer_len)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Some(content) = self.content() {
            content.emit(buffer);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    /// The kernel answers only with NEW messages.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(match header.message_type {
            NEW_LINK => Self::Link(Link::decode(payload)?),
            NEW_ADDRESS => Self::NewAddress(AddressMessage::parse(payload)?),
            NEW_ROUTE => Self::NewRoute(RouteMessage::parse(payload)?),
            NEW_NEIGHBOUR => Self::Neighbour(Entry::decode(payload)?),
            NEW_QDISC => Self::Qdisc(Traffic::decode(payload)?),
            NEW_FILTER => Self::Filter(Traffic::decode(payload)?),
            other => return Err(format!("message type {other}: not asked for").into()),
        })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}
