//! What iptables-nft writes in the form of the older iptables, since nft has no expression for it: extensions by name, each with a
//! struct of its own (`linux/netfilter/xt_*.h`).

use netlink_packet_core::{DefaultNla, Nla};

/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`, `NFTA_MATCH_INFO` and `NFTA_TARGET_INFO`
const NAME: u16 = 1;
const INFO: u16 = 3;
/// Where `struct xt_conntrack_mtinfo3` has its flags, the inverted ones and the mask of states; that it looks at the state.
const CONNTRACK_FLAGS: usize = 146;
const CONNTRACK_STATE: u16 = 1;
/// `XT_CT_NOTRACK`, of the flags with which `struct xt_ct_target_info` begins.
const CT_NOTRACK: u16 = 1;

/// A target that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Reject,
    Notrack,
}

/// The target of `-j`.
pub(crate) fn target(attributes: &[DefaultNla]) -> Option<Target> {
    let name = value(attributes, NAME)?;
    if name.starts_with(b"REJECT\0") {
        return Some(Target::Reject);
    }
    let is_notrack = || Some(field(&value(attributes, INFO)?, 0)? & CT_NOTRACK != 0);
    (name.starts_with(b"CT\0") && is_notrack()?).then_some(Target::Notrack)
}

/// The states that `-m conntrack --ctstate` matches, if it looks at nothing else.
pub(crate) fn states(attributes: &[DefaultNla]) -> Option<u32> {
    let name = value(attributes, NAME)?;
    let info = value(attributes, INFO)?;
    let at = |offset| field(&info, CONNTRACK_FLAGS + offset);
    let plain = at(0)? == CONNTRACK_STATE && at(2)? == 0;
    (plain && name.starts_with(b"conntrack\0")).then_some(u32::from(at(4)?))
}

/// Two bytes of a struct.
fn field(info: &[u8], at: usize) -> Option<u16> {
    let bytes = info.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// What an attribute holds.
pub(crate) fn value(attributes: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    let attribute = attributes.iter().find(|nla| nla.kind() == kind)?;
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    Some(value)
}
