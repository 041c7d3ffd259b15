//! The guard's table as data; `guard.nft` is the same in nft's language.

use netlink_packet_netfilter::nftables::{
    Expressions, InetHookNumber, MetaKey, Operator, Register, SetFlags, Verdict,
};

use super::GUARD;
use crate::expr::{
    LINK_HEADER, MAC_BYTES, NETWORK_HEADER, PORT_BYTES, Rule, TRANSPORT_HEADER, UDP, accept,
    compare, drop, ifname, link_local, load, lookup, lookup_absent, mask, payload, verdict,
};
use crate::skeleton::{Chain, IFNAME, IFNAME_TYPE, Skeleton, TYPE_BITS, of_keys};

/// The ports whose frames are looked at.
pub(super) const GUARDED: &str = "guarded";
/// All ports that this table knows, each with the limit of what it sends to groups.
pub(super) const BUDGETS: &str = "budgets";
/// Ports with a MAC and an address that they may send from.
pub(super) const SOURCES4: &str = "sources4";
/// The same of IPv6.
pub(super) const SOURCES6: &str = "sources6";
/// The same once more, the MAC with the type of the frame behind it: one lookup for what most packets are.
pub(super) const PACKETS4: &str = "packets4";
/// The same of IPv6.
pub(super) const PACKETS6: &str = "packets6";
pub(super) const SETS: [&str; 6] = [GUARDED, BUDGETS, SOURCES4, SOURCES6, PACKETS4, PACKETS6];

const OWN4: &str = "own4";
const OWN6: &str = "own6";
const OWN_ICMP6: &str = "own-icmp6";
const OWN_ARP: &str = "own-arp";

/// Before nft's `dstnat` of the bridge family, where MACs are rewritten.
const BEFORE_DSTNAT: i32 = -301;
/// nft's numbers of the types of a MAC and the two addresses.
const MAC_TYPE: u32 = 9;
const IPV4_TYPE: u32 = 7;
const IPV6_TYPE: u32 = 8;
/// A MAC as a part of a concatenation, of whole words.
const MAC_PART: u32 = 8;

/// `enum ethertype`
pub(super) const IP: [u8; 2] = [0x08, 0x00];
pub(super) const IP6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];
const ICMP6: u8 = 58;
/// `PACKET_OTHERHOST`
const OTHER_HOST: u8 = 3;
/// Ports of DHCP's servers and clients. A client takes an answer from any port.
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCP6_SERVER: u16 = 547;
const DHCP6_CLIENT: u16 = 546;
/// Types of messages of ICMP for IPv6 (RFC 4861).
const ROUTER_ADVERT: u8 = 134;
const NEIGHBOR_SOLICIT: u8 = 135;
const NEIGHBOR_ADVERT: u8 = 136;
const REDIRECT: u8 = 137;

/// Offsets of what is compared: in the Ethernet header, in that of IPv4, of IPv6, in a message of ARP, and in one of neighbour discovery.
const ETHER_SOURCE: u32 = 6;
const ETHER_TYPE: u32 = 12;
const IP_SOURCE: u32 = 12;
const IP_DESTINATION: u32 = 16;
const IP6_SOURCE: u32 = 8;
const IP6_DESTINATION: u32 = 24;
const ARP_SENDER_MAC: u32 = 8;
const ARP_SENDER: u32 = 14;
const ARP_TARGET: u32 = 24;
const ND_TARGET: u32 = 8;

/// The table, in which what comes from the port `trusted` is not looked at.
pub(super) fn of(trusted: &str) -> Skeleton {
    let ports = |name| of_keys(name, IFNAME_TYPE, IFNAME, SetFlags::empty());
    let sources = |name, address, bytes| {
        let key = (IFNAME_TYPE << TYPE_BITS | MAC_TYPE) << TYPE_BITS | address;
        of_keys(name, key, IFNAME + MAC_PART + bytes, SetFlags::empty())
    };
    let hook = (
        "prerouting",
        "filter",
        InetHookNumber::PreRouting,
        BEFORE_DSTNAT,
    );
    Skeleton {
        table: GUARD,
        sets: vec![
            ports(GUARDED),
            ports(BUDGETS),
            sources(SOURCES4, IPV4_TYPE, 4),
            sources(SOURCES6, IPV6_TYPE, 16),
            sources(PACKETS4, IPV4_TYPE, 4),
            sources(PACKETS6, IPV6_TYPE, 16),
        ],
        chains: vec![
            Chain::new(hook, arriving(trusted)),
            Chain::called(OWN4, Some(own4())),
            Chain::called(OWN6, Some(own6())),
            Chain::called(OWN_ICMP6, Some(own_icmp6())),
            Chain::called(OWN_ARP, Some(own_arp())),
        ],
    }
}

/// What any port sends.
fn arriving(trusted: &str) -> Vec<Rule> {
    let goto = |ethertype: [u8; 2], chain| {
        rule([ether(ethertype), vec![verdict(Verdict::Goto, Some(chain))]])
    };
    vec![
        rule([
            vec![
                load(MetaKey::Iifname),
                compare(Operator::Equal, ifname(trusted)),
            ],
            vec![accept()],
        ]),
        rule([
            protocol(IP),
            to_one(),
            loopback(Operator::NotEqual),
            packet(PACKETS4, (NETWORK_HEADER, IP_SOURCE, 4)),
            vec![accept()],
        ]),
        rule([
            protocol(IP6),
            to_one(),
            icmp6(Operator::NotEqual),
            to_no_link_local(),
            packet(PACKETS6, (NETWORK_HEADER, IP6_SOURCE, 16)),
            vec![accept()],
        ]),
        rule([
            to_group(),
            vec![load(MetaKey::Iifname), lookup(BUDGETS)],
            vec![drop()],
        ]),
        goto(IP, OWN4),
        goto(IP6, OWN6),
        goto(ARP, OWN_ARP),
        drop_guarded(vec![]),
    ]
}

fn own4() -> Vec<Rule> {
    vec![
        rule([protocol(IP), loopback(Operator::Equal), vec![drop()]]),
        drop_guarded(at_port(0, DHCP_SERVER)),
        drop_guarded(at_port(PORT_BYTES, DHCP_CLIENT)),
        rule([
            protocol(IP),
            own(SOURCES4, ETHER, (NETWORK_HEADER, IP_SOURCE, 4)),
            vec![accept()],
        ]),
        drop_guarded(vec![]),
    ]
}

fn own6() -> Vec<Rule> {
    vec![
        rule([
            icmp6(Operator::Equal),
            vec![verdict(Verdict::Goto, Some(OWN_ICMP6))],
        ]),
        drop_guarded(at_port(0, DHCP6_SERVER)),
        drop_guarded(at_port(PORT_BYTES, DHCP6_CLIENT)),
        drop_guarded([protocol(IP6), from_nobody()].concat()),
        rule([protocol(IP6), own6_source(), vec![accept()]]),
        drop_guarded(vec![]),
    ]
}

fn own_icmp6() -> Vec<Rule> {
    let of_type = |kind: u8| {
        vec![
            load(MetaKey::L4Proto),
            compare(Operator::Equal, vec![ICMP6]),
            payload(Register::Reg1, TRANSPORT_HEADER, 0, 1),
            compare(Operator::Equal, vec![kind]),
        ]
    };
    let of_another = || {
        let mut own = own(SOURCES6, ETHER, (TRANSPORT_HEADER, ND_TARGET, 16));
        own.pop();
        own.push(lookup_absent(SOURCES6));
        own
    };
    vec![
        rule([
            vec![load(MetaKey::Iifname), lookup_absent(GUARDED)],
            vec![accept()],
        ]),
        rule([ether(IP6), of_type(ROUTER_ADVERT), vec![drop()]]),
        rule([ether(IP6), of_type(REDIRECT), vec![drop()]]),
        rule([
            ether(IP6),
            of_type(NEIGHBOR_ADVERT),
            of_another(),
            vec![drop()],
        ]),
        rule([
            protocol(IP6),
            from_nobody(),
            of_type(NEIGHBOR_SOLICIT),
            of_another(),
            vec![drop()],
        ]),
        rule([protocol(IP6), own6_source(), vec![accept()]]),
        rule([vec![drop()]]),
    ]
}

/// The sender says of itself what it has; one that asks whether an address is free says it of the address that it asks for.
fn own_arp() -> Vec<Rule> {
    let says = |address: u32| {
        [ETHER, (NETWORK_HEADER, ARP_SENDER_MAC)]
            .map(|mac| own(SOURCES4, mac, (NETWORK_HEADER, address, 4)))
            .concat()
    };
    let of_nobody = vec![
        payload(Register::Reg1, NETWORK_HEADER, ARP_SENDER, 4),
        compare(Operator::Equal, vec![0; 4]),
    ];
    vec![
        rule([
            vec![load(MetaKey::Iifname), lookup_absent(GUARDED)],
            vec![accept()],
        ]),
        rule([ether(ARP), says(ARP_SENDER), vec![accept()]]),
        rule([ether(ARP), of_nobody, says(ARP_TARGET), vec![accept()]]),
        rule([vec![drop()]]),
    ]
}

/// Where the sender's MAC is in the Ethernet header.
const ETHER: (u32, u32) = (LINK_HEADER, ETHER_SOURCE);

/// `iifname . MAC . ADDRESS @set`, with the places of both, and the bytes of the address.
fn own(set: &str, mac: (u32, u32), address: (u32, u32, u32)) -> Vec<Expressions> {
    vec![
        load(MetaKey::Iifname),
        payload(Register::Reg2, mac.0, mac.1, MAC_BYTES),
        payload(Register::Reg32_06, address.0, address.1, address.2),
        lookup(set),
    ]
}

fn own6_source() -> Vec<Expressions> {
    own(SOURCES6, ETHER, (NETWORK_HEADER, IP6_SOURCE, 16))
}

/// The same with the type of the frame behind the MAC.
fn packet(set: &str, address: (u32, u32, u32)) -> Vec<Expressions> {
    let mut own = own(set, ETHER, address);
    own[1] = payload(Register::Reg2, ETHER.0, ETHER.1, MAC_PART);
    own
}

/// `meta pkttype other`: to a MAC that is not that of the port, and no group's.
fn to_one() -> Vec<Expressions> {
    vec![
        load(MetaKey::PacketType),
        compare(Operator::Equal, vec![OTHER_HOST]),
    ]
}

/// `ip daddr 127.0.0.0/8`
fn loopback(operator: Operator) -> Vec<Expressions> {
    vec![
        payload(Register::Reg1, NETWORK_HEADER, IP_DESTINATION, 1),
        compare(operator, vec![127]),
    ]
}

/// `ip6 daddr != fe80::/10`: a client of DHCP for IPv6 is answered at its link-local address.
fn to_no_link_local() -> Vec<Expressions> {
    link_local(IP6_DESTINATION, Operator::NotEqual).into()
}

/// `meta l4proto ipv6-icmp`
fn icmp6(operator: Operator) -> Vec<Expressions> {
    vec![load(MetaKey::L4Proto), compare(operator, vec![ICMP6])]
}

/// `EXPRESSIONS iifname @guarded drop`
fn drop_guarded(expressions: Vec<Expressions>) -> Rule {
    let guarded = vec![load(MetaKey::Iifname), lookup(GUARDED), drop()];
    rule([expressions, guarded])
}

/// `ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00`
fn to_group() -> Vec<Expressions> {
    let bit = vec![1, 0, 0, 0, 0, 0];
    vec![
        payload(Register::Reg1, LINK_HEADER, 0, MAC_BYTES),
        mask(bit.clone()),
        compare(Operator::Equal, bit),
    ]
}

/// `ether type`, of the frame itself: what is in a VLAN has another one.
fn ether(ethertype: [u8; 2]) -> Vec<Expressions> {
    vec![
        payload(Register::Reg1, LINK_HEADER, ETHER_TYPE, 2),
        compare(Operator::Equal, ethertype.to_vec()),
    ]
}

/// `meta protocol`, which nft puts before tests of a header.
fn protocol(ethertype: [u8; 2]) -> Vec<Expressions> {
    vec![
        load(MetaKey::EtherTypeProtocol),
        compare(Operator::Equal, ethertype.to_vec()),
    ]
}

/// `udp sport PORT`, or, two bytes later, `udp dport PORT`
fn at_port(offset: u32, port: u16) -> Vec<Expressions> {
    vec![
        load(MetaKey::L4Proto),
        compare(Operator::Equal, vec![UDP]),
        payload(Register::Reg1, TRANSPORT_HEADER, offset, PORT_BYTES),
        compare(Operator::Equal, port.to_be_bytes().to_vec()),
    ]
}

/// `ip6 saddr ::`
fn from_nobody() -> Vec<Expressions> {
    vec![
        payload(Register::Reg1, NETWORK_HEADER, IP6_SOURCE, 16),
        compare(Operator::Equal, vec![0; 16]),
    ]
}

fn rule<const N: usize>(parts: [Vec<Expressions>; N]) -> Rule {
    parts.into_iter().flatten().map(Into::into).collect()
}
