//! The service manager, if one has started us: it is told that we are ready, how things stand and that we live
//! (`sd_notify(3)`: datagrams to the socket that `NOTIFY_SOCKET` names).

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

/// As good as never.
const IDLE: Duration = Duration::from_hours(1);

/// The way to it; a manager that is not there is told nothing.
pub struct Service {
    socket: Option<(UnixDatagram, SocketAddr)>,
    every: Duration,
    status: Option<String>,
}

impl Service {
    /// The one that the environment names.
    pub fn from_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        // Somebody else's watchdog is none of ours.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|limit| ours && *limit > 0);
        Self {
            every: watchdog.map_or(IDLE, |limit| Duration::from_micros(limit / 2)),
            socket,
            status: None,
        }
    }

    /// How often it wants to hear that we live.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// We live.
    pub fn ping(&self) {
        if self.every < IDLE {
            self.send("WATCHDOG=1");
        }
    }

    /// How things stand; the first time also that we are ready.
    pub fn say(&mut self, status: String) {
        // A line end would begin another word of the protocol.
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

    /// We end.
    pub fn stop(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // One that does not listen any more cannot be helped.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

/// A path, or with `@` in front an abstract name.
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
