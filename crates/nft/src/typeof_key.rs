//! The words for a set's key that has a part without a name in nft: the VNI behind a header of UDP.
//!
//! nft prints such a key by what `NFTA_SET_USERDATA` says of it, of which the kernel keeps at most 256 bytes: enough for four parts.

use crate::expr::TRANSPORT_HEADER;

/// nft's number of the data type of what has no other.
pub(crate) const INTEGER_TYPE: u32 = 4;
/// Where VXLAN's header, which is behind that of UDP, has the VNI: offset and length in bytes.
pub(crate) const VNI: (u32, u32) = (12, 3);
/// `NFTNL_UDATA_SET_KEYBYTEORDER`, `_KEY_TYPEOF`; `NFTNL_UDATA_SET_TYPEOF_EXPR`, `_DATA`.
const KEY_BYTE_ORDER: u8 = 0;
const KEY_TYPEOF: u8 = 3;
const EXPRESSION: u8 = 0;
const DATA: u8 = 1;
/// nft's `EXPR_PAYLOAD`, `EXPR_CONCAT`; `PROTO_DESC_UDP`; the number of the destination port in a header of UDP.
const PAYLOAD: u32 = 7;
const CONCAT: u32 = 13;
const UDP: u32 = 6;
const DPORT: u32 = 2;

/// What a set says of its key, which has these parts.
pub(crate) fn key_of(parts: &[Vec<u8>]) -> Vec<u8> {
    let parts = (0..).zip(parts);
    let parts: Vec<_> = parts.flat_map(|(number, part)| tlv(number, part)).collect();
    let key = [number(EXPRESSION, CONCAT), tlv(DATA, &parts)].concat();
    [number(KEY_BYTE_ORDER, 0), tlv(KEY_TYPEOF, &key)].concat()
}

/// `udp dport`
pub(crate) fn destination_port() -> Vec<u8> {
    field(&[UDP, DPORT])
}

/// `@th,96,24`
pub(crate) fn vni() -> Vec<u8> {
    let (offset, length) = VNI;
    field(&[0, 0, TRANSPORT_HEADER + 1, 8 * offset, 8 * length])
}

/// A field of a header: description, number in it; for one without a name also nft's number of the header's base, offset and length
/// in bits.
pub(crate) fn field(values: &[u32]) -> Vec<u8> {
    let values = (0..).zip(values);
    let values: Vec<_> = values.flat_map(|(kind, it)| number(kind, *it)).collect();
    [number(EXPRESSION, PAYLOAD), tlv(DATA, &values)].concat()
}

fn number(kind: u8, value: u32) -> Vec<u8> {
    tlv(kind, &value.to_ne_bytes())
}

/// An attribute of libnftnl's user data.
fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or_default();
    [&[kind, length], value].concat()
}
