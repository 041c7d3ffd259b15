//! The clocks of this host, and the ids of its boot and its machine.

use std::{io, path::Path, sync::OnceLock, time::SystemTime};

use crate::file;

/// Seconds since boot, including the time in which the host was suspended.
pub fn uptime() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or_default()
}

/// Nanoseconds since boot, to order events of this host.
pub fn moment() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    part(now.tv_sec)
        .saturating_mul(1_000_000_000)
        .saturating_add(part(now.tv_nsec))
}

/// Seconds since 1970.
pub fn unix() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// When this host booted, in seconds since 1970.
pub fn booted() -> u64 {
    unix().saturating_sub(uptime())
}

/// The id of this boot, from `/proc/sys/kernel/random/boot_id`. It is read once.
pub fn boot_id() -> io::Result<String> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = ID.get() {
        return Ok(known.clone());
    }
    let id = word("/proc/sys/kernel/random/boot_id")?;
    Ok(ID.get_or_init(|| id).clone())
}

/// The id of this installation, from `/etc/machine-id` (machine-id(5)); a reboot keeps it. `None` if the file is missing. It is
/// read once.
pub fn machine_id() -> Option<String> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    let read = || word("/etc/machine-id").ok().filter(|id| !id.is_empty());
    ID.get_or_init(read).clone()
}

/// The word in a file.
fn word(path: &str) -> io::Result<String> {
    let bytes = file::read(Path::new(path))?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_boot_is_younger_than_the_world() {
        assert!(super::uptime() > 0 && super::uptime() < super::unix());
        assert_eq!(super::boot_id().unwrap().len(), 36);
    }

    #[test]
    fn a_machine_id_is_a_word_or_nothing() {
        let id = super::machine_id();
        assert!(id.is_none_or(|id| !id.is_empty() && !id.contains(char::is_whitespace)));
    }
}
