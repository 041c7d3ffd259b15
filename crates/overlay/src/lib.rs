//! `overlay`: attaches containers to a network that spans hosts, as a CNI interface plugin.
//!
//! # Why it looks like this
//!
//! The classic overlay driver told every host about every container: by gossip, by a watcher of misses in the kernel,
//! by a record for each endpoint. All of it was sometimes late, and late news about a container is a packet that goes
//! to the wrong host. Here nothing is told per container. Hosts own *blocks* of addresses, a container's MAC is a
//! function of its address, and so each host *computes* the forwarding entries of every address that can exist,
//! before it exists ([`segment::forwarding`]). What is not known floods to all hosts with a block, so that late news cost
//! packets and not reachability. Old news must not misdeliver either: an address changes its home only after every
//! host that forwards on the network has dropped the old one and said so ([`follow::membership`], `snapshot`).
//!
//! Each network has on each host a *sandbox*: a namespace with a bridge and a VXLAN device ([`segment::sandbox`]). Containers
//! hang on the bridge by veth pairs. The host's firewall, routing and daemons never see the segment. The way out is a
//! second NIC on a host-local bridge ([`egress`]), once for a container.
//!
//! A verb is a process of milliseconds that can be killed at any instruction. So it writes down what it is about to
//! make before it makes it ([`state::attachment`]), makes only what can be named again from the CNI call ([`names`]), and every
//! removal is of the kind "gone or not there". There is one teardown, for DEL, GC, a failed ADD and a killed one.
//!
//! `add`, `del`, `check`, `gc` and `status` are the verbs; [`config`] and [`state::host`] are what they start from.

pub mod config;
pub mod egress;
pub mod endpoint;
pub mod firewall;
pub mod follow;
pub mod host_link;
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
    /// The plugin of a process that has just begun, and whose parent is its caller.
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

/// Whether there is nothing that could be removed: of a network after which no file can be named, or where this plugin is run as an
/// IPAM plugin, which its ADD refuses.
fn has_nothing(call: &Call) -> bool {
    call.conf.name.is_too_long() || call.is_delegated()
}

/// That a link of this name, made just now, is not there: somebody else removed it.
fn vanished(name: &str) -> Error {
    Error::new(code::KERNEL, format!("{name}: gone as soon as it was made"))
}
