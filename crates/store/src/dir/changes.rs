//! Notifications of finished transactions: inotify on the store's directory, where each transaction renames its record.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::redo::LAST;

/// A subscription to a store's transactions.
pub(super) struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// From here on nothing is missed.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // A transaction ends with a rename. Other events would wake watchers for nothing.
        inotify::add_watch(&fd, root, WatchFlags::MOVED_TO)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; that the descriptor stays open, an OwnedFd ensures"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    /// Waits for a transaction that ends after the last call.
    pub(super) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            if self.drain()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Reads all events; returns whether one of them ends a transaction, or one may have been lost.
    fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        let mut found = false;
        loop {
            match events.next() {
                Ok(event) => {
                    let renamed = event
                        .file_name()
                        .is_some_and(|name| name.to_bytes() == LAST.as_bytes());
                    found |= renamed || !event.events().contains(inotify::ReadFlags::MOVED_TO);
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(found),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
