//! The attachments that `crosshost network connect` has made. No runtime knows them, so none sends their DEL, and none lists them
//! at a GC: they live until `crosshost network disconnect`, or until their container is gone.

use std::path::Path;

use cni::{BadName, ContainerId, IfName};
use journal::{Attachment, Found, Journal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, report_unreadable};

/// What there is to know of such an attachment for its removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connected {
    /// The attachment.
    pub attachment: Attachment,
    /// The container's namespace, as the runtime has it.
    pub netns: std::path::PathBuf,
    /// Device and inode of that namespace.
    pub netns_id: (u64, u64),
    /// The conflist by whose plugins it was made.
    pub conflist: Value,
    /// The result of its ADD; null while that runs.
    #[serde(default)]
    pub result: Value,
}

/// The documents of this host, each named after its attachment ([`Attachment::hash`]). Versions up to 1.0.0 ignore them.
pub fn documents() -> Journal<Connected> {
    Journal::new(Path::new(journal::ROOT), "connected")
}

/// The attachments on a network that a GC spares though no runtime lists them. One whose document cannot be read has no name, so
/// it is named on standard error.
///
/// # Errors
///
/// What the file system refuses.
pub fn on(network: &str) -> Result<Vec<(ContainerId, IfName)>, Error> {
    let mut spared = Vec::new();
    for it in documents().all_readable(&report_unreadable)? {
        let attachment = it.attachment;
        if attachment.network == network {
            let odd = |error: BadName| Error::io(format!("document of {attachment}: {error}"));
            let container = ContainerId::new(&attachment.container).map_err(odd)?;
            spared.push((container, IfName::new(&attachment.ifname).map_err(odd)?));
        }
    }
    Ok(spared)
}

/// Whether a command has made this attachment. One whose document cannot be read counts as made by a command.
///
/// # Errors
///
/// What the file system refuses.
pub fn has(attachment: &Attachment) -> Result<bool, Error> {
    let found = documents().load(&attachment.hash())?;
    Ok(!matches!(found, Found::Absent))
}
