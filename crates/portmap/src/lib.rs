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

use cni::{Call, ContainerId, IfName, Tell};
use journal::Attachment;
use plugin::Error;

pub use repair::{Examined, examine, obstacles, repair};
pub use verbs::del::forget;

/// The plugin.
pub struct Portmap;

impl cni::Plugin for Portmap {
    const NAME: &str = "portmap";
    /// All that is done is done on the host.
    const NEEDS_NETNS: bool = false;

    fn add(&self, call: &Call, tell: Tell<'_>) -> Result<(), cni::Error> {
        Ok(verbs::add::add(call, tell)?)
    }

    fn del(&self, call: &Call) -> Result<(), cni::Error> {
        Ok(verbs::del::del(call)?)
    }

    fn check(&self, call: &Call) -> Result<(), cni::Error> {
        Ok(verbs::check::check(call)?)
    }

    fn gc(&self, call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), cni::Error> {
        Ok(verbs::gc::gc(call, valid)?)
    }

    fn status(&self, call: &Call) -> Result<(), cni::Error> {
        Ok(verbs::status::status(call)?)
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
