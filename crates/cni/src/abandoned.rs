//! Ends the delegates of an ADD that the runtime has given up.
//!
//! A runtime makes no two calls for one attachment at the same time. So if a DEL comes while a delegate still works for an ADD of
//! that attachment, nobody waits for its answer: the ADD was killed, or its runtime was. A delegate, and every program that it
//! has started, is known by the environment that it was given. Only those in the caller's own network namespace count: a
//! container that has a runtime of its own may use the same names.

use crate::delegate::DELEGATED;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashSet;
use std::fs;

/// Kills the delegates that work for an ADD of this attachment on this host; how many there were. It reads the environment of each
/// process of this PID namespace.
pub fn end_abandoned(container: &str, ifname: &str) -> usize {
    let wanted = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", container),
        ("CNI_IFNAME", ifname),
        (DELEGATED, "1"),
    ];
    let wanted = wanted.map(|(key, value)| format!("{key}={value}").into_bytes());
    let host = fs::read_link("/proc/self/ns/net").ok();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ended = processes.filter(|process| {
        let pid = process.file_name().to_str().and_then(|it| it.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return false;
        };
        // Opened first: whatever has the number later, the signal reaches the process that was looked at.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        let variables: HashSet<_> = environment.split(|byte| *byte == 0).collect();
        wanted.iter().all(|it| variables.contains(it.as_slice()))
            && fs::read_link(process.path().join("ns/net")).ok() == host
            && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
    });
    ended.count()
}
