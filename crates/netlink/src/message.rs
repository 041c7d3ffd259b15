//! The messages that we exchange: of links, addresses, routes and neighbours. `RouteNetlinkMessage` of the library knows all
//! that rtnetlink(7) has, and what it can read and write of traffic control, rules and statistics would be a tenth of a megabyte
//! in each of our binaries.

use crate::Link;
use crate::entry::Entry;
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
    /// The same of an entry.
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
}

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;

impl Message {
    /// What a request says.
    fn content(&self) -> Option<&dyn Emitable> {
        Some(match self {
            Self::Link(_) | Self::Neighbour(_) => return None,
            Self::NewLink(it) | Self::DelLink(it) | Self::GetLink(it) | Self::SetLink(it) => it,
            Self::NewAddress(it) | Self::GetAddress(it) => it,
            Self::NewRoute(it) | Self::GetRoute(it) => it,
            Self::NewNeighbour(it) | Self::DelNeighbour(it) | Self::GetNeighbour(it) => it,
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

    /// What the kernel answers with is always a NEW.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(match header.message_type {
            NEW_LINK => Self::Link(Link::decode(payload)?),
            NEW_ADDRESS => Self::NewAddress(AddressMessage::parse(payload)?),
            NEW_ROUTE => Self::NewRoute(RouteMessage::parse(payload)?),
            NEW_NEIGHBOUR => Self::Neighbour(Entry::decode(payload)?),
            other => return Err(format!("message type {other}: not asked for").into()),
        })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}
