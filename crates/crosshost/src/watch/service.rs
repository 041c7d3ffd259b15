//! Reports to the service manager, if one has started the watcher: that it is ready, its status, and that it is alive (`sd_notify(3)`:
//! datagrams to the socket in `NOTIFY_SOCKET`).

use std::{
    env,
    ffi::OsStr,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// Practically never.
const IDLE: Duration = Duration::from_hours(1);

/// The socket of the manager. Without a manager nothing is sent.
pub struct Service {
    socket: Option<(UnixDatagram, SocketAddr)>,
    every: Duration,
    status: Option<String>,
}

impl Service {
    /// The manager in the environment.
    pub fn from_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        // The watchdog may be meant for another process.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|limit| ours && *limit > 0);
        Self {
            every: watchdog.map_or(IDLE, |limit| Duration::from_micros(limit / 2)),
            socket,
            status: None,
        }
    }

    /// How often the watchdog needs a sign of life.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Sends a sign of life.
    pub fn ping(&self) {
        if self.every < IDLE {
            self.send("WATCHDOG=1");
        }
    }

    /// Sends the status, and the first time also that the watcher is ready.
    pub fn say(&mut self, status: String) {
        // A line end would begin another field of the protocol.
        let status = cni::line(status);
        if self.status.as_ref() == Some(&status) {
            return;
        }
        let ready = if self.status.is_none() {
            "READY=1\n"
        } else {
            ""
        };
        self.send(&format!("{ready}STATUS={status}"));
        self.status = Some(status);
    }

    /// Sends that the watcher ends.
    pub fn stop(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // A manager that does not listen any more is ignored.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

/// A path, or an abstract name with `@` in front.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let of = |name: &str| address(OsStr::new(name));
        let path = of("/run/systemd/notify").and_then(|a| a.as_pathname().map(ToOwned::to_owned));
        assert_eq!(path, Some("/run/systemd/notify".into()));
        let name = of("@notify").and_then(|a| a.as_abstract_name().map(<[u8]>::to_vec));
        assert_eq!(name, Some(b"notify".to_vec()));
        assert!(of("vsock:2:1").is_none() && of("").is_none());
    }
}
