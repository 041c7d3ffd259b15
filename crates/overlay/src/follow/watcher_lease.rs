//! Whether a watcher keeps this host's snapshots fresh, so that a verb need not read them.
//!
//! A watcher listens to the store, and writes a document with the networks that forward by all that it has read. It holds a lock
//! while it lives; without the lock the document is a dead watcher's. It promises freshness and nothing else. An ADD that
//! finds the promise forwards by the copy, and relies on it no further than while the store is away.

use std::{collections::BTreeSet, path::Path, time::Duration};

use journal::{Journal, Lock, clock::uptime};
use plugin::{Error, readable};
use serde::{Deserialize, Serialize};

use crate::state::host::Host;

/// The name of the document that says when the store last answered, and of its folder: a folder has one kind of document.
const HEARD: &str = "heard";
/// Least seconds between two writes of it.
const OFTEN: u64 = 10;
/// The document's name.
const NAME: &str = "following";
/// The lock's name.
const LOCK: &str = "watcher";
/// Longest that a verb holds the lock, to find out whether a watcher does.
const LOOK: Duration = Duration::from_millis(100);

/// The networks whose copies are fresh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following(BTreeSet<String>);

/// When the store last answered a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Seconds since boot.
    at: u64,
    /// After this many seconds without an answer the watcher counts as deaf.
    within: u64,
}

impl Heard {
    /// The seconds without an answer, if they are more than its queries wait.
    pub fn silence(self) -> Option<u64> {
        let silence = uptime().saturating_sub(self.at);
        Some(silence).filter(|silence| *silence > self.within)
    }
}

/// The one watcher of this host, for as long as it lives.
pub struct WatcherLease {
    documents: Journal<Following>,
    said: Following,
    heard: Option<Heard>,
    _alive: Lock,
}

impl WatcherLease {
    /// Begins without a promise; busy if another watcher lives.
    pub fn begin() -> Result<Self, journal::Error> {
        let documents = documents();
        let alive = documents.lock(LOCK, LOOK)?.passing();
        documents.remove(NAME)?;
        heard().remove(HEARD)?;
        Ok(Self {
            documents,
            said: Following::default(),
            heard: None,
            _alive: alive,
        })
    }

    /// Writes which networks forward by all that was read; the others do not.
    pub fn follows(&mut self, networks: BTreeSet<String>) -> Result<(), journal::Error> {
        let following = Following(networks);
        if following != self.said {
            self.documents.save(NAME, &following)?;
            self.said = following;
        }
        Ok(())
    }

    /// Writes when the store last answered, in seconds since boot, and after which silence the watcher counts as deaf.
    pub fn heard(&mut self, at: u64, deaf: Duration) -> Result<(), journal::Error> {
        let now = Heard {
            at,
            within: deaf.as_secs(),
        };
        if self.heard.is_none_or(|before| now.at >= before.at + OFTEN) {
            heard().save(HEARD, &now)?;
            self.heard = Some(now);
        }
        Ok(())
    }
}

impl Drop for WatcherLease {
    fn drop(&mut self) {
        let _ = heard().remove(HEARD);
        // While the lock is held: a document without a lock is a dead watcher's.
        let _ = self.documents.remove(NAME);
    }
}

/// Where the document is.
pub(crate) fn documents() -> Journal<Following> {
    Journal::new(Path::new(journal::ROOT), "watch")
}

/// Where the other document is.
pub(crate) fn heard() -> Journal<Heard> {
    Journal::new(Path::new(journal::ROOT), HEARD)
}

/// When the store last answered the living watcher; `None` if it does not write that, as older versions do not.
pub fn last_heard() -> Result<Option<Heard>, Error> {
    readable(&heard(), HEARD)
}

/// Whether a watcher of this host lives.
pub fn is_alive() -> Result<bool, journal::Error> {
    documents().try_lock(LOCK).map(|free| free.is_none())
}

/// Whether a watcher lives that keeps the network's copy fresh.
pub(crate) fn is_followed(host: &Host, network: &str) -> Result<bool, Error> {
    let following = readable(&host.following, NAME)?;
    if following.is_none_or(|following| !following.0.contains(network)) {
        return Ok(false);
    }
    is_alive().map_err(Error::from)
}
