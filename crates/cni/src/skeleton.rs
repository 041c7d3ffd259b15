//! The life of a plugin process, from environment to exit code.

use crate::{Call, CniResult, ContainerId, Error, IfName};
use std::process::ExitCode;

/// A plugin: five verbs.
pub trait Plugin {
    /// Its `type`, the name of its binary.
    const NAME: &str;
    /// Shown in the about text.
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    /// Attaches; the result is printed in the configuration's version.
    fn add(&self, call: &Call) -> Result<CniResult, Error>;
    /// Detaches: silent success also when there is nothing left to do.
    fn del(&self, call: &Call) -> Result<(), Error>;
    /// Compares the attachment with `call.conf.prev_result`.
    fn check(&self, call: &Call) -> Result<(), Error>;
    /// Removes what this node has of this network but for `valid`.
    fn gc(&self, call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error>;
    /// Would an ADD work?
    fn status(&self, call: &Call) -> Result<(), Error>;
}

/// The whole of a plugin's `main`.
#[allow(
    clippy::needless_pass_by_value,
    reason = "a plugin is a unit struct: `run(Overlay)`"
)]
pub fn run(_plugin: impl Plugin) -> ExitCode {
    todo!()
}
