//! `portmap`: ports of this host that lead to containers, as a CNI plugin that is chained behind an interface plugin.
//!
//! The reference plugin of this name writes several rules for each port, which a packet meets one after the other. Here a
//! port is one element of a map ([`nft::ports`]): a packet takes one lookup whatever the number of ports, adding one costs
//! the same with none and with twenty thousand, and a second container that asks for the same port is refused, as a map has a
//! key once. `docs/portmap.md` lists the differences from the reference, and why.
//!
//! No port needs a program that runs between the verbs. A document for each attachment lists what is published for it, and is
//! written before the first element ([`record`]). So a DEL knows what to remove, and a flushed ruleset can be restored ([`repair()`]). A lock of
//! the host serializes this plugin's verbs for the milliseconds that they take.
//!
//! | file | what |
//! |---|---|
//! | [`config`], [`mapping`] | the configuration, and the requested ports in it |
//! | [`target`] | the container's addresses, and the interfaces that lead there |
//! | [`record`] | the document of an attachment, and its entries in the table |
//! | [`conflict`] | which container owns an element, without I/O |
//! | `port_alloc` | the choice of a free port; programs that listen on a port |
//! | `listener_owner` | whether a listener holds a port for this container |
//! | `conntrack` | removes connections to a port's previous owner |
//! | `ingress` | interfaces by which clients arrive, and whether the kernel forwards their packets |
//! | [`reservation`] | sockets that the watcher keeps, so that other programs see the ports |
//! | `route_localnet` | ports on 127.0.0.1 |
//! | [`stale`] | ports of containers that are gone without a DEL |
//! | [`table`] | lock, documents and table of one verb |
//! | `verbs`, `repair` | the CNI verbs; what `crosshost sync` and `doctor` do |

pub mod config;
pub mod conflict;
mod conntrack;
mod ingress;
mod listener_owner;
pub mod mapping;
mod port_alloc;
pub mod record;
mod repair;
pub mod reservation;
mod route_localnet;
pub mod stale;
pub mod table;
pub mod target;
mod verbs;

use cni::{Call, ContainerId, IfName, Tell};

pub use repair::{Examined, examine, obstacles, repair};
pub use verbs::del::forget;

/// The plugin.
pub struct Portmap;

impl cni::Plugin for Portmap {
    const NAME: &str = "portmap";
    /// All work is done on the host.
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
