//! The key of everything that a verb makes: one interface of one container on one network.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A container's attachment to a network, as CNI keys it. The parts are checked by the caller (CNI's own rules).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Network name.
    pub network: String,
    /// The container id of the runtime. Ids of 72 characters and more are common.
    #[serde(rename = "containerID")]
    pub container: String,
    /// Interface name inside the container.
    pub ifname: String,
}

impl Attachment {
    /// 16 hex digits that name this attachment where its parts do not fit, for example in file names.
    pub fn hash(&self) -> String {
        // No part contains a NUL, so two attachments never give the same text.
        digest(&[&self.network, &self.container, &self.ifname])
    }

    /// Whether this has the form of a [`Self::hash`].
    pub fn is_hash(text: &str) -> bool {
        text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// 16 hex digits that name the container on all its networks.
    pub fn container_hash(&self) -> String {
        digest(&[&self.container])
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of container {} on network {}",
            self.ifname, self.container, self.network
        )
    }
}

/// 16 hex digits that name these texts: the first 64 bits of their SHA-256. No text contains a NUL. Names and documents have
/// this digest, so it never changes.
pub fn digest(parts: &[&str]) -> String {
    let sum = Sha256::digest(parts.join("\0"));
    let short = sum
        .iter()
        .take(8)
        .fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{short:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(network: &str, container: &str, ifname: &str) -> Attachment {
        Attachment {
            network: network.into(),
            container: container.into(),
            ifname: ifname.into(),
        }
    }

    #[test]
    fn hashes_tell_attachments_apart_and_containers_together() {
        let (a, b) = (attachment("n", "c", "eth0"), attachment("n", "c", "eth1"));
        assert_ne!(a.hash(), b.hash());
        assert_ne!(a.hash(), attachment("nc", "", "eth0").hash());
        assert_eq!(a.container_hash(), b.container_hash());
        assert_eq!(a.hash().len(), 16);
    }
}
