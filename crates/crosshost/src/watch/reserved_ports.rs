//! The watcher's thread that reserves published ports ([`portmap::reservation`]).
//!
//! It is a thread of its own, because it must not wait for other work: a runtime that stops a container and starts it again binds
//! the container's ports itself, some ten milliseconds after the DEL. So it follows the documents by inotify.

use std::{io, path::Path, thread, time::Duration};

use journal::{Changed, Changes};
use portmap::{reservation::Reservations, table};
use rustix::process::{Resource, getrlimit};

use super::log::Log;

/// How often all ports are reserved that are not yet: another program may have ended.
const AGAIN: Duration = Duration::from_secs(30);
/// The pause after the documents could not be followed.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the thread. It ends with the process.
pub fn start() -> io::Result<()> {
    // The other half is for networks and the store.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(files / 2).unwrap_or(usize::MAX);
    let thread = thread::Builder::new().name("reserved-ports".into());
    thread.spawn(move || keep(&mut Reservations::new(limit)))?;
    Ok(())
}

fn keep(reservations: &mut Reservations) {
    let mut log = Log::default();
    loop {
        if let Err(error) = follow(reservations, &mut log) {
            log.wrong("reserved ports", &error.to_string());
            thread::sleep(PAUSE);
        }
    }
}

/// Returns when the documents must be followed anew.
fn follow(reservations: &mut Reservations, log: &mut Log) -> Result<(), journal::Error> {
    let changes = Changes::of(Path::new(journal::ROOT), table::KIND)?;
    let mut done = reservations.read_all();
    loop {
        match done {
            Ok(()) => log.right("reserved ports"),
            Err(error) => log.wrong("reserved ports", &error.to_string()),
        }
        done = match changes.wait(AGAIN)? {
            Changed::Documents(none) if none.is_empty() => reservations.read_all(),
            Changed::Documents(names) => reservations.read(&names),
            Changed::Anything => return Ok(()),
        };
    }
}
