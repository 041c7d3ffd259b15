//! What an operator or a service manager tells the watcher: signals, as events of a descriptor. No handler, so nothing runs in
//! between; and no second thread.

use nix::sys::{
    signal::{SigSet, Signal as Number},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::io::unix::AsyncFd;

use crate::session::Result;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End (SIGTERM, SIGINT).
    Stop,
    /// Read the settings anew, and sync now (SIGHUP).
    Reload,
}

/// The signals of this process from here on.
pub struct Signals(AsyncFd<SignalFd>);

impl Signals {
    /// Takes them over. Threads that are started later leave them to this one.
    pub fn open() -> Result<Self> {
        let mut set = SigSet::empty();
        for number in [Number::SIGTERM, Number::SIGINT, Number::SIGHUP] {
            set.add(number);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; that the descriptor stays open, a SignalFd ensures"
        )]
        let fd = AsyncFd::new(SignalFd::with_flags(&set, flags)?)?;
        Ok(Self(fd))
    }

    /// The next one. A descriptor that fails is as good as the end: nobody could stop us any more.
    pub async fn next(&self) -> Signal {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return Signal::Stop;
            };
            match self.0.get_ref().read_signal() {
                Ok(Some(info)) if i32::try_from(info.ssi_signo) == Ok(Number::SIGHUP as i32) => {
                    return Signal::Reload;
                }
                Ok(None) => ready.clear_ready(),
                Ok(Some(_)) | Err(_) => return Signal::Stop,
            }
        }
    }
}
