//! `portmap`: ports of this host that lead to containers, as a CNI plugin that is chained behind an interface plugin.
//!
//! The reference plugin of this name writes a handful of rules for each port, and a packet meets them one after the other.
//! Here a port is one element of a map ([`nft::ports`]): a packet takes one lookup however many ports there are, adding one
//! costs the same with none and with twenty thousand, and a second container that asks for the same port is refused, since a
//! map has a key once. `docs/portmap.md` has what differs from the reference, and why.
//!
//! Nothing runs between the verbs. A document of each attachment says what is published for it, and is written before the
//! first element ([`record`]); so a DEL knows what to look for, and a flushed ruleset can be made whole ([`repair()`]). One lock
//! of the host keeps verbs of this plugin apart for the millisecond that they take.
//!
//! | file | what |
//! |---|---|
//! | [`config`], [`mapping`] | the configuration, and the ports asked for in it |
//! | [`target`] | the container's addresses and the interfaces that lead there |
//! | [`record`] | the document, and what it means in the table |
//! | [`conflict`] | pure: whose element is whose |
//! | `free` | ports that nobody has; programs that listen |
//! | `holder` | which listeners hold a port for its own container |
//! | `flows` | what conntrack remembers of a port's former owner |
//! | `way`, `outside` | what else stops packets on this host; where clients come from |
//! | `localnet` | 127.0.0.1 as a way to containers |
//! | [`table`] | lock, documents and table of one verb |
//! | `add`, `del`, `check`, `gc`, `status`, `repair` | the verbs, and what sync does |

pub mod config;
pub mod conflict;
mod conntrack;
mod datapath_check;
mod ingress;
mod listener_owner;
pub mod mapping;
mod port_alloc;
pub mod record;
mod repair;
mod route_localnet;
pub mod table;
pub mod target;
mod verbs;

use cni::{Call, ContainerId, Error, IfName, Tell};
use journal::Attachment;

pub use repair::{Examined, examine, obstacles, repair};
pub use verbs::del::forget;

/// Error codes of our own (`docs/errors.md`).
pub mod code {
    /// The kernel refused.
    pub const KERNEL: u32 = 107;
    /// CHECK found a deviation.
    pub const DEVIATION: u32 = 110;
    /// Another container has the port, or a program of this host listens on it, or none is free.
    pub const PORT: u32 = 111;
    /// The container has no address of the version of IP that a port is asked for.
    pub const FAMILY: u32 = 112;
}

/// The plugin.
pub struct Portmap;

impl cni::Plugin for Portmap {
    const NAME: &str = "portmap";
    /// All that is done is done on the host.
    const NEEDS_NETNS: bool = false;

    fn add(&self, call: &Call, tell: Tell<'_>) -> Result<(), Error> {
        verbs::add::add(call, tell)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        verbs::del::del(call)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        verbs::check::check(call)
    }

    fn gc(&self, call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
        verbs::gc::gc(call, valid)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        verbs::status::status(call)
    }
}

/// The attachment that a verb is about.
fn attachment(call: &Call) -> Result<Attachment, Error> {
    let (container, ifname) = call.attachment()?;
    Ok(Attachment {
        network: call.conf.name.as_str().to_owned(),
        container: container.as_str().to_owned(),
        ifname: ifname.as_str().to_owned(),
    })
}

/// Runs what asks the kernel by rtnetlink on a runtime of its own: one thread, built only where it is needed.
fn wait_for<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    runtime
        .map_err(|error| Error::io(format!("async runtime: {error}")))?
        .block_on(asked)
}

/// A refusal of the kernel: code 11 where another try may succeed, else 107.
fn kernel(error: &(dyn std::error::Error + 'static)) -> Error {
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

/// A document or lock that could not be used: busy is worth another try.
fn local(error: &journal::Error) -> Error {
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
