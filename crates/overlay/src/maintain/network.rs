//! All that a network has on this host, described from its documents: what CHECK, `crosshost doctor` and repair compare with the
//! kernel.

use cluster::{Network, NetworkSnapshot};

use crate::{
    follow::membership::{self, Membership},
    host_link,
    host_state::{Mtu, Object},
    segment::{
        desired,
        forwarding::{self, Translations, Trust},
    },
    state::{host::Host, underlay::Underlay},
};
use plugin::Error;

/// What a network's sandbox should have.
pub(crate) struct Described {
    /// Bridge and VXLAN device.
    pub(crate) segment: Vec<Object>,
    /// The MACs that it rewrites.
    pub(crate) macs: Translations,
    /// What it forwards by.
    pub(crate) forwarding: [Object; 2],
    /// Whether it is not known how far the copy of the records can be relied on: it floods, until a verb or sync that reaches the
    /// store finds out.
    pub(crate) is_lost: bool,
}

/// Describes a network by this host's copy of its records. The caller holds the network's lock.
pub(crate) fn describe(
    host: &Host,
    record: &Network,
    copy: &NetworkSnapshot,
    underlay: &Underlay,
    node: &str,
) -> Result<Described, Error> {
    let name = &record.name;
    let member = membership::load(host, name)?;
    let trust = member.as_ref().map_or(Trust::Floods, Membership::trust);
    let entries = forwarding::desired(copy, node, underlay.vtep, trust);
    let entries = host_link::entries(host, name, entries)?;
    let macs = forwarding::translations(copy, node);
    Ok(Described {
        segment: desired::segment(record, underlay),
        forwarding: [desired::rewrite(macs.clone()), desired::entries(entries)],
        macs,
        is_lost: membership::is_lost(host, name)?,
    })
}

/// The port of an attachment on a segment over this underlay.
pub(crate) fn port(name: &str, underlay: &Underlay) -> Object {
    desired::port(name, Mtu::AtLeast(underlay.segment_mtu()))
}
