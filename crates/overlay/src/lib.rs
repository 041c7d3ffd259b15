//! `overlay`: attaches containers to a network that spans hosts, as a CNI interface plugin.
//!
//! # Why it looks like this
//!
//! A classic overlay driver tells every host about every container: by gossip, by a watcher of misses in the kernel, or by a
//! record for each endpoint. Each of these is late at times, and then packets go to the wrong host. Here no host is told about
//! a container. Hosts own *blocks* of addresses, and a container's MAC is a function of its address. So each host *computes* the
//! forwarding entries of every address that can exist, before it exists ([`segment::forwarding`]). Packets for an unknown address
//! are flooded to all hosts with a block: an old snapshot costs packets, and no reachability. It must not misdeliver either: an
//! address moves to another host only after every host that forwards on the network has dropped the old entry and has
//! acknowledged that ([`cluster::forwarder`], [`follow`]).
//!
//! Each network has on each host a *sandbox*: a namespace with a bridge and a VXLAN device ([`segment::sandbox`]). Veth pairs
//! connect containers to the bridge. The host's firewall, routing and daemons never see the segment, unless `egress` is `gateway` or
//! `hostAccess` is on: then the host has a link to it ([`host_link`]). With `egress` `gwbridge` a container reaches the outside by a
//! second NIC, on a bridge that has a namespace of its own ([`egress`]). It has one such NIC, however many networks it is on.
//!
//! A verb is a process that lives for milliseconds and can be killed at any instruction. So it writes down what it is about to
//! make before it makes it ([`state::attachment`]). It makes only what can be named again from the CNI call ([`names`]). Every
//! removal is idempotent: a missing object is not an error. DEL, GC, a failed ADD and a killed ADD have the same teardown.
//!
//! What should be on a host is data: lists of objects that pure functions compute from records (`segment/desired.rs`,
//! `host_link/desired.rs`, `egress/desired.rs`, `endpoint/desired.rs`). One interpreter, `host_state`, compares them with the kernel and applies what
//! differs, so that ADD, CHECK, repair and `crosshost doctor` agree on what is right.
//!
//! `add`, `del`, `check`, `gc` and `status` are the verbs. They start from [`config`] and [`state::host`].

pub mod config;
pub mod egress;
pub mod endpoint;
pub mod firewall;
pub mod follow;
pub mod host_link;
mod host_state;
pub mod maintain;
pub mod names;
pub mod segment;
pub mod state;
mod verbs;

use cni::{Call, ContainerId, IfName, Tell};
use plugin::{Error, code, run};

/// The plugin.
pub struct Overlay {
    caller: Option<state::attachment::Process>,
}

impl Overlay {
    /// The plugin of a process that has just begun, so that its parent is still its caller.
    pub fn begin() -> Self {
        let caller = state::attachment::Process::caller();
        Self { caller }
    }
}

impl cni::Plugin for Overlay {
    const NAME: &str = "overlay";

    fn add(&self, call: &Call, tell: Tell<'_>) -> Result<(), cni::Error> {
        Ok(run(verbs::add::add(call, self.caller, tell))?)
    }

    fn del(&self, call: &Call) -> Result<(), cni::Error> {
        if has_nothing(call) {
            return Ok(());
        }
        Ok(run(verbs::del::del(call))?)
    }

    fn check(&self, call: &Call) -> Result<(), cni::Error> {
        Ok(run(verbs::check::check(call))?)
    }

    fn gc(&self, call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), cni::Error> {
        if has_nothing(call) {
            return Ok(());
        }
        Ok(run(verbs::gc::gc(call, valid))?)
    }

    fn status(&self, call: &Call) -> Result<(), cni::Error> {
        Ok(run(verbs::status::status(call))?)
    }
}

/// Whether there is nothing to remove: the network's name is too long for a file name, or this plugin is run as an IPAM
/// plugin. ADD refuses both.
fn has_nothing(call: &Call) -> bool {
    call.conf.name.is_too_long() || call.is_delegated()
}

/// The error of a link that was made just now and is missing: another program removed it.
fn vanished(name: &str) -> Error {
    Error::new(code::KERNEL, format!("{name}: gone as soon as it was made"))
}
