//! Conditions under which a port is published, in nft's words.
//!
//! Maps cannot test conditions. So each condition is a rule before the maps that matches packets to the port for which the
//! condition does not hold, and keeps them from the maps.

use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    Expressions, MetaKey, NfTablesMessage, Operator, Register, RuleAttribute, RuleMessage, Verdict,
};

use super::entry::HostPort;
use super::skeleton::CONDITIONS;
use crate::channel::{Change, Channel};
use crate::element::{self, octets, user_data};
use crate::error::Error;
use crate::expr::{
    IFNAME_BYTES, NETWORK_HEADER, NF_ACCEPT, PORT_BYTES, PORT_OFFSET, Rule, TRANSPORT_HEADER,
    compare, expressions, ifname, load, mask, of_family, payload, rule, verdict,
};
use crate::family::{End, Family, IPV4, IPV6};
use crate::skeleton::{TABLE, on, rule as rule_message};

/// Where the source port is in the headers of UDP, TCP and SCTP.
const SOURCE_PORT: u32 = 0;
/// The protocols that nft's expressions for ports name.
const PROTOCOLS: [(&str, u8); 3] = [("tcp", 6), ("udp", 17), ("sctp", 132)];
/// The supported part of nft's language, for errors.
const KNOWN: &str = "ip|ip6 saddr|daddr, iifname, tcp|udp|sctp|th sport, meta mark or mark, each with a value or != and a value";

/// One property that a packet must have, or must not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Source(IpNetwork),
    Destination(IpNetwork),
    Interface(String),
    /// A port of this protocol, or of any.
    SourcePort(Option<u8>, RangeInclusive<u16>),
    Mark(u32),
}

/// A run of ports with the conditions under which they are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditional {
    /// The first port.
    pub at: HostPort,
    /// The last one.
    pub last: u16,
    /// All of them have to hold.
    pub conditions: Vec<Condition>,
}

/// The rules of the chain, by owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions(Vec<(String, Rule)>);

/// Parses conditions for one version of IP; the error says what is not understood.
pub fn parse(words: &[String], v6: bool) -> Result<Vec<Condition>, String> {
    let all = words.join(" ");
    let mut words = all.split_whitespace();
    let mut conditions = vec![];
    while let Some(first) = words.next() {
        if first.starts_with(['-', '!']) {
            return Err(format!(
                "{first:?} is a word of iptables; here are those of nftables: {KNOWN}"
            ));
        }
        let subject = match first {
            "iifname" | "mark" => first.to_owned(),
            _ => format!("{first} {}", words.next().unwrap_or_default()),
        };
        let mut value = words.next();
        let negated = value == Some("!=");
        if negated || value == Some("==") {
            value = words.next();
        }
        let value = value.ok_or_else(|| format!("{subject:?} has no value"))?;
        let test = test(&subject, value.trim_matches(['"', '\'']), v6)?;
        conditions.push(Condition { negated, test });
    }
    Ok(conditions)
}

fn test(subject: &str, value: &str, v6: bool) -> Result<Test, String> {
    let bad = |what: &str| format!("{subject} {value}: not {what}");
    let network = || {
        let network: Result<IpNetwork, _> = value.parse();
        let version = if v6 { "IPv6" } else { "IPv4" };
        let what = format!("an address or network of {version}");
        network
            .ok()
            .filter(|network| network.is_ipv6() == v6)
            .ok_or_else(|| bad(&what))
    };
    match (subject, v6) {
        ("ip saddr", false) | ("ip6 saddr", true) => Ok(Test::Source(network()?)),
        ("ip daddr", false) | ("ip6 daddr", true) => Ok(Test::Destination(network()?)),
        ("iifname" | "meta iifname", _) if value.len() < IFNAME_BYTES && value != "*" => {
            Ok(Test::Interface(value.to_owned()))
        }
        ("iifname" | "meta iifname", _) => Err(bad("an interface's name")),
        ("tcp sport" | "udp sport" | "sctp sport" | "th sport", _) => {
            let protocol = PROTOCOLS.iter().find(|(name, _)| subject.starts_with(name));
            let protocol = protocol.map(|(_, number)| *number);
            let (first, last) = value.split_once('-').unwrap_or((value, value));
            match (first.parse(), last.parse()) {
                (Ok(first), Ok(last)) if first <= last => {
                    Ok(Test::SourcePort(protocol, first..=last))
                }
                _ => Err(bad("a port or a range of ports")),
            }
        }
        ("mark" | "meta mark", _) => {
            let mark = match value.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => value.parse(),
            };
            mark.map(Test::Mark).map_err(|_| bad("a mark"))
        }
        _ => Err(format!("{subject:?} is not understood; what is: {KNOWN}")),
    }
}

impl Conditions {
    /// Sets an owner's conditions.
    pub fn set(&mut self, owner: &str, conditionals: &[Conditional]) {
        self.0.retain(|(other, _)| other != owner);
        for conditional in conditionals {
            let rules = conditional.conditions.iter();
            let rules = rules.map(|it| (owner.to_owned(), drop_unless(conditional, it)));
            self.0.extend(rules);
        }
    }

    /// Removes the conditions of all other owners.
    pub fn retain(&mut self, mut is_owner: impl FnMut(&str) -> bool) {
        self.0.retain(|(owner, _)| is_owner(owner));
    }

    /// The owner of each rule.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(owner, _)| owner.as_str())
    }

    /// Whether an owner has the same conditions in `other`.
    pub fn is_same_for(&self, owner: &str, other: &Self) -> bool {
        let of = |all: &Self| {
            let all = all.0.iter().filter(|(it, _)| it == owner);
            all.cloned().collect::<Vec<_>>()
        };
        of(self) == of(other)
    }
}

/// The rule that keeps packets from the maps for which the condition does not hold.
fn drop_unless(conditional: &Conditional, condition: &Condition) -> Rule {
    let at = &conditional.at;
    let family = if at.v6 { &IPV6 } else { &IPV4 };
    let port = |offset| payload(Register::Reg1, TRANSPORT_HEADER, offset, PORT_BYTES);
    let mut all = of_family(family).to_vec();
    if let Some(address) = at.address {
        all.extend(within(
            family,
            End::Destination,
            address.into(),
            Operator::Equal,
        ));
    }
    all.push(load(MetaKey::L4Proto));
    all.push(compare(Operator::Equal, vec![at.protocol]));
    all.push(port(PORT_OFFSET));
    all.extend(between(&(at.port..=conditional.last)));
    let fails = if condition.negated {
        Operator::Equal
    } else {
        Operator::NotEqual
    };
    match &condition.test {
        Test::Source(network) => all.extend(within(family, End::Source, *network, fails)),
        Test::Destination(network) => {
            all.extend(within(family, End::Destination, *network, fails));
        }
        Test::Interface(name) => {
            all.push(load(MetaKey::Iifname));
            // As nft does: for a name that ends in `*`, only what is before it is compared.
            let beginning = name.strip_suffix('*').map(|it| it.as_bytes().to_vec());
            all.push(compare(fails, beginning.unwrap_or_else(|| ifname(name))));
        }
        // A packet to the port always has the port's protocol, so the condition never holds.
        Test::SourcePort(Some(protocol), _) if *protocol != at.protocol => {}
        Test::SourcePort(_, ports) => {
            all.push(port(SOURCE_PORT));
            all.extend(if condition.negated {
                between(ports)
            } else {
                vec![outside(ports)]
            });
        }
        Test::Mark(mark) => {
            all.push(load(MetaKey::Mark));
            all.push(compare(fails, mark.to_ne_bytes().to_vec()));
        }
    }
    all.push(verdict(Verdict::Other(NF_ACCEPT), None));
    rule(all)
}

fn within(family: &Family, end: End, network: IpNetwork, how: Operator) -> Vec<Expressions> {
    let bytes = u32::from(family.key_bytes);
    let mut all = vec![payload(
        Register::Reg1,
        NETWORK_HEADER,
        family.offset(end),
        bytes,
    )];
    if u32::from(network.prefix()) < bytes * 8 {
        all.push(mask(octets(network.mask())));
    }
    all.push(compare(how, octets(network.network())));
    all
}

/// The first register has one of these values.
fn between(ports: &RangeInclusive<u16>) -> Vec<Expressions> {
    let bytes = |port: &u16| port.to_be_bytes().to_vec();
    if ports.start() == ports.end() {
        return vec![compare(Operator::Equal, bytes(ports.start()))];
    }
    vec![
        compare(Operator::GreatherThanEqual, bytes(ports.start())),
        compare(Operator::LessThanEqual, bytes(ports.end())),
    ]
}

/// The first register has none of these values.
fn outside(ports: &RangeInclusive<u16>) -> Expressions {
    let bytes = |port: &u16| port.to_be_bytes().to_vec();
    if ports.start() == ports.end() {
        return compare(Operator::NotEqual, bytes(ports.start()));
    }
    // `NFTA_RANGE_SREG`, `_OP` (not within), `_FROM_DATA`, `_TO_DATA`, both with `NFTA_DATA_VALUE`.
    let data = |kind: u16, port: &u16| {
        let value = [&[6, 0, 1, 0][..], &port.to_be_bytes(), &[0, 0]].concat();
        DefaultNla::new(kind, value)
    };
    let number = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    Expressions::Other {
        expression_type: "range".to_owned(),
        attributes: vec![
            number(1, Register::Reg1.into()),
            number(2, 1),
            data(3, ports.start()),
            data(4, ports.end()),
        ],
    }
}

/// All rules of the chain, with their handles.
pub(super) fn all(channel: &mut Channel) -> Result<(Conditions, Vec<u64>), Error> {
    let question = NfTablesMessage::GetRule(rule_message(TABLE, CONDITIONS, vec![]));
    let answers = channel.dump(&on("read the rules of chain", CONDITIONS), question)?;
    let (mut conditions, mut handles) = (Conditions::default(), vec![]);
    for answer in answers {
        let NfTablesMessage::NewRule(message) = answer else {
            continue;
        };
        let (owner, handle) = told(&message);
        conditions.0.push((owner, expressions(message)));
        handles.push(handle);
    }
    Ok((conditions, handles))
}

fn told(message: &RuleMessage) -> (String, u64) {
    let (mut owner, mut handle) = (String::new(), 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Handle(is) => handle = *is,
            RuleAttribute::UserData(bytes) => owner = element::owner(bytes),
            _ => {}
        }
    }
    (owner, handle)
}

/// The changes that turn one into the other.
pub(super) fn changes(found: &(Conditions, Vec<u64>), wanted: &Conditions) -> Vec<Change> {
    let (found, handles) = found;
    let gone = found
        .0
        .iter()
        .zip(handles)
        .filter(|(it, _)| !wanted.0.contains(it));
    let gone = gone.map(|(_, handle)| Change {
        what: on("remove a rule of chain", CONDITIONS),
        flags: 0,
        message: NfTablesMessage::DeleteRule(rule_message(
            TABLE,
            CONDITIONS,
            vec![RuleAttribute::Handle(*handle)],
        )),
    });
    let new = wanted.0.iter().filter(|it| !found.0.contains(it));
    let new = new.map(|(owner, rule)| {
        let parts = vec![
            RuleAttribute::Expressions(rule.clone()),
            RuleAttribute::UserData(user_data(owner)),
        ];
        Change {
            what: on("add a rule to chain", CONDITIONS),
            flags: NLM_F_CREATE | NLM_F_APPEND,
            message: NfTablesMessage::NewRule(rule_message(TABLE, CONDITIONS, parts)),
        }
    });
    gone.chain(new).collect()
}
