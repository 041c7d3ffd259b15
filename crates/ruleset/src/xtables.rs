//! Extensions that iptables-nft writes in the format of iptables-legacy, because nft has no expression for them: each has a
//! name and a struct of its own (`linux/netfilter/xt_*.h`).

use netlink_packet_core::{DefaultNla, Nla};

use crate::packet::State;

/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`, `NFTA_MATCH_INFO` and `NFTA_TARGET_INFO`
const NAME: u16 = 1;
const INFO: u16 = 3;
/// Offset of the flags, the inverted flags and the mask of states in `struct xt_conntrack_mtinfo3`; the flag for a test of
/// the state, and the one for the spelling `-m state`.
const CONNTRACK_FLAGS: usize = 146;
const CONNTRACK_STATE: u16 = 1;
const CONNTRACK_ALIAS: u16 = 1 << 13;
/// `XT_CT_NOTRACK`, one of the flags at the start of `struct xt_ct_target_info`.
const CT_NOTRACK: u16 = 1;

/// A target that is understood here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Reject,
    Notrack,
    /// It logs or marks the packet, which goes on.
    Notes,
    /// It translates an address, which ends the chain.
    Translates,
}

/// Targets after which the packet goes on.
const NOTES: [&str; 17] = [
    "LOG",
    "NFLOG",
    "TRACE",
    "AUDIT",
    "MARK",
    "CONNMARK",
    "SECMARK",
    "CONNSECMARK",
    "CLASSIFY",
    "CHECKSUM",
    "TCPMSS",
    "TCPOPTSTRIP",
    "DSCP",
    "TOS",
    "TTL",
    "HL",
    "SET",
];
/// Targets of the tables `nat`.
const TRANSLATES: [&str; 5] = ["DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"];

/// The target of `-j`.
pub(crate) fn target(attributes: &[DefaultNla]) -> Option<Target> {
    match name(attributes)?.as_str() {
        "REJECT" => Some(Target::Reject),
        "CT" => {
            let is_notrack = field(&value(attributes, INFO)?, 0)? & CT_NOTRACK != 0;
            Some(if is_notrack {
                Target::Notrack
            } else {
                Target::Notes
            })
        }
        name if NOTES.contains(&name) => Some(Target::Notes),
        name if TRANSLATES.contains(&name) => Some(Target::Translates),
        _ => None,
    }
}

/// Whether a match (`-m`) holds for a packet in this state, if that is known.
pub(crate) fn matches(attributes: &[DefaultNla], state: State) -> Option<bool> {
    match name(attributes)?.as_str() {
        "comment" => Some(true),
        "conntrack" => Some(states(&value(attributes, INFO)?)? & state.of_iptables() != 0),
        _ => None,
    }
}

/// The states that it matches, if it tests nothing else.
fn states(info: &[u8]) -> Option<u32> {
    let at = |offset| field(info, CONNTRACK_FLAGS + offset);
    let plain = at(0)? & !CONNTRACK_ALIAS == CONNTRACK_STATE && at(2)? == 0;
    plain.then_some(u32::from(at(4)?))
}

fn name(attributes: &[DefaultNla]) -> Option<String> {
    let name = value(attributes, NAME)?;
    let name = name.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}

/// Two bytes of a struct.
fn field(info: &[u8], at: usize) -> Option<u16> {
    let bytes = info.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// The value of an attribute.
pub(crate) fn value(attributes: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    let attribute = attributes.iter().find(|nla| nla.kind() == kind)?;
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    Some(value)
}
