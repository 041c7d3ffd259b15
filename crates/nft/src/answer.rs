//! What the kernel answers, message by message.
//!
//! The library reads all but one kind. Of a list of elements it writes down the whole message for each, for an error that
//! may come of it (netlink-packet-netfilter 0.4.0, `VecListAttribute`): a host with 20,000 ports would read its maps for a
//! minute. So lists are taken apart here, and it reads each element.

use netlink_packet_core::{
    DecodeError, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
    Parseable,
};
use netlink_packet_netfilter::nftables::{
    ListAttribute, NfTablesMessage, SetElementList, SetElementMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM`
const ELEMENTS: u16 = 0x0a0c;
/// `NFTA_SET_ELEM_LIST_ELEMENTS`
const LIST: u16 = 3;
/// Length of `struct nfgenmsg`, of which the first byte is the family.
const HEADER: usize = 4;

pub(crate) type Message = NetlinkMessage<NetfilterMessage>;

/// The first message of these bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<Message, DecodeError> {
    let buffer = NetlinkBuffer::new_checked(bytes)?;
    let Some((head, attributes)) = buffer.payload().split_at_checked(HEADER) else {
        return Message::deserialize(bytes);
    };
    if buffer.message_type() != ELEMENTS {
        return Message::deserialize(bytes);
    }
    let header = NetfilterHeader::new(NetfilterProtoFamily::from(head[0]), 0, 0);
    let inner = NfTablesMessage::NewSetElement(elements(attributes)?);
    Ok(Message::new(
        NetlinkHeader::parse(&buffer)?,
        NetlinkPayload::InnerMessage(NetfilterMessage::new(header, inner)),
    ))
}

fn elements(attributes: &[u8]) -> Result<SetElementMessage, DecodeError> {
    let read = NlasIterator::new(attributes).map(|attribute| {
        let attribute = attribute?;
        if attribute.kind() != LIST {
            return SetElementList::parse(&attribute);
        }
        let list = NlasIterator::new(attribute.value()).map(|one| ListAttribute::parse(&one?));
        Ok(SetElementList::Elements(list.collect::<Result<_, _>>()?))
    });
    Ok(SetElementMessage {
        attributes: read.collect::<Result<_, _>>()?,
    })
}
