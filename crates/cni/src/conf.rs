//! The network configuration on standard input: the part that every plugin reads, and the checks that all plugins share.
//! Unknown keys belong to other plugins and are never an error.

use crate::{Command, ContainerId, Error, IfName, NetworkName, Previous, Version, decode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The part of the configuration that every plugin reads. A plugin reads the rest by [`NetConf::decode`].
#[derive(Debug, Clone)]
pub struct NetConf {
    /// `cniVersion`; 0.1.0 if absent or empty.
    pub version: Version,
    /// `name`.
    pub name: NetworkName,
    /// `type`; empty if absent. For an IPAM plugin it is the interface plugin's.
    pub plugin_type: String,
    /// `prevResult`. If it cannot be read, ADD and CHECK fail. For other verbs it counts as absent: a detachment must not fail
    /// because a cache is corrupt.
    pub prev_result: Option<Previous>,
    /// The whole configuration, as sent.
    pub raw: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Head {
    cni_version: String,
    name: String,
    r#type: String,
    prev_result: Option<Value>,
}

/// Keys of the attachments that a GC must keep. The second is the older name of the first, and libcni sends both.
pub(crate) const VALID: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

#[derive(Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container: ContainerId,
    ifname: IfName,
}

impl NetConf {
    /// Reads and checks `stdin` for `command`. Codes 6, 1, 7 in this order.
    pub fn parse(stdin: &[u8], command: Command) -> Result<Self, Error> {
        let bad = |why: &dyn std::fmt::Display| {
            Error::decode(format!("network configuration on standard input: {why}"))
        };
        let raw: Value = serde_json::from_slice(stdin).map_err(|e| bad(&e))?;
        if !raw.is_object() {
            return Err(bad(&"not a JSON object"));
        }
        let head: Head = decode(&raw)?;
        let version = version(&head.cni_version, command)?;
        let name = match command {
            Command::Del | Command::Gc => NetworkName::of_removal(head.name),
            _ => NetworkName::new(head.name),
        };
        let name = name.map_err(|e| Error::config(format!("name: {e}")))?;
        let prev_result = head
            .prev_result
            .map(|prev| Previous::read(prev, version))
            .transpose();
        let prev_result = match (prev_result, command) {
            (Ok(prev), _) => prev,
            (Err(e), Command::Add | Command::Check) => {
                return Err(Error::decode(format!("prevResult: {}", e.msg)));
            }
            (Err(_), _) => None,
        };
        Ok(Self {
            version,
            name,
            plugin_type: head.r#type,
            prev_result,
            raw,
        })
    }

    /// The version of the answer to a configuration that is refused.
    pub(crate) fn version_of(stdin: &[u8]) -> Version {
        let raw: Value = serde_json::from_slice(stdin).unwrap_or_default();
        let head = decode::<Head>(&raw).ok();
        head.and_then(|head| Version::parse(&head.cni_version))
            .unwrap_or(Version::LATEST)
    }

    /// The whole configuration as a plugin's own type; see [`crate::decode`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        decode(&self.raw)
    }

    /// GC: the attachments that stay, under both names of the key. Absent, null and `[]` mean none, as libcni intends. Anything
    /// else that is not a list of container IDs and interface names is code 7, because it must not be read as "remove all".
    pub fn valid_attachments(&self) -> Result<Vec<(ContainerId, IfName)>, Error> {
        let mut valid = Vec::new();
        for key in VALID {
            let list = match self.raw.get(key) {
                None | Some(Value::Null) => continue,
                Some(list) => list,
            };
            let dot = |e: Error| {
                let dot = if e.msg.starts_with('[') { "" } else { ": " };
                Error::config(format!("{key}{dot}{}", e.msg))
            };
            let list: Vec<Attachment> = decode(list).map_err(dot)?;
            valid.extend(list.into_iter().map(|a| (a.container, a.ifname)));
        }
        Ok(valid)
    }
}

/// The version of a configuration, if it is supported and has the verb.
fn version(text: &str, command: Command) -> Result<Version, Error> {
    let version = Version::parse(text).ok_or_else(|| {
        let names = Version::names();
        Error::version(format!("cniVersion: {text:?} is not supported"))
            .with_details(format!("config is {text:?}, plugin supports {names:?}"))
    })?;
    let since = match command {
        Command::Add | Command::Del | Command::Version => Version::V0_1_0,
        Command::Check => Version::V0_4_0,
        Command::Gc | Command::Status => Version::V1_1_0,
    };
    if version < since {
        let command = command.as_str();
        let msg = format!("cniVersion: {version} has no {command}, which came with {since}");
        return Err(Error::version(msg));
    }
    Ok(version)
}
