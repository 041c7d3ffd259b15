//! Whether a watcher keeps this host's copies of the news fresh, so that a verb need not.
//!
//! A watcher listens to the store and says in a document which networks forward by all that it has heard. It holds a lock
//! while it lives: without that the document is a dead one's. What it promises is freshness alone. An ADD that believes it
//! forwards by the copy, as one does while the store is away, and relies on it no further than that.

use std::{collections::BTreeSet, path::Path, time::Duration};

use cni::Error;
use journal::{Journal, Lock};
use serde::{Deserialize, Serialize};

use crate::{host::Host, local, readable};

/// The document's name.
const NAME: &str = "following";
/// The lock's name.
const LOCK: &str = "watcher";
/// Longest that a verb holds the lock, to see whether anybody does.
const LOOK: Duration = Duration::from_millis(100);

/// The networks whose copies are fresh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following(BTreeSet<String>);

/// The one watcher of this host, for its life.
pub struct Watch {
    documents: Journal<Following>,
    said: Following,
    _alive: Lock,
}

impl Watch {
    /// Begins, with nothing promised; busy if another watcher lives.
    pub fn begin() -> Result<Self, journal::Error> {
        let documents = documents();
        let alive = documents.lock(LOCK, LOOK)?;
        documents.remove(NAME)?;
        Ok(Self {
            documents,
            said: Following::default(),
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
}

impl Drop for Watch {
    fn drop(&mut self) {
        // While the lock is held: what stays of it is a dead one's.
        let _ = self.documents.remove(NAME);
    }
}

/// Where the document is.
pub(crate) fn documents() -> Journal<Following> {
    Journal::new(Path::new(journal::ROOT), "watch")
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
    is_alive().map_err(|error| local(&error))
}
