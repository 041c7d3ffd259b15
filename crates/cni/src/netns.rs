//! Whether `CNI_NETNS` may be worked in.
//!
//! A runtime names a namespace by a path such as `/proc/<pid>/ns/net`. If that process is gone and its number was given
//! to another one, the path may be the host's own namespace; working in it, and above all cleaning it up, would cut off
//! the host (containernetworking/plugins#714). So this is looked at before any work, and for DEL such a namespace is none. What the path
//! leads to later is for the plugin to compare, when it has opened it.

use crate::{Call, Command, Error};
use std::fs::metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const OWN: &str = "/proc/thread-self/ns/net";

/// ADD, CHECK: code 8 unless `call.netns` is a namespace, and not our own. DEL: makes `call.netns` none instead.
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

/// Whether the namespace at `path` is our own. Only looked at, never opened: it might be a fifo.
fn is_own(path: &Path) -> Result<bool, String> {
    let own = metadata(OWN).map_err(|e| format!("compared with {OWN}: {e}"))?;
    let other = metadata(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => "there is nothing at this path".to_owned(),
        _ => e.to_string(),
    })?;
    // All namespaces, also those of other kinds, are files of one file system, nsfs, which holds nothing else.
    if own.dev() != other.dev() {
        return Err("it is not a network namespace".to_owned());
    }
    Ok(own.ino() == other.ino())
}
