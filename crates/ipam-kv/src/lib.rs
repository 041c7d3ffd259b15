//! `ipam-kv`: addresses from the shared store, as a CNI IPAM plugin under any interface plugin.
//!
//! The protocol is `cluster`'s [`Allocator`](cluster::Allocator): a host owns blocks of each network, chooses inside them alone, and
//! publishes its choice by one conditional write; with the store away it goes on and tells the store later.
//! `docs/ipam.md` has the whole of it. This crate reads the configuration, keeps the host's documents, and
//! speaks CNI.
//!
//! | file | what |
//! |---|---|
//! | [`config`] | the configuration: `host-local`'s words |
//! | `container_name` | what people call the container |
//! | [`local_store`] | the host's documents, below `/run/crosshost` |
//! | [`context`] | settings, store and documents of one verb |
//! | `add`, `del`, `check`, `gc`, `status` | the verbs |
//! | `sync` | what is owed to others, verb or no verb |

pub mod config;
mod container_name;
pub mod context;
pub mod local_store;
mod sync;
mod verbs;

use cni::{Call, ContainerId, IfName, Tell};
use plugin::run;

pub use sync::{Pool, sync};
pub use verbs::del::forget;

/// The plugin.
#[derive(Debug, Clone, Copy, Default)]
pub struct IpamKv;

impl cni::Plugin for IpamKv {
    const NAME: &str = "ipam-kv";
    /// Addresses are given before a container is entered, and need none.
    const NEEDS_NETNS: bool = false;

    fn add(&self, call: &Call, tell: Tell<'_>) -> Result<(), cni::Error> {
        Ok(run(verbs::add::add(call, tell))?)
    }

    fn del(&self, call: &Call) -> Result<(), cni::Error> {
        if call.conf.name.is_too_long() {
            return Ok(());
        }
        Ok(run(verbs::del::del(call))?)
    }

    fn check(&self, call: &Call) -> Result<(), cni::Error> {
        Ok(run(verbs::check::check(call))?)
    }

    fn gc(&self, call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), cni::Error> {
        if call.conf.name.is_too_long() {
            return Ok(());
        }
        Ok(run(verbs::gc::gc(call, valid))?)
    }

    fn status(&self, call: &Call) -> Result<(), cni::Error> {
        Ok(run(verbs::status::status(call))?)
    }
}
