//! A network whose containers are neighbours of the hosts on the hosts' own segment: the reference plugin `macvlan` with `ipam-kv`.

use serde::{Deserialize, Serialize};

/// The modes of a macvlan device, as the kernel and the reference plugin call them.
const MODES: [&str; 4] = ["bridge", "private", "vepa", "passthru"];

/// The device of each container of such a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Macvlan {
    /// The interface of the host that it is a part of: the reference plugin's `master`.
    pub parent: String,
    /// Its mode; absent: `bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

impl Macvlan {
    /// The device, if its values can be those of one; the error names key and value.
    pub fn check(self) -> Result<Self, String> {
        let Self { parent, mode } = &self;
        let is_name = (1..16).contains(&parent.len())
            && !parent.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
        if !is_name {
            return Err(format!("parent={parent}: not the name of an interface"));
        }
        match mode.as_deref().filter(|mode| !MODES.contains(mode)) {
            None => Ok(self),
            Some(mode) => Err(format!("mode={mode}: want one of {}", MODES.join(", "))),
        }
    }
}
