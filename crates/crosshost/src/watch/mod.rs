//! `crosshost sync --watch`: a host's resident part. It repeats the step of `crosshost sync` when the others have news.
//!
//! # Why it looks like this
//!
//! Nothing depends on it. Verbs do their own reading, a dead watcher costs freshness of remote news and nothing else; so it
//! keeps nothing that it could not read again, and can be killed at any instruction like a verb.
//!
//! It holds blocking queries on `nodes/` and on `blocks/NETWORK` of each network that this host is on ([`line`]). One query
//! on all of `blocks/` would be less to manage, but each of its answers is all blocks of all networks: a thousand hosts pay
//! 232 kB each for a change in a network of their own (`docs/scale.md`), and would pay it for those of everybody. Which networks
//! these are is looked up below `/run/crosshost` once a second. That is two directories, 50 us; inotify would have to follow
//! directories that come and go with `/run`, to win a second that nobody waits for: the ADD that brought the network has
//! read the news itself.
//!
//! Most of what a query answers is no news here: a last contact, a block of which this host's own verb read already. What
//! counts is compared with the host's documents, and only what differs is worked off ([`duties`]): a network's
//! forwarding, or what a pool owes the others. Each work opens the store like a verb, with a verb's time budget, so that a
//! changed token or address counts from the next one on. Whatever failed stays due.
//!
//! What it has heard and worked off it vouches for: an ADD on such a network reads no news and looks at no entry
//! (`overlay::follow::watcher_lease`), which on a cluster of a thousand hosts is most of its time.
//!
//! What somebody damages on this host the kernel tells ([`kernel`]), and it is looked at soon, yet not all the time ([`pace`]);
//! and twice a minute, as notices may get lost.
//!
//! A last contact is written at the start, on SIGHUP, and where a network that reclaims asks for it, never by routine: each
//! such write wakes every watcher of every host.

mod duties;
mod kernel;
mod line;
mod log;
mod pace;
mod service;
mod signals;
mod watcher;

use std::{pin::pin, time::Duration};

use overlay::follow::watcher_lease::WatcherLease;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    task::LocalSet,
    time::{Instant, sleep_until},
};

use crate::session::{Result, Session};
use service::Service;
use signals::{Signal, Signals};
use watcher::Watcher;

/// How often the host itself is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Watches until it is told to stop.
pub async fn watch() -> Result<String> {
    // Settings that are broken from the start are the operator's to hear of at once.
    Session::open()?;
    let watch = WatcherLease::begin().map_err(taken)?;
    let signals = Signals::open()?;
    open_files();
    LocalSet::new()
        .run_until(Box::pin(keep(watch, &signals)))
        .await;
    Ok(String::new())
}

/// Raises the limit of open files as far as possible: each network takes two sockets.
fn open_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    // With fewer files some networks are only checked every half minute, and the log says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn taken(error: journal::Error) -> Box<dyn std::error::Error> {
    match error {
        journal::Error::Busy { path, .. } => {
            let path = path.display();
            format!("another crosshost sync --watch runs on this host: it holds {path}").into()
        }
        error @ (journal::Error::Io { .. } | journal::Error::Newer { .. }) => error.into(),
    }
}

async fn keep(watch: WatcherLease, signals: &Signals) {
    let (mut service, mut watcher) = (Service::from_environment(), Watcher::new(watch));
    loop {
        watcher.look();
        watcher.hear();
        if let Some(status) = watcher.status() {
            service.say(status);
        }
        let signal = if watcher.has_work() {
            // Work that is done without waiting must not keep signals and timers from being noticed.
            tokio::task::yield_now().await;
            Box::pin(while_working(&mut watcher, signals, &service)).await
        } else {
            service.ping();
            let next = Instant::now() + LOOK.min(service.every());
            let next = watcher.next_look().map_or(next, |look| look.min(next));
            tokio::select! {
                biased;
                signal = signals.next() => Some(signal),
                () = watcher.news() => None,
                () = sleep_until(next) => None,
            }
        };
        match signal {
            Some(Signal::Stop) => break,
            Some(Signal::Reload) => watcher.reload(),
            None => {}
        }
    }
    service.stop();
}

/// Works until it is done, or a signal comes: then what is under way ends like a killed verb's, and stays due.
async fn while_working(
    watcher: &mut Watcher,
    signals: &Signals,
    service: &Service,
) -> Option<Signal> {
    let mut work = pin!(watcher.work());
    loop {
        service.ping();
        let next = Instant::now() + service.every();
        tokio::select! {
            biased;
            signal = signals.next() => return Some(signal),
            () = &mut work => return None,
            () = sleep_until(next) => {}
        }
    }
}
