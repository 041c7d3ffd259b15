//! The network configuration on standard input.

use crate::{CniResult, Command, ContainerId, Error, IfName, NetworkName, Version};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What every plugin reads of its configuration; the rest is [`NetConf::decode`]d by the plugin from `raw`.
#[derive(Debug, Clone)]
pub struct NetConf {
    /// `cniVersion`; 0.1.0 if absent.
    pub version: Version,
    /// `name`.
    pub name: NetworkName,
    /// `type`; empty if absent. For an IPAM plugin it is the interface plugin's.
    pub plugin_type: String,
    /// `prevResult`. For ADD and CHECK one that cannot be read is an error; for other verbs it counts as absent.
    pub prev_result: Option<CniResult>,
    /// All of it, as sent.
    pub raw: Value,
}

impl NetConf {
    /// Reads and checks `stdin` for `command`. Codes 6, 1, 7 in this order.
    pub fn parse(_stdin: &[u8], _command: Command) -> Result<Self, Error> {
        todo!()
    }
    /// The whole configuration as a plugin's own type; see [`crate::decode`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        crate::decode(&self.raw)
    }
    /// GC: the attachments that stay: both spellings of the key together; absent, null and `[]` mean none. Code 7.
    pub fn valid_attachments(&self) -> Result<Vec<(ContainerId, IfName)>, Error> {
        todo!()
    }
}
