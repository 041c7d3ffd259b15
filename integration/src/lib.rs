//! A laboratory for whole-system tests and for the demo: Linux hosts, containers, a Consul and an
//! outside world, made of namespaces of this machine.
//!
//! Three things make it worth having its own kit. The product keeps state in `/run`, `/var/lib` and
//! `/etc`, so a host needs its own of each, and the product needs no test-only switch. Scenarios run
//! in parallel and are killed at any moment, so nothing may depend on names that the machine shares
//! or on a clean-up step that might not run: all that a [`Lab`] makes hangs on a few holder processes
//! that end when the test process does. And a scenario should read like what a user does.
//!
//! The kit panics instead of returning errors: a laboratory that cannot be built has nothing to
//! report but where it broke, and `#[track_caller]` says where.
#![expect(
    clippy::expect_used,
    clippy::return_self_not_must_use,
    reason = "a test kit: it insists, and stops the test where it broke"
)]

mod call;
mod cni;
mod consul;
mod consul_cluster;
mod container;
mod containerd;
mod direct;
mod footprint;
mod guest;
mod host;
mod lab;
mod namespace;
mod podman;
mod processes;
mod programs;
mod proxy;
mod run;
mod runtime;
mod server;
mod until;
mod watching;
mod words;

pub use call::Call;
pub use cni::{
    Attachment, address_of, conflist, detach_all, end_all, netconf, position_of, ranges,
};
pub use consul::Consul;
pub use consul_cluster::ConsulCluster;
pub use container::Container;
pub use containerd::Containerd;
pub use direct::{Direct, addresses_in, ipamconf};
pub use footprint::Footprint;
pub use guest::{Guest, Image};
pub use host::Host;
pub use lab::{Backend, Lab, OUTSIDE, OUTSIDE6, tcp_get};
pub use namespace::{Namespace, Net, inhabited};
pub use podman::Podman;
pub use processes::Processes;
pub use programs::{Programs, workspace};
pub use proxy::{Proxy, Request};
pub use run::{Finished, LIMIT, Process, Running};
pub use runtime::Runtime;
pub use server::Server;
pub use until::{comes_within, spend, stays, until};
pub use watching::Watching;
pub use words::Words;
