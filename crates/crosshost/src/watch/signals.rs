//! The signals by which an operator or a service manager controls the watcher, as bytes in sockets.
//!
//! Not `tokio::signal`: its feature makes every runtime with I/O open two sockets at its start, and all binaries are built with
//! one set of features, so each verb of each plugin would pay for it.

use std::{io, os::unix::net};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    low_level::pipe,
};
use tokio::net::UnixStream;

use crate::session::Result;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End (SIGTERM, SIGINT).
    Stop,
    /// Read the settings again, and sync now (SIGHUP).
    Reload,
}

/// The signals of this process from here on. Each kind has a socket, whose other end a handler writes to.
pub struct Signals {
    stop: UnixStream,
    reload: UnixStream,
}

impl Signals {
    /// Installs the handlers.
    pub fn open() -> Result<Self> {
        Ok(Self {
            stop: socket(&[SIGTERM, SIGINT])?,
            reload: socket(&[SIGHUP])?,
        })
    }

    /// The next one. A socket that fails counts as a signal to end, because no other could be noticed.
    pub async fn next(&self) -> Signal {
        tokio::select! {
            biased;
            _ = arrival(&self.stop) => Signal::Stop,
            reload = arrival(&self.reload) => match reload {
                Ok(()) => Signal::Reload,
                Err(_) => Signal::Stop,
            },
        }
    }
}

/// A socket that becomes readable when one of these signals arrives.
fn socket(signals: &[i32]) -> io::Result<UnixStream> {
    let (here, handler) = net::UnixStream::pair()?;
    for signal in signals {
        pipe::register(*signal, handler.try_clone()?)?;
    }
    here.set_nonblocking(true)?;
    UnixStream::from_std(here)
}

/// Waits for signals. Those that arrive together count as one.
async fn arrival(socket: &UnixStream) -> io::Result<()> {
    loop {
        socket.readable().await?;
        match socket.try_read(&mut [0; 64]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;

    #[test]
    fn each_signal_arrives_and_those_that_come_together_count_as_one() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let signals = Signals::open().unwrap();
            raise(SIGHUP).unwrap();
            raise(SIGHUP).unwrap();
            assert_eq!(signals.next().await, Signal::Reload);
            raise(SIGTERM).unwrap();
            assert_eq!(signals.next().await, Signal::Stop);
            raise(SIGINT).unwrap();
            assert_eq!(signals.next().await, Signal::Stop);
        });
    }
}
