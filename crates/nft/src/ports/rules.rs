//! The rules about published ports, as the expressions that nft compiles from their lines in `ports.nft`.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, DataAttribute, Expressions, Lookup, MetaKey, Operator, Register, Verdict,
};

use super::skeleton::{CONDITIONS, PUBLISH, SETS4, SETS6, Sets};
use crate::expr::{
    DST_NAT, NETWORK_HEADER, NF_DROP, Rule, compare, ifname, load, load_into, lookup, masq,
    payload, port, verdict,
};
use crate::family::{End, Family, IPV4, IPV6};

/// The first byte of 127.0.0.0/8.
const LOCALNET: u8 = 127;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;
/// `NFTA_FIB_DREG`, `_RESULT`, `_FLAGS`; `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`.
const FIB: [(u16, u32); 3] = [(1, 1), (2, 3), (3, 2)];
/// `NFTA_CT_DREG`, `NFTA_CT_KEY`; `NFT_CT_STATUS`.
const CT_STATUS: [(u16, u32); 2] = [(1, 1), (2, 2)];
/// `NFTA_NAT_TYPE` and its value for `dnat`; `NFTA_NAT_FAMILY`; the first and the last address and port; the flags that the
/// kernel finds by itself.
const NAT_TYPE: (u16, u32) = (1, 1);
const NAT_FAMILY: u16 = 2;
const NAT_ADDRESS: [u16; 2] = [3, 4];
const NAT_PORT: [u16; 2] = [5, 6];
const NAT_FLAGS: (u16, u32) = (7, 3);

/// A concatenation that is loaded part by part, from the first register on.
struct Tuple {
    expressions: Vec<Expressions>,
    words: u32,
}

impl Tuple {
    fn new() -> Self {
        Self {
            expressions: vec![],
            words: 0,
        }
    }

    /// The register of the next part, which has this many words.
    fn next(&mut self, words: u32) -> Register {
        let register = register(self.words);
        self.words += words;
        register
    }

    fn interface(mut self, key: MetaKey) -> Self {
        let register = self.next(4);
        self.expressions.push(load_into(register, key));
        self
    }

    fn destination(mut self, family: &Family) -> Self {
        let register = self.next(u32::from(family.key_bytes) / 4);
        self.expressions
            .push(address(register, family, End::Destination));
        self
    }

    fn protocol_and_port(mut self) -> Self {
        let register = self.next(1);
        self.expressions.push(load_into(register, MetaKey::L4Proto));
        let register = self.next(1);
        self.expressions.push(port(register));
        self
    }
}

/// The kernel's name of the register that begins with the given word.
fn register(word: u32) -> Register {
    match word {
        0 => Register::Reg1,
        4 => Register::Reg2,
        8 => Register::Reg3,
        12 => Register::Reg4,
        _ => Register::from(8 + word),
    }
}

fn address(register: Register, family: &Family, end: End) -> Expressions {
    let bytes = family.key_bytes.into();
    payload(register, NETWORK_HEADER, family.offset(end), bytes)
}

/// `meta nfproto`, which nft puts before tests of a header of one version of IP.
pub(super) fn of_family(family: &Family) -> [Expressions; 2] {
    [
        load(MetaKey::Nfproto),
        compare(Operator::Equal, vec![family.nfproto]),
    ]
}

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

/// `ct status dnat`
fn translated() -> Vec<Expressions> {
    vec![
        other("ct", CT_STATUS.map(number).to_vec()),
        mask(DST_NAT.to_ne_bytes().to_vec()),
        compare(Operator::NotEqual, vec![0; 4]),
    ]
}

/// The same for one version of IP.
fn translated_of(sets: &Sets) -> Vec<Expressions> {
    let mut rule = translated();
    rule.extend(of_family(sets.family));
    rule
}

/// Masks and compares the first register.
pub(super) fn mask(bits: Vec<u8>) -> Expressions {
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

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes,
    }
}

fn number((kind, value): (u16, u32)) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

pub(super) fn rule(expressions: Vec<Expressions>) -> Rule {
    expressions.into_iter().map(Into::into).collect()
}
