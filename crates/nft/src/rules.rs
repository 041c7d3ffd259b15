//! The rules of `skeleton.nft`, as the expressions that nft compiles them to. nft recognizes a rule by its sequence of
//! expressions when it prints, so they match nft's down to the order of the attributes in a dump.

use netlink_packet_netfilter::nftables::{
    ChecksumFlags, ChecksumType, DataAttribute, Expressions, Immediate, MetaKey, Operator, Payload,
    Register, Verdict,
};

use crate::expr::{
    LINK_HEADER, MAC_BYTES, NETWORK_HEADER, NF_ACCEPT, NF_DROP, Rule, UDP, compare, ifname, load,
    lookup, masq, notrack, payload, port, verdict,
};
use crate::family::{End, Family};

/// `ip saddr @egress4 oifname != "bridge" masquerade`. An inet table sees both versions of IP, hence nfproto first.
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

/// `ip saddr . ip daddr . udp dport @peers4 notrack accept`: one lookup for a permitted packet.
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

/// `ip daddr . udp dport @tunnels4`: a packet of one of our tunnels, which use the same port in both directions.
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
