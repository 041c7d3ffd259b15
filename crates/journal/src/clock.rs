//! The clocks of this host, and the ids of its boot and its machine.

use std::{io, time::SystemTime};

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

/// The id of this boot, from `/proc/sys/kernel/random/boot_id`.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// The id of this installation, from `/etc/machine-id` (machine-id(5)); a reboot keeps it. `None` if the file is missing.
pub fn machine_id() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
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
