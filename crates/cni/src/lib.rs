//! The CNI specification as a library: configuration, environment, results of every version, errors, the life of a
//! plugin process and delegation to other plugins.
//!
//! The plugins share the protocol and differ in their work. This crate is the protocol, so that a plugin's own code starts with a
//! checked [`Call`] and ends with a [`CniResult`] or an [`Error`]. It is synchronous and small, because a plugin lives for
//! milliseconds and is started for every container. Only this crate prints on standard output, which is the protocol.

mod abandoned;
mod args;
pub mod build;
mod call;
pub mod code;
mod conf;
mod decode;
mod delegate;
mod error;
mod names;
mod netns;
mod output;
mod process;
mod result;
mod running;
mod skeleton;
mod slips;
mod text;
mod version;

pub use abandoned::end_abandoned;
pub use args::CniArgs;
pub use call::{Call, Command};
pub use conf::NetConf;
pub use decode::decode;
pub use delegate::Delegate;
pub use error::Error;
pub use names::{BadName, ContainerId, IfName, NetworkName};
pub use output::{caller_listens, note as log};
pub use result::{Answer, CniResult, Dns, Interface, Ip, Previous, Route};
pub use running::Running;
pub use skeleton::{BuiltIn, Plugin, Tell, refuse, run, run_with};
pub use slips::refuse_slips;
pub use text::{LONGEST, acts, line, plain, plain_lines};
pub use version::Version;
