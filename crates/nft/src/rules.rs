//! The rules of `skeleton.nft`, as the expressions that nft compiles them to. nft recognizes a rule by its sequence of
//! expressions when it prints, so they match nft's down to the order of the attributes in a dump.

use netlink_packet_netfilter::nftables::{
    ChecksumFlags, ChecksumType, DataAttribute, Expressions, Immediate, MetaKey, Operator, Payload,
    Register, Verdict,
};

use crate::expr::{
    self, LINK_HEADER, MAC_BYTES, PORT_BYTES, Rule, TRANSPORT_HEADER, UDP, accept, compare, drop,
    established, ifname, load, lookup, lookup_absent, masq, masq_to, notrack, number, of_family,
    other, payload, port, rule, translated, verdict,
};
use crate::family::{End, Family, IPV4, IPV6};
use crate::skeleton::{ANY_SOURCE_PORT, FROM_CONTAINERS, TO_TUNNELS, TOGETHER};
use crate::tuple::{Tuple, address};

/// The UDP ports from which our tunnels send, the last one excluded: a process without rights cannot send from these
/// (`ip_unprivileged_port_start`).
pub const TUNNEL_SOURCE_PORTS: (u16, u16) = (512, 1024);
/// The ports that connections of containers have at the host's address. Others, on which services of hosts listen and most published
/// ports are, must not be theirs: what a client sends to such a port from the port that it has in such a connection would go to that container.
const CLIENT_PORTS: (u16, u16) = (32768, 65535);
const TCP: u8 = 6;
const SCTP: u8 = 132;
/// `NFTA_FIB_DREG`, `_RESULT`, `_FLAGS`; `NFT_FIB_RESULT_OIF`, `_OIFNAME`; `NFTA_FIB_F_SADDR`, `_IIF`, `_PRESENT`.
const BACK_BY_THE_SAME: [(u16, u32); 3] = [(1, 1), (2, 1), (3, 1 << 0 | 1 << 3 | 1 << 5)];
const BACK_BY: [(u16, u32); 3] = [(1, 1), (2, 2), (3, 1 << 0)];

/// `ip saddr @egress4 oifname != "bridge" masquerade`. An inet table sees both versions of IP, hence nfproto first.
pub(crate) fn masquerade(family: &Family, bridge: &str) -> Rule {
    let mut expressions = of_family(family).to_vec();
    expressions.extend([
        address(Register::Reg1, family, End::Source),
        lookup(family.egress),
        load(MetaKey::Oifname),
        compare(Operator::NotEqual, ifname(bridge)),
        masq(),
    ]);
    rule(expressions)
}

/// `meta l4proto tcp iifname "bridge" oifname != "bridge" masquerade to :32768-65535`, for each protocol with ports and each link by which
/// containers have a way out. It uses no set: versions up to 1.0.0 could not remove one that they know from their own rules.
pub(crate) fn masquerade_apart(bridge: &str, gateways: &[&str]) -> Vec<Rule> {
    let of = |protocol: u8, from: Vec<u8>| {
        let mut expressions = vec![
            load(MetaKey::L4Proto),
            compare(Operator::Equal, vec![protocol]),
            load(MetaKey::Iifname),
            compare(Operator::Equal, from),
            load(MetaKey::Oifname),
            compare(Operator::NotEqual, ifname(bridge)),
        ];
        expressions.extend(masq_to(CLIENT_PORTS));
        rule(expressions)
    };
    let each = facing(bridge, gateways);
    each.flat_map(|from| [TCP, UDP, SCTP].map(|protocol| of(protocol, from.clone())))
        .collect()
}

/// What comes by no link of containers and has the address of one, whatever it is for.
pub(crate) fn drop_forged(bridge: &str, links: &[&str]) -> Vec<Rule> {
    let own = facing(bridge, links).map(|name| {
        vec![
            load(MetaKey::Iifname),
            compare(Operator::Equal, name),
            accept(),
        ]
    });
    let forged = facing(bridge, links).map(|name| {
        vec![
            other("fib", BACK_BY.map(number).to_vec()),
            compare(Operator::Equal, name),
            drop(),
        ]
    });
    own.chain(forged).map(rule).collect()
}

/// `ip saddr . ip daddr . udp dport @peers4 notrack accept`: one lookup for a packet that may pass.
pub(crate) fn admit_peers(family: &Family) -> Rule {
    let tuple = Tuple::new().address(family, End::Source);
    let tuple = tuple.address(family, End::Destination).port();
    let mut rule = rule(udp(family, tuple, family.peers));
    rule.extend([notrack(), accept().into()]);
    rule
}

/// `ip daddr . udp dport @tunnels4 drop`
pub(crate) fn drop_strangers(family: &Family) -> Rule {
    let mut expressions = udp(family, socket(family, End::Destination), family.tunnels);
    expressions.push(drop());
    rule(expressions)
}

/// `meta skuid != 4294967295 th dport != @any-source-port drop`: a program's packet has a user, and no user has that number (`INVALID_UID`).
pub(crate) fn drop_of_users() -> Rule {
    rule(vec![
        load(MetaKey::SocketUserId),
        compare(Operator::NotEqual, vec![u8::MAX; 4]),
        port(Register::Reg1),
        lookup_absent(ANY_SOURCE_PORT),
        drop(),
    ])
}

/// `ip saddr . udp dport @tunnels4 notrack`
pub(crate) fn untracked(family: &Family) -> Rule {
    let mut rule = rule(udp(family, socket(family, End::Source), family.tunnels));
    rule.push(notrack());
    rule
}

/// `udp sport >= 1024 ip daddr . udp dport @all-tunnels4 goto to-tunnels`: what this host sends through a tunnel has the user of the program
/// that sent it, but goes from a port of the tunnel's, and so costs no lookup here.
pub(crate) fn to_tunnels(family: &Family) -> Rule {
    let (_, end) = TUNNEL_SOURCE_PORTS;
    let mut expressions = of_udp().to_vec();
    expressions.extend([
        payload(Register::Reg1, TRANSPORT_HEADER, 0, PORT_BYTES),
        compare(Operator::GreatherThanEqual, end.to_be_bytes().to_vec()),
    ]);
    expressions.extend(of_family(family));
    expressions.extend(socket(family, End::Destination).expressions);
    expressions.extend([
        lookup(family.all_tunnels),
        verdict(Verdict::Goto, Some(TO_TUNNELS)),
    ]);
    rule(expressions)
}

/// `ip daddr . udp dport @all-tunnels4 accept`
pub(crate) fn admit_tunnels(family: &Family) -> Rule {
    let mut expressions = udp(family, socket(family, End::Destination), family.all_tunnels);
    expressions.push(accept());
    rule(expressions)
}

/// `ip daddr . udp dport @all-tunnels4 ip saddr . udp dport != @all-tunnels4 drop`
pub(crate) fn drop_forwarded(family: &Family) -> Rule {
    let mut expressions = udp(family, socket(family, End::Destination), family.all_tunnels);
    expressions.extend(socket(family, End::Source).expressions);
    expressions.extend([lookup_absent(family.all_tunnels), drop()]);
    rule(expressions)
}

/// What containers may send, in the order of the rules: to no tunnel, and from no address that is not routed back to where it came
/// from. A host that has two links to a segment may have its route by the other one.
pub(crate) fn from_containers(bridge: &str, links: &[&str]) -> Vec<Rule> {
    let to_tunnel = |family: &Family| {
        let to = socket(family, End::Destination);
        let mut expressions = udp(family, to, family.all_tunnels);
        expressions.push(drop());
        expressions
    };
    let back = vec![
        other("fib", BACK_BY_THE_SAME.map(number).to_vec()),
        compare(Operator::Equal, vec![1, 0, 0, 0]),
        accept(),
    ];
    let of_bridge = vec![
        load(MetaKey::Iifname),
        compare(Operator::Equal, ifname(bridge)),
        drop(),
    ];
    let beside = links.iter().map(|prefix| {
        vec![
            other("fib", BACK_BY.map(number).to_vec()),
            compare(Operator::Equal, prefix.as_bytes().to_vec()),
            accept(),
        ]
    });
    let [v4, v6] = [&IPV4, &IPV6].map(to_tunnel);
    // These have no route by a link to a segment. They leave no link, and the sandbox knows which container has which.
    let mut link_local = of_family(&IPV6).to_vec();
    link_local.extend(expr::link_local(IPV6.source_offset, Operator::Equal));
    link_local.push(accept());
    let rules = [v4, v6, link_local, back, of_bridge]
        .into_iter()
        .chain(beside);
    rules.chain([vec![drop()]]).map(rule).collect()
}

/// Leads what comes by the containers' links to a chain of its own.
pub(crate) fn by_containers(bridge: &str, links: &[&str]) -> Vec<Rule> {
    let names = facing(bridge, links).map(|name| {
        vec![
            load(MetaKey::Iifname),
            compare(Operator::Equal, name),
            verdict(Verdict::Goto, Some(FROM_CONTAINERS)),
        ]
    });
    names.map(rule).collect()
}

/// The name of the bridge, and how those of links begin.
fn facing(bridge: &str, links: &[&str]) -> impl Iterator<Item = Vec<u8>> {
    let links = links.iter().map(|prefix| prefix.as_bytes().to_vec());
    [ifname(bridge)].into_iter().chain(links)
}

/// What may be forwarded to containers, whose links are the egress bridge and those of networks.
pub(crate) fn to_containers(bridge: &str, links: &[&str]) -> Vec<Rule> {
    let mut following = established();
    following.push(accept());
    let mut led = translated();
    led.push(accept());
    let both = Tuple::new().interface(MetaKey::Iifname);
    let mut together = both.interface(MetaKey::Oifname).expressions;
    together.extend([lookup(TOGETHER), accept()]);
    let others = facing(bridge, links).map(|name| {
        vec![
            load(MetaKey::Oifname),
            compare(Operator::Equal, name),
            drop(),
        ]
    });
    let rules = [following, led, together].into_iter().chain(others);
    rules.map(rule).collect()
}

/// An address of a packet, and its destination port: the tunnels of a network use the same port in both directions.
fn socket(family: &Family, end: End) -> Tuple {
    Tuple::new().address(family, end).port()
}

/// UDP packets whose tuple is in a set.
pub(crate) fn udp(family: &Family, tuple: Tuple, set: &str) -> Vec<Expressions> {
    let mut expressions = of_family(family).to_vec();
    expressions.extend(of_udp());
    expressions.extend(tuple.expressions);
    expressions.push(lookup(set));
    expressions
}

fn of_udp() -> [Expressions; 2] {
    [load(MetaKey::L4Proto), compare(Operator::Equal, vec![UDP])]
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
    rule(expressions.into())
}
