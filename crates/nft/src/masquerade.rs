//! The rule that hides a container behind its host, as the expressions that nft compiles from its line in `skeleton.nft`.
//! nft prints a rule by recognizing such sequences; so they are nft's, to the order of the attributes in a kernel's dump.

use netlink_packet_netfilter::nftables::{
    Cmp, DataAttribute, ExpressionAttribute, Expressions, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register,
};

use crate::skeleton::Family;

/// Linux's IFNAMSIZ: `oifname` fills a register, name and zeros.
pub(crate) const IFNAME_BYTES: usize = 16;
/// `enum nft_payload_bases`
const NETWORK_HEADER: u32 = 1;

pub(crate) type Rule = Vec<ListAttribute<ExpressionAttribute>>;

/// `ip saddr @egress4 oifname != "bridge" masquerade`. An inet table sees both families, hence nfproto first.
pub(crate) fn masquerade(family: &Family, bridge: &str) -> Rule {
    let mut name = bridge.as_bytes().to_vec();
    name.resize(IFNAME_BYTES, 0);
    let expressions = [
        load(MetaKey::Nfproto),
        compare(Operator::Equal, vec![family.nfproto]),
        Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(NETWORK_HEADER),
            Payload::Offset(family.source_offset),
            Payload::Len(family.key_bytes.into()),
        ]),
        Expressions::Lookup(vec![
            Lookup::Set(family.egress.to_owned()),
            Lookup::SourceRegister(Register::Reg1),
            Lookup::Flags(0),
        ]),
        load(MetaKey::Oifname),
        compare(Operator::NotEqual, name),
        Expressions::Other {
            expression_type: "masq".to_owned(),
            attributes: vec![],
        },
    ];
    expressions.into_iter().map(Into::into).collect()
}

fn load(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![
        Meta::Key(key),
        Meta::DestinationRegister(Register::Reg1),
    ])
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}
