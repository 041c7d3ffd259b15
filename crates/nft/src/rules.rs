//! The rules, as the expressions that nft compiles from their lines in `skeleton.nft`. nft prints a rule by recognizing
//! such sequences; so they are nft's, to the order of the attributes in a kernel's dump.

use netlink_packet_netfilter::nftables::{
    ChecksumFlags, ChecksumType, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate,
    ListAttribute, Lookup, Meta, MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

use crate::skeleton::Family;

/// Linux's IFNAMSIZ: `oifname` fills a register, name and zeros.
pub(crate) const IFNAME_BYTES: usize = 16;
/// `enum nft_payload_bases`
const LINK_HEADER: u32 = 0;
pub(crate) const NETWORK_HEADER: u32 = 1;
pub(crate) const TRANSPORT_HEADER: u32 = 2;
/// Of the destination port in the headers of UDP, TCP and SCTP.
pub(crate) const PORT_OFFSET: u32 = 2;
pub(crate) const PORT_BYTES: u32 = 2;
const MAC_BYTES: u32 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const NF_DROP: u32 = 0;
pub(crate) const NF_ACCEPT: u32 = 1;

pub(crate) type Expression = ListAttribute<ExpressionAttribute>;
pub(crate) type Rule = Vec<Expression>;

/// Which end of a packet is ours.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Source,
    Destination,
}

impl Family {
    pub(crate) fn offset(&self, end: End) -> u32 {
        match end {
            End::Source => self.source_offset,
            End::Destination => self.source_offset + u32::from(self.key_bytes),
        }
    }
}

/// `ip saddr @egress4 oifname != "bridge" masquerade`. An inet table sees both families, hence nfproto first.
pub(crate) fn masquerade(family: &Family, bridge: &str) -> Rule {
    let name = ifname(bridge);
    let expressions = [
        load(MetaKey::Nfproto),
        compare(Operator::Equal, vec![family.nfproto]),
        address(family, End::Source),
        lookup(family.egress),
        load(MetaKey::Oifname),
        compare(Operator::NotEqual, name),
        masq(),
    ];
    expressions.into_iter().map(Into::into).collect()
}

/// `ip saddr . ip daddr . udp dport @peers4 notrack accept`: one lookup for a packet that may come in.
pub(crate) fn admit_peers(family: &Family) -> Rule {
    let bytes = family.key_bytes.into();
    let destination = family.offset(End::Destination);
    let mut rule = udp(family);
    rule.extend([
        address(family, End::Source).into(),
        payload(family.behind_address, NETWORK_HEADER, destination, bytes).into(),
        port(family.behind_two).into(),
        lookup(family.peers).into(),
        notrack(),
        verdict(Verdict::Other(NF_ACCEPT), None).into(),
    ]);
    rule
}

/// `ip daddr . udp dport @tunnels4 drop`
pub(crate) fn drop_strangers(family: &Family) -> Rule {
    let mut rule = tunnel(family, End::Destination);
    rule.push(verdict(Verdict::Other(NF_DROP), None).into());
    rule
}

/// `ip saddr . udp dport @tunnels4 notrack`
pub(crate) fn untracked(family: &Family) -> Rule {
    let mut rule = tunnel(family, End::Source);
    rule.push(notrack());
    rule
}

/// `ip daddr . udp dport @tunnels4`: a packet of one of our tunnels. A tunnel's packets go to its port in both directions.
fn tunnel(family: &Family, ours: End) -> Rule {
    let mut rule = udp(family);
    rule.extend([
        address(family, ours).into(),
        port(family.behind_address).into(),
        lookup(family.tunnels).into(),
    ]);
    rule
}

fn udp(family: &Family) -> Rule {
    let expressions = [
        load(MetaKey::Nfproto),
        compare(Operator::Equal, vec![family.nfproto]),
        load(MetaKey::L4Proto),
        compare(Operator::Equal, vec![UDP]),
    ];
    expressions.into_iter().map(Into::into).collect()
}

/// The destination port.
pub(crate) fn port(register: Register) -> Expressions {
    payload(register, TRANSPORT_HEADER, PORT_OFFSET, PORT_BYTES)
}

/// The kernel dumps it without data.
fn notrack() -> Expression {
    ListAttribute::Element(vec![ExpressionAttribute::Name("notrack".to_owned())])
}

/// `ether daddr FROM ether daddr set TO`
pub(crate) fn readdress(from: [u8; 6], to: [u8; 6]) -> Rule {
    let expressions = [
        payload(Register::Reg1, LINK_HEADER, 0, MAC_BYTES),
        compare(Operator::Equal, from.to_vec()),
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Reg1),
            Immediate::Data(DataAttribute::Value(to.to_vec())),
        ]),
        Expressions::Payload(vec![
            Payload::SourceRegister(Register::Reg1),
            Payload::Base(LINK_HEADER),
            Payload::Offset(0),
            Payload::Len(MAC_BYTES),
            Payload::CsumType(ChecksumType::None),
            Payload::CsumOffset(0),
            Payload::CsumFlags(ChecksumFlags::empty()),
        ]),
    ];
    expressions.into_iter().map(Into::into).collect()
}

fn address(family: &Family, end: End) -> Expressions {
    let (offset, bytes) = (family.offset(end), family.key_bytes.into());
    payload(Register::Reg1, NETWORK_HEADER, offset, bytes)
}

pub(crate) fn payload(register: Register, base: u32, offset: u32, bytes: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(bytes),
    ])
}

pub(crate) fn lookup(set: &str) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(Register::Reg1),
        Lookup::Flags(0),
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

/// What becomes of the packet; `chain` is where a jump goes.
pub(crate) fn verdict(code: Verdict, chain: Option<&str>) -> Expressions {
    let mut verdict = vec![VerdictAttribute::Code(code)];
    verdict.extend(chain.map(|chain| VerdictAttribute::Chain(chain.to_owned())));
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict)),
    ])
}

pub(crate) fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}
