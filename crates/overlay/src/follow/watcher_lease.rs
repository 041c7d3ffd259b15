//! Whether a watcher keeps this host's copies of the news fresh, so that a verb need not.
//!
//! A watcher listens to the store and says in a document which networks forward by all that it has heard. It holds a lock
//! while it lives: without that the document is a dead one's. What it promises is freshness alone. An ADD that believes it
//! forwards by the copy, as one does while the store is away, and relies on it no further than that.

use std::{collections::BTreeSet, path::Path, time::Duration};

use journal::{Journal, Lock, clock::uptime};
use plugin::{Error, readable};
use serde::{Deserialize, Serialize};

use crate::state::host::Host;

/// The name of the document that says when the store was heard, and of its folder: those of one folder are of one kind.
const HEARD: &str = "heard";
/// How often it is written at most, in seconds.
const OFTEN: u64 = 10;
/// The document's name.
const NAME: &str = "following";
/// The lock's name.
const LOCK: &str = "watcher";
/// Longest that a verb holds the lock, to see whether anybody does.
const LOOK: Duration = Duration::from_millis(100);

/// The networks whose copies are fresh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following(BTreeSet<String>);

/// When a watcher heard of the store last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Seconds since boot.
    at: u64,
    /// After so many seconds without a word it is deaf.
    within: u64,
}

impl Heard {
    /// For how many seconds it has heard nothing, if that is longer than its queries wait.
    pub fn silence(self) -> Option<u64> {
        let silence = uptime().saturating_sub(self.at);
        Some(silence).filter(|silence| *silence > self.within)
    }
}

/// The one watcher of this host, for its life.
pub struct WatcherLease {
    documents: Journal<Following>,
    said: Following,
    heard: Option<Heard>,
    _alive: Lock,
}

impl WatcherLease {
    /// Begins, with nothing promised; busy if another watcher lives.
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

    /// Says which networks forward by all that was heard, and that others do not.
    pub fn follows(&mut self, networks: BTreeSet<String>) -> Result<(), journal::Error> {
        let following = Following(networks);
        if following != self.said {
            self.documents.save(NAME, &following)?;
            self.said = following;
        }
        Ok(())
    }

    /// Says when the store was heard last, in seconds since boot, and after which silence we are deaf.
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
        // While the lock is held: what stays of it is a dead one's.
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

/// When the watcher that lives heard of the store last; `None` where it does not say, as older ones do not.
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
