//! Host state as data: what should be in a namespace, described once for all verbs and commands.
//!
//! A description is an ordered list of [`Object`]s, made from records by a pure function beside its subject
//! (`segment/desired.rs`, `host_link/desired.rs`, `egress/desired.rs`, and `endpoint/desired.rs` for containers). It names links, never indices, so that it can be
//! written before anything exists. [`Observed`] is what the kernel has of that, asked for as far as the description goes and
//! no further.
//!
//! One interpreter compares the two. CHECK tells the first deviation and `crosshost doctor` all of them ([`deviations`]);
//! repair applies each object that differs and counts them, and an ADD does the same where nothing is there yet
//! ([`apply`]). So none of them can know of damage that another overlooks.
//!
//! Removal does not go by descriptions: it removes by name all that an attachment can have.

mod apply;
mod object;
mod observed;
mod route;
#[cfg(test)]
mod tests;

pub(crate) use apply::{apply, fix};
pub(crate) use object::{Deviation, Kind, LinkSpec, Mtu, Object, Tunnel, deviations};
pub(crate) use observed::{Known, Observed, Space};
