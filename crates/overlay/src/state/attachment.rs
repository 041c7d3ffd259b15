//! The record of an attachment: enough to remove it without asking anyone.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::{fs::MetadataExt, process::parent_id},
    path::{Path, PathBuf},
};

use journal::Attachment;
use serde::{Deserialize, Serialize};

use crate::endpoint::{bandwidth::Bandwidth, source_guard::Permitted};

/// Where libcni keeps the results of finished chains for its runtimes (`CacheDir` in its `api.go`).
const RESULTS: &str = "/var/lib/cni/results";

/// The journal's record of one attachment, written before its first side effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The attachment.
    pub attachment: Attachment,
    /// The container's namespace as the runtime named it.
    pub netns: PathBuf,
    /// Device and inode of that namespace. Later the path may lead to another one.
    pub netns_id: (u64, u64),
    /// How far the ADD came.
    pub stage: Stage,
    /// The process that the ADD answered. `None` while the ADD runs, and if an earlier version made the attachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Answered>,
    /// The rates that it was made with; older records have none.
    #[serde(default, skip_serializing_if = "Bandwidth::is_none")]
    pub bandwidth: Bandwidth,
    /// What its port may send; `None` while the ADD runs, and if an earlier version made the attachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Permitted>,
}

/// How far an ADD came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// It runs, or was killed.
    Making,
    /// It has answered.
    Made,
}

/// A process that the kernel can tell from a later one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its id.
    pid: u32,
    /// When it began, in the kernel's ticks since boot, because ids are used again.
    started: u64,
}

impl Process {
    /// The caller of this process; `None` if it cannot be seen, because it has ended or is in another PID namespace. Call this
    /// when the process begins: after the caller has ended, the parent is init or a subreaper.
    pub(crate) fn caller() -> Option<Self> {
        let pid = parent_id();
        let started = started(pid)?;
        Some(Self { pid, started })
    }

    fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// The process that an ADD answered, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    #[serde(flatten)]
    caller: Process,
    /// Seconds since 1970.
    at: u64,
}

impl Answered {
    /// An answer of this process to its caller, given now.
    pub(crate) fn now(caller: Process) -> Self {
        let at = journal::clock::unix();
        Self { caller, at }
    }

    /// Whether a runtime still knows the answer: the process lives, or libcni has stored the result since. A runtime that was
    /// killed in the middle of its chain has neither, and sends the ADD again.
    pub(crate) fn is_remembered(&self, attachment: &Attachment) -> bool {
        let Attachment {
            network,
            container,
            ifname,
        } = attachment;
        let kept = Path::new(RESULTS).join(format!("{network}-{container}-{ifname}"));
        let since = i64::try_from(self.at).unwrap_or_default();
        // libcni does not write the file in one step: a killed runtime leaves half of it, or an empty file.
        let is_kept = || {
            fs::metadata(&kept).is_ok_and(|kept| kept.mtime() >= since)
                && fs::read(&kept).is_ok_and(|text| is_object(&text))
        };
        self.caller.is_alive() || is_kept()
    }
}

fn is_object(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<_, _>>(text).is_ok()
}

/// When a running process began: field 22 of `/proc/PID/stat`. Field 3 tells of one that has ended and is not reaped.
fn started(pid: u32) -> Option<u64> {
    // One read has all of it: 52 numbers and a name of at most 64 bytes. `fs::read` makes seven.
    let mut stat = [0; 4096];
    let length = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut stat));
    let stat = String::from_utf8_lossy(stat.get(..length.ok()?)?);
    // The second field, in brackets, can be any text.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_as_long_as_it_lives() {
        let own = std::process::id();
        let began = started(own).unwrap();
        assert_eq!(started(own), Some(began));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = child.id();
        child.wait().unwrap();
        assert_eq!(started(id), None);
        let answered = |pid, started| Answered {
            caller: Process { pid, started },
            at: u64::MAX,
        };
        let attachment = Attachment {
            network: "none".into(),
            container: "none".into(),
            ifname: "none".into(),
        };
        assert!(answered(own, began).is_remembered(&attachment));
        assert!(!answered(own, began + 1).is_remembered(&attachment));
    }

    #[test]
    fn records_of_earlier_versions_are_read_and_theirs_read_ours() {
        let old = r#"{"attachment":{"network":"n","containerID":"c","ifname":"eth0"},
            "netns":"/run/netns/c","netnsId":[4,4026532000],"stage":"made"}"#;
        let record: Record = serde_json::from_str(old).unwrap();
        assert_eq!(record.answered, None);
        assert!(!serde_json::to_string(&record).unwrap().contains("answered"));
        assert_eq!(record.port, None);
        assert!(!serde_json::to_string(&record).unwrap().contains("port"));
        let port = r#"{"mac":"02:42:0a:00:00:02","addresses":["10.0.0.2"],"groupRate":1000}"#;
        let read: Permitted = serde_json::from_str(port).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), port);
        let answered = r#"{"pid":7,"started":8,"at":9}"#;
        let read: Answered = serde_json::from_str(answered).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), answered);
    }
}
