//! What is remembered of an attachment: enough to remove it without asking anyone.

use std::path::PathBuf;

use journal::Attachment;
use serde::{Deserialize, Serialize};

/// The journal's record of one attachment, written before its first side effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What it is of.
    pub attachment: Attachment,
    /// The container's namespace as the runtime named it.
    pub netns: PathBuf,
    /// Device and inode of that namespace: the path may by now lead to another.
    pub netns_id: (u64, u64),
    /// Whether the ADD came to its end.
    pub stage: Stage,
}

/// How far an ADD came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// At work, or killed.
    Making,
    /// Answered.
    Made,
}
