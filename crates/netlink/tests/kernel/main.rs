//! The library against the running kernel, each test in namespaces of its own; `ip` and `bridge` show the actual state.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test may panic"
)]

mod conntrack;
mod forwarding;
mod kit;
mod link;
mod netns;
mod path_mtu;
mod qdisc;
mod reconcile;
mod route;
mod rtnl;
mod suppress;
mod veth;
mod vxlan;
