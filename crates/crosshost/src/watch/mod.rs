//! `crosshost sync --watch`: a resident process that does the work of `crosshost sync` whenever other hosts change something.
//!
//! # What wakes it
//!
//! - An answer to a blocking query of the store: a node or a block has changed ([`line`]).
//! - A notification of this host's kernel: a link, address, route or table has changed ([`kernel`]).
//! - Time: every second it looks at the host's documents, twice a minute it checks the kernel, three times whether containers are gone
//!   without a DEL ([`orphans`]), and every ten minutes it syncs everything.
//! - SIGHUP and SIGTERM ([`signals`]).
//!
//! # Why it looks like this
//!
//! Nothing depends on it. Verbs read the store themselves, and without a watcher a host only learns later of other hosts. So the
//! watcher keeps nothing that it could not read again, and can be killed at any instruction like a verb.
//!
//! It holds blocking queries on `nodes/` and on `blocks/NETWORK` of each network that this host is on ([`line`]). One query
//! on all of `blocks/` would be simpler, but each of its answers would have all blocks of all networks. A thousand hosts pay 232 kB
//! each for a change in one of their own networks (`docs/scale.md`), and would pay it for every network. The watcher looks up its
//! networks below `/run/crosshost` once a second: two directories, 50 us. inotify would have to follow directories that come and
//! go with `/run`, to save a second for which nothing waits: the first ADD on a network has read the store itself.
//!
//! Most answers change nothing here: a last contact, or a block that a verb of this host has already read. The watcher compares each
//! answer with the host's documents, and only a difference is work ([`duties`]): a network's forwarding, or an answer that a pool
//! owes another host. Each piece of work opens the store like a verb, with a verb's time budget, so that a changed token or address
//! counts from the next one on. Work that failed stays due.
//!
//! For each network whose changes are all done the watcher has a lease (`overlay::follow::watcher_lease`). An ADD on such a network
//! neither reads a snapshot nor compares forwarding entries, which on a cluster of a thousand hosts is most of its time.
//!
//! The kernel notifies the watcher of changes on this host ([`kernel`]). It checks the host soon after one, but not all the time
//! ([`pace`]); and also twice a minute, because notifications may get lost.
//!
//! A thread of its own reserves the published ports of this host by sockets ([`reserved_ports`]).
//!
//! The watcher writes the host's last contact at its start, on SIGHUP, and where a network with `reclaimAfter` needs it, but not
//! regularly: each such write wakes the watchers of all hosts.

mod duties;
mod kernel;
mod line;
mod log;
mod orphans;
mod pace;
mod reserved_ports;
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

/// How often the host's documents are checked.
const LOOK: Duration = Duration::from_secs(1);

/// Watches until a signal ends it.
pub async fn watch() -> Result<String> {
    // If the settings are broken at the start, the command fails at once.
    Session::open()?;
    let watch = WatcherLease::begin().map_err(taken)?;
    let signals = Signals::open()?;
    open_files();
    reserved_ports::start()?;
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
            // Work that never waits must not delay signals and timers.
            tokio::task::yield_now().await;
            Box::pin(while_working(&mut watcher, signals, &service)).await
        } else {
            service.ping();
            let next = Instant::now() + LOOK.min(service.every());
            let next = watcher.next_look().map_or(next, |look| look.min(next));
            tokio::select! {
                biased;
                signal = signals.next() => Some(signal),
                () = watcher.woken() => None,
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

/// Works until the work is done or a signal arrives. Interrupted work ends like that of a killed verb, and stays due.
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
