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
//! host that forwards on the network has dropped the old one and said so ([`follow::membership`], `news`).
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

use cni::{Call, ContainerId, Error, IfName, Tell};
use journal::Journal;
use netlink::NetnsError;
use serde::{Serialize, de::DeserializeOwned};

/// Error codes of our own (`docs/errors.md`); those of the shared records are in `cluster::Error::code`.
pub mod code {
    /// The attachment exists already.
    pub const DUPLICATE: u32 = 100;
    /// The interface name is taken in the container.
    pub const IFNAME: u32 = 101;
    /// No address is left.
    pub const POOL: u32 = 102;
    /// The network or the host is set up differently.
    pub const DIFFERS: u32 = 103;
    /// The kernel refused.
    pub const KERNEL: u32 = 107;
    /// CHECK found a deviation.
    pub const DEVIATION: u32 = 110;
}

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

    fn add(&self, call: &Call, tell: Tell<'_>) -> Result<(), Error> {
        run(verbs::add::add(call, self.caller, tell))
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        if has_nothing(call) {
            return Ok(());
        }
        run(verbs::del::del(call))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        run(verbs::check::check(call))
    }

    fn gc(&self, call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
        if has_nothing(call) {
            return Ok(());
        }
        run(verbs::gc::gc(call, valid))
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        run(verbs::status::status(call))
    }
}

/// Whether there is nothing that could be removed: of a network after which no file can be named, or where this plugin is run as an
/// IPAM plugin, which its ADD refuses.
fn has_nothing(call: &Call) -> bool {
    call.conf.name.is_too_long() || call.is_delegated()
}

/// Runs a verb on a runtime of its own: one thread, built only now that the environment has been checked.
fn run<T>(verb: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    runtime
        .map_err(|error| Error::io(format!("async runtime: {error}")))?
        .block_on(verb)
}

/// An error of the shared records as a CNI error.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
pub fn failed(error: cluster::Error) -> Error {
    Error::new(error.code(), error.to_string())
}

/// A refusal of the kernel as a CNI error: code 11 where another try may succeed, else 107.
pub fn kernel(error: &(dyn std::error::Error + 'static)) -> Error {
    let is_busy = error.downcast_ref().is_some_and(netlink::Error::is_busy)
        || error
            .downcast_ref()
            .is_some_and(netlink::NetnsError::is_busy)
        || error.downcast_ref().is_some_and(nft::Error::is_busy);
    let code = if is_busy {
        cni::code::AGAIN
    } else {
        code::KERNEL
    };
    Error::new(code, error.to_string())
}

/// A network namespace that cannot be had as a CNI error: where another mount namespace has it the host is set up differently,
/// the rest is the kernel's refusal.
pub(crate) fn no_netns(error: &NetnsError) -> Error {
    match error {
        NetnsError::Elsewhere { .. } => Error::new(code::DIFFERS, error.to_string()),
        _ => kernel(error),
    }
}

/// That a link of this name, made just now, is not there: somebody else removed it.
fn vanished(name: &str) -> Error {
    Error::new(code::KERNEL, format!("{name}: gone as soon as it was made"))
}

/// A local document; one that cannot be read is as good as none.
fn readable<T: Serialize + DeserializeOwned>(
    documents: &Journal<T>,
    name: &str,
) -> Result<Option<T>, Error> {
    let loaded = documents.load_readable(name, &|error| cni::log(&error.to_string()));
    loaded.map_err(|error| local(&error))
}

/// A local document or lock that could not be used: busy is worth another try, the rest is the host's.
pub fn local(error: &journal::Error) -> Error {
    match error {
        journal::Error::Busy { .. } => Error::again(error.to_string()),
        journal::Error::Io { .. } | journal::Error::Newer { .. } => Error::io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_busy_is_worth_another_try() {
        let what = || "map ports4".to_owned();
        let refused = |errno| nft::Error::Refused {
            what: what(),
            reason: nft::Reason { errno, text: None },
        };
        let link = |errno| netlink::Error {
            what: what(),
            errno,
            text: String::new(),
        };
        assert_eq!(kernel(&nft::Error::Busy { what: what() }).code, 11);
        for errno in [4, 11, 16] {
            let source = std::io::Error::from_raw_os_error(errno);
            let path = what().into();
            let netns = netlink::NetnsError::Io {
                path,
                what: what(),
                source,
            };
            let codes = [
                kernel(&refused(errno)),
                kernel(&link(errno)),
                kernel(&netns),
            ];
            assert_eq!(codes.map(|error| error.code), [11; 3], "{errno}");
        }
        assert_eq!(kernel(&refused(2)).code, 107);
        assert_eq!(kernel(&link(17)).code, 107);
    }
}
