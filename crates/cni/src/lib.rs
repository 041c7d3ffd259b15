//! The CNI specification as a library: configuration, environment, results of every version, errors, the life of a
//! plugin process and delegation to other plugins.
//!
//! The three plugins differ in what they do, never in how they speak. All that is common to speaking lives here, so
//! that a plugin's own code starts with a checked [`Call`] and ends with a [`CniResult`] or an [`Error`]. The crate is
//! synchronous and small, since a plugin lives for milliseconds and is started for every container. It is the only
//! one that prints on standard output, because that is the protocol.

mod args;
pub mod build;
mod call;
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

pub use args::CniArgs;
pub use call::{Call, Command};
pub use conf::NetConf;
pub use decode::decode;
pub use delegate::Delegate;
pub use error::{Error, code};
pub use names::{BadName, ContainerId, IfName, NetworkName};
pub use output::{caller_listens, note as log};
pub use result::{Answer, CniResult, Dns, Interface, Ip, Previous, Route};
pub use running::Running;
pub use skeleton::{BuiltIn, Plugin, Tell, run, run_with};
pub use slips::refuse_slips;
pub use text::{LONGEST, acts, line, plain, plain_lines};
pub use version::Version;
