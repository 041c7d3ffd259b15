//! Expressions, of which a rule is a sequence: as nft compiles them, with their attributes in the order of a kernel's dump.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    Lookup, Meta, MetaKey, Operator, Payload, Register, RuleAttribute, RuleMessage, Verdict,
    VerdictAttribute,
};

use crate::family::Family;

/// Linux's IFNAMSIZ: `oifname` fills a register, name and zeros.
pub const IFNAME_BYTES: usize = 16;
/// `enum nft_payload_bases`
pub(crate) const LINK_HEADER: u32 = 0;
/// The IP header.
pub const NETWORK_HEADER: u32 = 1;
/// The header of UDP, TCP or SCTP.
pub const TRANSPORT_HEADER: u32 = 2;
/// Offset of the destination port in the headers of UDP, TCP and SCTP.
pub const PORT_OFFSET: u32 = 2;
pub(crate) const PORT_BYTES: u32 = 2;
pub(crate) const MAC_BYTES: u32 = 6;
pub(crate) const UDP: u8 = 17;
/// `IPS_DST_NAT`, of `ct status`.
pub const DST_NAT: u32 = 1 << 5;
/// `NFTA_CT_DREG`, `NFTA_CT_KEY`; `NFT_CT_STATE`, `NFT_CT_STATUS`.
const CT_STATE: [(u16, u32); 2] = [(1, 1), (2, 0)];
const CT_STATUS: [(u16, u32); 2] = [(1, 1), (2, 2)];
/// `established,related`, of `ct state`.
const ESTABLISHED: u32 = 1 << 1 | 1 << 2;
/// `NFTA_MASQ_FLAGS` with `NF_NAT_RANGE_PROTO_SPECIFIED`; `NFTA_MASQ_REG_PROTO_MIN`, `_MAX`.
const MASQ_FLAGS: (u16, u32) = (1, 1 << 1);
const MASQ_FROM: u16 = 2;
const MASQ_TO: u16 = 3;
/// The verdict that drops a packet.
pub const NF_DROP: u32 = 0;
/// The verdict that accepts a packet.
pub const NF_ACCEPT: u32 = 1;

/// One expression, with its attributes.
pub type Expression = ListAttribute<ExpressionAttribute>;
/// The expressions of a rule, in their order.
pub type Rule = Vec<Expression>;

pub(crate) fn payload(register: Register, base: u32, offset: u32, bytes: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(bytes),
    ])
}

/// Whether the set has the key.
pub(crate) fn lookup(set: &str) -> Expressions {
    lookup_with(set, 0)
}

/// Whether the set does not have the key (`NFT_LOOKUP_F_INV`).
pub(crate) fn lookup_absent(set: &str) -> Expressions {
    lookup_with(set, 1)
}

fn lookup_with(set: &str, flags: u32) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(Register::Reg1),
        Lookup::Flags(flags),
    ])
}

pub(crate) fn load(key: MetaKey) -> Expressions {
    load_into(Register::Reg1, key)
}

pub(crate) fn load_into(register: Register, key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(register)])
}

/// An interface's name as it fills a register: with zeros.
pub(crate) fn ifname(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFNAME_BYTES, 0);
    bytes
}

pub(crate) fn masq() -> Expressions {
    Expressions::Other {
        expression_type: "masq".to_owned(),
        attributes: vec![],
    }
}

/// `masquerade to :FIRST-LAST`: the source port is one of these.
pub(crate) fn masq_to((first, last): (u16, u16)) -> [Expressions; 3] {
    let bound = |register, port: u16| {
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(register),
            Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
        ])
    };
    let registers = [Register::Reg1, Register::Reg2];
    let attributes = [
        MASQ_FLAGS,
        (MASQ_FROM, registers[0].into()),
        (MASQ_TO, registers[1].into()),
    ];
    [
        bound(registers[0], first),
        bound(registers[1], last),
        other("masq", attributes.map(number).to_vec()),
    ]
}

/// A verdict; `chain` is the target of a jump.
pub(crate) fn verdict(code: Verdict, chain: Option<&str>) -> Expressions {
    let mut verdict = vec![VerdictAttribute::Code(code)];
    verdict.extend(chain.map(|chain| VerdictAttribute::Chain(chain.to_owned())));
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict)),
    ])
}

pub(crate) fn accept() -> Expressions {
    verdict(Verdict::Other(NF_ACCEPT), None)
}

pub(crate) fn drop() -> Expressions {
    verdict(Verdict::Other(NF_DROP), None)
}

pub(crate) fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

/// The destination port.
pub(crate) fn port(register: Register) -> Expressions {
    payload(register, TRANSPORT_HEADER, PORT_OFFSET, PORT_BYTES)
}

/// The kernel dumps it without data.
pub(crate) fn notrack() -> Expression {
    ListAttribute::Element(vec![ExpressionAttribute::Name("notrack".to_owned())])
}

/// `ct status dnat`
pub(crate) fn translated() -> Vec<Expressions> {
    of_connection(CT_STATUS, DST_NAT)
}

/// `ct state established,related`
pub(crate) fn established() -> Vec<Expressions> {
    of_connection(CT_STATE, ESTABLISHED)
}

/// Whether a value of the packet's connection has one of these bits.
fn of_connection(value: [(u16, u32); 2], bits: u32) -> Vec<Expressions> {
    vec![
        other("ct", value.map(number).to_vec()),
        mask(bits.to_ne_bytes().to_vec()),
        compare(Operator::NotEqual, vec![0; 4]),
    ]
}

/// `meta nfproto`, which nft puts before tests of a header of one version of IP.
pub(crate) fn of_family(family: &Family) -> [Expressions; 2] {
    [
        load(MetaKey::Nfproto),
        compare(Operator::Equal, vec![family.nfproto]),
    ]
}

/// Whether the address of IPv6 at this offset in its header is a link-local one (`fe80::/10`), or, by the operator, is not.
pub(crate) fn link_local(offset: u32, operator: Operator) -> [Expressions; 3] {
    let ten_bits = |first: u8, second: u8| {
        let mut address = vec![0; 16];
        address[..2].copy_from_slice(&[first, second]);
        address
    };
    [
        payload(Register::Reg1, NETWORK_HEADER, offset, 16),
        mask(ten_bits(0xff, 0xc0)),
        compare(operator, ten_bits(0xfe, 0x80)),
    ]
}

/// Masks and compares the first register.
pub(crate) fn mask(bits: Vec<u8>) -> Expressions {
    let length = u32::try_from(bits.len()).unwrap_or_default();
    let none = vec![0; bits.len()];
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(length),
        Bitwise::Op(0),
        Bitwise::Mask(DataAttribute::Value(bits)),
        Bitwise::Xor(DataAttribute::Value(none)),
    ])
}

pub(crate) fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
}

pub(crate) fn number((kind, value): (u16, u32)) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

pub(crate) fn rule(expressions: Vec<Expressions>) -> Rule {
    expressions.into_iter().map(Into::into).collect()
}

/// The expressions of a rule.
pub fn expressions(rule: RuleMessage) -> Rule {
    let found = rule
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Expressions(expressions) => Some(expressions),
            _ => None,
        });
    found.unwrap_or_default()
}
