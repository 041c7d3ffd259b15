//! Decodes the kernel's answers.
//!
//! The library decodes all but two kinds of message. For each part of a list, of elements or of a rule's expressions, it
//! formats a context in words for a possible error (netlink-packet-netfilter 0.4.0, `VecListAttribute` and `Expressions`):
//! with 20,000 ports, reading the maps would take a minute, and half of an ADD's time went into words about our own rules. So
//! the lists are split here, and the library decodes each part.

use netlink_packet_core::{
    DecodeError, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlaBuffer,
    NlasIterator, Parseable, ParseableParametrized, parse_string,
};
use netlink_packet_netfilter::nftables::{
    ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
    SetElementList, SetElementMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use crate::expr::Expression;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE`, and `_NEWSETELEM`
const RULE: u16 = 0x0a06;
const ELEMENTS: u16 = 0x0a0c;
/// `NFTA_RULE_EXPRESSIONS`, `NFTA_SET_ELEM_LIST_ELEMENTS`
const EXPRESSION_LIST: u16 = 4;
const ELEMENT_LIST: u16 = 3;
/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`
const NAME: u16 = 1;
const DATA: u16 = 2;
/// Length of `struct nfgenmsg`, of which the first byte is the family.
const HEADER: usize = 4;

pub(crate) type Message = NetlinkMessage<NetfilterMessage>;

/// The first message of these bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<Message, DecodeError> {
    let buffer = NetlinkBuffer::new_checked(bytes)?;
    let Some((head, attributes)) = buffer.payload().split_at_checked(HEADER) else {
        return Message::deserialize(bytes);
    };
    let inner = match buffer.message_type() {
        RULE => NfTablesMessage::NewRule(rule(attributes)?),
        ELEMENTS => NfTablesMessage::NewSetElement(elements(attributes)?),
        _ => return Message::deserialize(bytes),
    };
    let header = NetfilterHeader::new(NetfilterProtoFamily::from(head[0]), 0, 0);
    Ok(Message::new(
        NetlinkHeader::parse(&buffer)?,
        NetlinkPayload::InnerMessage(NetfilterMessage::new(header, inner)),
    ))
}

fn elements(attributes: &[u8]) -> Result<SetElementMessage, DecodeError> {
    let attributes = each(attributes, |attribute| match attribute.kind() {
        ELEMENT_LIST => {
            let list = each(attribute.value(), |one| ListAttribute::parse(&one))?;
            Ok(SetElementList::Elements(list))
        }
        _ => SetElementList::parse(&attribute),
    })?;
    Ok(SetElementMessage { attributes })
}

fn rule(attributes: &[u8]) -> Result<RuleMessage, DecodeError> {
    let attributes = each(attributes, |attribute| match attribute.kind() {
        EXPRESSION_LIST => {
            let list = each(attribute.value(), |one| expression(one.value()))?;
            Ok(RuleAttribute::Expressions(list))
        }
        _ => RuleAttribute::parse(&attribute),
    })?;
    Ok(RuleMessage { attributes })
}

/// The name comes before the data.
fn expression(parts: &[u8]) -> Result<Expression, DecodeError> {
    let mut name = String::new();
    let parts = each(parts, |part| match part.kind() {
        NAME => {
            name = parse_string(part.value())?;
            Ok(ExpressionAttribute::Name(name.clone()))
        }
        DATA => Ok(ExpressionAttribute::Data(said(&name, part.value())?)),
        _ => ExpressionAttribute::parse_with_param(&part, None),
    })?;
    Ok(ListAttribute::Element(parts))
}

fn said(name: &str, parts: &[u8]) -> Result<Expressions, DecodeError> {
    fn all<T>(parts: &[u8]) -> Result<Vec<T>, DecodeError>
    where
        for<'a> T: Parseable<NlaBuffer<&'a [u8]>>,
    {
        each(parts, |part| T::parse(&part))
    }
    Ok(match name {
        "bitwise" => Expressions::Bitwise(all(parts)?),
        "cmp" => Expressions::Cmp(all(parts)?),
        "immediate" => Expressions::Immediate(all(parts)?),
        "lookup" => Expressions::Lookup(all(parts)?),
        "meta" => Expressions::Meta(all(parts)?),
        "payload" => Expressions::Payload(all(parts)?),
        _ => Expressions::Other {
            expression_type: name.to_owned(),
            attributes: all(parts)?,
        },
    })
}

fn each<'a, T>(
    attributes: &'a [u8],
    mut read: impl FnMut(NlaBuffer<&'a [u8]>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    NlasIterator::new(attributes)
        .map(|attribute| read(attribute?))
        .collect()
}
