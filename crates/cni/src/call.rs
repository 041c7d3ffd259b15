//! One call of a plugin: environment and configuration, checked.

use crate::{CniArgs, ContainerId, Error, IfName, NetConf};
use std::ffi::OsString;
use std::path::PathBuf;

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    /// As in the environment: `ADD`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// What the runtime asks for. Everything in it is checked; what a verb requires is there.
#[derive(Debug, Clone)]
pub struct Call {
    /// The verb.
    pub command: Command,
    /// Always there in ADD, DEL, CHECK; none in the others.
    pub container: Option<ContainerId>,
    /// Always there in ADD, DEL, CHECK; none in the others.
    pub ifname: Option<IfName>,
    /// ADD, CHECK: always there, a namespace and not our own. DEL: there if it is one and not our own.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: CniArgs,
    /// `CNI_PATH`: where delegates are. Never empty in ADD and CHECK.
    pub path: Vec<PathBuf>,
    /// The configuration.
    pub conf: NetConf,
    /// The configuration's bytes, for delegates.
    pub stdin: Vec<u8>,
    /// The whole environment, for delegates.
    pub env: Vec<(OsString, OsString)>,
}

impl Call {
    /// Checks environment and configuration, without looking at the machine ([`crate::run`] checks the namespace).
    /// Codes 4, 6, 1, 7 in this order.
    pub fn new(_env: Vec<(OsString, OsString)>, _stdin: Vec<u8>) -> Result<Self, Error> {
        todo!()
    }
    /// Container and interface of ADD, DEL, CHECK; code 4 in other verbs.
    pub fn attachment(&self) -> Result<(&ContainerId, &IfName), Error> {
        todo!()
    }
}
