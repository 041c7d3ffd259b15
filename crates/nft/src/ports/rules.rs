//! The rules about published ports, as the expressions that nft compiles from their lines in `ports.nft`.

use netlink_packet_netfilter::nftables::{
    Expressions, Lookup, MetaKey, Operator, Register, Verdict,
};

use super::skeleton::{CONDITIONS, PUBLISH, SETS4, SETS6, Sets};
use crate::expr::{
    NETWORK_HEADER, NF_DROP, Rule, compare, ifname, load, lookup, masq, number, of_family, other,
    payload, rule, translated, verdict,
};
use crate::family::{End, IPV4, IPV6};
use crate::tuple::{Tuple, address, register};

/// The first byte of 127.0.0.0/8.
const LOCALNET: u8 = 127;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;
/// `NFTA_FIB_DREG`, `_RESULT`, `_FLAGS`; `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`.
const FIB: [(u16, u32); 3] = [(1, 1), (2, 3), (3, 2)];
/// `NFTA_NAT_TYPE` and its value for `dnat`; `NFTA_NAT_FAMILY`; the first and the last address and port; the flags that the
/// kernel finds by itself.
const NAT_TYPE: (u16, u32) = (1, 1);
const NAT_FAMILY: u16 = 2;
const NAT_ADDRESS: [u16; 2] = [3, 4];
const NAT_PORT: [u16; 2] = [5, 6];
const NAT_FLAGS: (u16, u32) = (7, 3);

/// `ports-publish`: translates a host port to the container's address and port.
pub(super) fn publish() -> Vec<Rule> {
    // A container cannot answer to ::1, as the kernel lets no packet to that address out.
    let mut loopback = of_family(&IPV6).to_vec();
    loopback.push(address(Register::Reg1, &IPV6, End::Destination));
    let one = std::net::Ipv6Addr::LOCALHOST.octets().to_vec();
    loopback.push(compare(Operator::Equal, one));
    loopback.push(verdict(Verdict::Return, None));
    let conditions = vec![verdict(Verdict::Jump, Some(CONDITIONS))];
    let mut rules = vec![loopback, conditions];
    for sets in [&SETS4, &SETS6] {
        let bound = Tuple::new().destination(sets.family).protocol_and_port();
        rules.push(dnat(sets, bound, sets.bound));
        rules.push(dnat(sets, Tuple::new().protocol_and_port(), sets.ports));
    }
    rules.into_iter().map(rule).collect()
}

fn dnat(sets: &Sets, tuple: Tuple, map: &str) -> Vec<Expressions> {
    let family = sets.family;
    let mut rule = of_family(family).to_vec();
    rule.extend(tuple.expressions);
    rule.push(Expressions::Lookup(vec![
        Lookup::Set(map.to_owned()),
        Lookup::SourceRegister(Register::Reg1),
        Lookup::DestinationRegister(Register::Reg1),
        Lookup::Flags(0),
    ]));
    let port = register(u32::from(family.key_bytes) / 4);
    let mut attributes = vec![
        number(NAT_TYPE),
        number((NAT_FAMILY, family.nfproto.into())),
    ];
    attributes.extend(NAT_ADDRESS.map(|kind| number((kind, Register::Reg1.into()))));
    attributes.extend(NAT_PORT.map(|kind| number((kind, port.into()))));
    attributes.push(number(NAT_FLAGS));
    rule.push(other("nat", attributes));
    rule
}

/// `fib daddr type local jump ports-publish`
pub(super) fn to_this_host() -> Rule {
    rule(vec![
        other("fib", FIB.map(number).to_vec()),
        compare(Operator::Equal, LOCAL.to_ne_bytes().to_vec()),
        verdict(Verdict::Jump, Some(PUBLISH)),
    ])
}

/// `ip daddr 127.0.0.0/8 iifname != "lo" drop`: keeps out what a container's `route_localnet` would let in.
pub(super) fn drop_localnet() -> Rule {
    let mut expressions = of_family(&IPV4).to_vec();
    expressions.extend([
        // nft loads no more bytes of an address than it compares.
        payload(
            Register::Reg1,
            NETWORK_HEADER,
            IPV4.offset(End::Destination),
            1,
        ),
        compare(Operator::Equal, vec![LOCALNET]),
        load(MetaKey::Iifname),
        compare(Operator::NotEqual, ifname("lo")),
        verdict(Verdict::Other(NF_DROP), None),
    ]);
    rule(expressions)
}

/// Packets that leave under this host's address.
pub(super) fn masquerade_clients() -> Vec<Rule> {
    let hairpin = |sets: &Sets, key| {
        Tuple::new()
            .interface(key)
            .destination(sets.family)
            .protocol_and_port()
    };
    let masquerade = |mut rule: Vec<Expressions>, tuple: Tuple, set| {
        rule.extend(tuple.expressions);
        rule.extend([lookup(set), masq()]);
        rule
    };
    let mut rules = vec![];
    for sets in [&SETS4, &SETS6] {
        let mut from_nowhere = translated();
        from_nowhere.extend([load(MetaKey::Iif), compare(Operator::Equal, vec![0; 4])]);
        from_nowhere.extend(of_family(sets.family));
        let tuple = hairpin(sets, MetaKey::Oifname);
        rules.push(masquerade(from_nowhere, tuple, sets.hairpin));
        let tuple = hairpin(sets, MetaKey::Iifname);
        rules.push(masquerade(translated_of(sets), tuple, sets.hairpin));
    }
    for sets in [&SETS4, &SETS6] {
        let tuple = Tuple::new().destination(sets.family).protocol_and_port();
        rules.push(masquerade(translated_of(sets), tuple, sets.hidden));
    }
    rules.into_iter().map(rule).collect()
}

/// The same for one version of IP.
fn translated_of(sets: &Sets) -> Vec<Expressions> {
    let mut rule = translated();
    rule.extend(of_family(sets.family));
    rule
}
