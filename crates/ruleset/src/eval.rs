//! Evaluates the rules of a chain for a packet of which only some properties are known: hook, interfaces, addresses and
//! ports, connection state. A rule that tests anything else, or does something that is not understood here, may match or not.
//! So there are three answers: the packet passes, it is dropped, or either. A chain is said to stop a packet only if nothing
//! in it could let the packet pass.

use std::collections::HashMap;
use std::rc::Rc;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta,
    Payload, Register, Verdict, VerdictAttribute,
};

use nft::Error;
use nft::expr::{NF_ACCEPT, NF_DROP, Rule};

use crate::packet::Packet;
use crate::registers::{Bits, Loaded, Registers, compare, known, load, mask};
use crate::sets::Members;
use crate::xtables::{self, Target, value};

/// `NFTA_CT_KEY`, and `NFT_CT_STATE`, `NFT_CT_STATUS` of it.
const CT_KEY: u16 = 2;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// `NFTA_CT_DREG`
const CT_REGISTER: u16 = 1;
/// `NFT_LOOKUP_F_INV`
const INVERTED: u32 = 1;
/// Deeper than the kernel allows jumps to nest.
const DEPTH: u32 = 17;

/// Gives the rules of a table's chains and the elements of its sets.
pub(crate) trait Table {
    /// The rules of a chain.
    fn rules(&mut self, chain: &str) -> Result<Rc<[Rule]>, Error>;
    /// The elements of a set; `None` if they are not read.
    fn members(&mut self, set: &str) -> Result<Option<Rc<Members>>, Error>;
}

/// What may happen to a packet in a chain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// It may be accepted.
    pub(crate) passes: bool,
    /// It may be dropped, by this policy or verdict.
    pub(crate) drops: Option<String>,
    /// It may reach the chain's end.
    pub(crate) goes_on: bool,
}

impl Outcome {
    pub(crate) fn of(
        packet: &Packet<'_>,
        chain: &str,
        table: &mut impl Table,
    ) -> Result<Self, Error> {
        Self::in_chain(packet, chain, table, &mut HashMap::new(), 0)
    }

    /// Applies the policy to a packet that reached the end of a base chain.
    pub(crate) fn end_by_policy(&mut self, drops: bool) {
        if drops {
            self.drops.get_or_insert_with(|| "policy drop".to_owned());
        } else {
            self.passes = true;
        }
    }

    fn in_chain(
        packet: &Packet<'_>,
        chain: &str,
        table: &mut impl Table,
        called_before: &mut HashMap<String, Self>,
        depth: u32,
    ) -> Result<Self, Error> {
        let mut outcome = Self::default();
        for rule in table.rules(chain)?.iter() {
            let (certain, action) = read(packet, rule, table)?;
            let ends = match action {
                Action::None => continue,
                Action::Drop(word) => {
                    outcome
                        .drops
                        .get_or_insert_with(|| format!("{word} in chain {chain}"));
                    true
                }
                Action::Accept => {
                    outcome.passes = true;
                    true
                }
                Action::Return => {
                    outcome.goes_on = true;
                    true
                }
                Action::Call(called, comes_back) if depth < DEPTH => {
                    let inner = if let Some(known) = called_before.get(&called) {
                        known.clone()
                    } else {
                        Self::in_chain(packet, &called, table, called_before, depth + 1)?
                    };
                    called_before.insert(called, inner.clone());
                    outcome.passes |= inner.passes;
                    outcome.drops = outcome.drops.or(inner.drops);
                    outcome.goes_on |= inner.goes_on && !comes_back;
                    !(comes_back && inner.goes_on)
                }
                Action::Call(..) | Action::Unknown => {
                    outcome.passes = true;
                    false
                }
            };
            if certain && ends {
                return Ok(outcome);
            }
        }
        outcome.goes_on = true;
        Ok(outcome)
    }
}

/// The chain to which all such packets jump before any rule has decided on one, if there is such a chain.
pub(crate) fn first_call(
    packet: &Packet<'_>,
    chain: &str,
    table: &mut impl Table,
) -> Result<Option<String>, Error> {
    for rule in table.rules(chain)?.iter() {
        match read(packet, rule, table)? {
            (_, Action::None) => {}
            (true, Action::Call(called, true)) => return Ok(Some(called)),
            _ => break,
        }
    }
    Ok(None)
}

/// What a rule does to what it matches.
enum Action {
    None,
    Accept,
    Drop(&'static str),
    Return,
    /// It jumps to another chain, and whether it returns from there.
    Call(String, bool),
    Unknown,
}

/// The rule's action, and whether the rule certainly matches the packet.
fn read(packet: &Packet<'_>, rule: &Rule, table: &mut impl Table) -> Result<(bool, Action), Error> {
    let mut registers = Registers::new();
    let mut certain = true;
    for expression in rule {
        let ListAttribute::Element(parts) = expression else {
            certain = false;
            continue;
        };
        let name = parts.iter().find_map(|part| match part {
            ExpressionAttribute::Name(name) => Some(name.as_str()),
            _ => None,
        });
        let data = parts.iter().find_map(|part| match part {
            ExpressionAttribute::Data(data) => Some(data),
            _ => None,
        });
        let matches = match data {
            Some(Expressions::Meta(parts)) => {
                load(&mut registers, meta(packet, parts));
                Some(true)
            }
            Some(Expressions::Payload(parts)) => {
                load(&mut registers, payload(packet, parts));
                Some(true)
            }
            Some(Expressions::Bitwise(parts)) => {
                let masked = mask(&registers, parts);
                load(&mut registers, masked);
                Some(true)
            }
            Some(Expressions::Cmp(parts)) => compare(&registers, parts),
            Some(Expressions::Immediate(parts)) => {
                if let Some(action) = verdict(parts) {
                    return Ok((certain, action));
                }
                // A constant of the rule, which no expression here compares.
                registers.clear();
                Some(true)
            }
            Some(Expressions::Lookup(parts)) => match look_up(&mut registers, parts, table)? {
                Looked::Matches(matches) => matches,
                Looked::Verdict(Some(action)) => return Ok((certain, action)),
                Looked::Verdict(None) => return Ok((false, Action::Unknown)),
            },
            Some(Expressions::Other { attributes, .. }) if name == Some("ct") => {
                let known = match number(attributes, CT_KEY) {
                    Some(CT_STATE) => Some((packet.state.of_nft(), u32::MAX)),
                    Some(CT_STATUS) => Some(packet.state.status()),
                    _ => None,
                };
                let known = known.map(|(bits, sure)| Bits {
                    value: bits.to_ne_bytes().to_vec(),
                    sure: sure.to_ne_bytes().to_vec(),
                });
                let register = number(attributes, CT_REGISTER);
                load(&mut registers, register.map(|register| (register, known)));
                Some(true)
            }
            Some(Expressions::Other { attributes, .. }) if name == Some("match") => {
                xtables::matches(attributes, packet.state)
            }
            Some(Expressions::Other { attributes, .. }) if name == Some("target") => {
                let action = match xtables::target(attributes) {
                    Some(Target::Reject) => Action::Drop("reject"),
                    Some(Target::Notrack) if packet.needs_tracking() => Action::Drop("notrack"),
                    Some(Target::Notrack | Target::Notes) => Action::None,
                    Some(Target::Translates) => Action::Accept,
                    None => return Ok((false, Action::Unknown)),
                };
                return Ok((certain, action));
            }
            _ => match name {
                Some("reject") => return Ok((certain, Action::Drop("reject"))),
                Some("notrack") if packet.needs_tracking() => {
                    return Ok((certain, Action::Drop("notrack")));
                }
                // These end the chain, whether or not there is anything to translate.
                Some("nat" | "masq" | "redir") => return Ok((certain, Action::Accept)),
                Some("queue") => return Ok((false, Action::Unknown)),
                Some("counter" | "log" | "last" | "notrack") => Some(true),
                _ => {
                    registers.clear();
                    None
                }
            },
        };
        match matches {
            Some(true) => {}
            Some(false) => return Ok((true, Action::None)),
            None => certain = false,
        }
    }
    Ok((certain, Action::None))
}

fn meta(packet: &Packet<'_>, parts: &[Meta]) -> Loaded {
    let (mut register, mut key) = (None, None);
    for part in parts {
        match part {
            Meta::DestinationRegister(is) => register = Some(*is),
            Meta::Key(is) => key = Some(*is),
            _ => {}
        }
    }
    Some((register?.into(), packet.meta(key?).map(Bits::from)))
}

fn payload(packet: &Packet<'_>, parts: &[Payload]) -> Loaded {
    let (mut register, mut base, mut offset, mut length) = (None, None, None, None);
    for part in parts {
        match part {
            Payload::DestinationRegister(is) => register = Some(*is),
            Payload::Base(is) => base = Some(*is),
            Payload::Offset(is) => offset = Some(*is),
            Payload::Len(is) => length = Some(*is),
            _ => {}
        }
    }
    let read = packet.bytes(base?, offset?, length?);
    Some((register?.into(), read.map(Bits::from)))
}

/// What a lookup in a set says about a register's value.
enum Looked {
    /// Whether the set contains it, if that is known.
    Matches(Option<bool>),
    /// The action that a verdict map has for the packet, if that is known; none if the map does not contain it.
    Verdict(Option<Action>),
}

fn look_up(
    registers: &mut Registers,
    parts: &[Lookup],
    table: &mut impl Table,
) -> Result<Looked, Error> {
    let (mut set, mut from, mut to, mut inverts) = (None, None, None, false);
    for part in parts {
        match part {
            Lookup::Set(name) => set = Some(name),
            Lookup::SourceRegister(is) => from = Some(*is),
            Lookup::DestinationRegister(is) => to = Some(*is),
            Lookup::Flags(flags) => inverts = flags & INVERTED != 0,
            _ => {}
        }
    }
    let value = from.and_then(|from| known(registers, from));
    let members = match (set, value) {
        (Some(set), Some(_)) => table.members(set)?,
        _ => None,
    };
    let found = value
        .zip(members.as_deref())
        .and_then(|(value, members)| members.find(value).ok());
    Ok(match to {
        None => Looked::Matches(found.map(|found| found.is_some() != inverts)),
        Some(Register::Verdict) => Looked::Verdict(found.and_then(|found| match found {
            None => Some(Action::None),
            Some(member) => action(member.verdict.as_deref()?),
        })),
        Some(to) => {
            let matches = found.map(|found| found.is_some());
            load(registers, Some((to.into(), None)));
            Looked::Matches(matches)
        }
    })
}

fn verdict(parts: &[Immediate]) -> Option<Action> {
    let verdict = parts.iter().find_map(|part| match part {
        Immediate::Data(DataAttribute::Verdict(verdict)) => Some(verdict),
        _ => None,
    })?;
    action(verdict)
}

fn action(verdict: &[VerdictAttribute]) -> Option<Action> {
    let (mut code, mut chain) = (None, None);
    for part in verdict {
        match part {
            VerdictAttribute::Code(is) => code = Some(*is),
            VerdictAttribute::Chain(is) => chain = Some(is.clone()),
            _ => {}
        }
    }
    Some(match (code?, chain) {
        (Verdict::Other(NF_ACCEPT), _) => Action::Accept,
        (Verdict::Other(NF_DROP), _) => Action::Drop("drop"),
        (Verdict::Return, _) => Action::Return,
        (Verdict::Continue, _) => Action::None,
        (Verdict::Jump, Some(chain)) => Action::Call(chain, true),
        (Verdict::Goto, Some(chain)) => Action::Call(chain, false),
        _ => Action::Unknown,
    })
}

fn number(attributes: &[DefaultNla], kind: u16) -> Option<u32> {
    let bytes = value(attributes, kind)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
