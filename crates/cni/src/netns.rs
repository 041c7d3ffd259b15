//! Whether a plugin may work in `CNI_NETNS`.
//!
//! A runtime names a namespace by a path such as `/proc/<pid>/ns/net`. If that process has ended and another one has its id, the
//! path may lead to the host's own namespace. To work in it, and above all to clean it up, would cut off the host
//! (containernetworking/plugins#714). So this is checked before any work, and for DEL such a namespace counts as absent. The
//! path may change later: the plugin compares the namespace when it has opened it.

use crate::{Call, Command, Error};
use std::fs::metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const OWN: &str = "/proc/thread-self/ns/net";

/// ADD, CHECK: code 8 unless `call.netns` is a namespace and not our own. DEL: sets `call.netns` to `None` instead.
pub(crate) fn guard(call: &mut Call) -> Result<(), Error> {
    let Some(path) = &call.netns else {
        return Ok(());
    };
    let why = match is_own(path) {
        Ok(true) if !call.allows_own_netns() => {
            "it is the plugin's own network namespace".to_owned()
        }
        Ok(_) => return Ok(()),
        Err(why) => why,
    };
    if call.command == Command::Del {
        call.netns = None;
        return Ok(());
    }
    Err(Error::netns(format!(
        "CNI_NETNS: {}: {why}",
        path.display()
    )))
}

/// Whether the namespace at `path` is our own. The path is not opened, because it might be a fifo.
fn is_own(path: &Path) -> Result<bool, String> {
    let own = metadata(OWN).map_err(|e| format!("compared with {OWN}: {e}"))?;
    let other = metadata(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => "there is nothing at this path".to_owned(),
        _ => e.to_string(),
    })?;
    // All namespaces of all kinds are files of one file system, nsfs, which has no other files.
    if own.dev() != other.dev() {
        return Err("it is not a network namespace".to_owned());
    }
    Ok(own.ino() == other.ino())
}
