//! Prints at most one JSON object on standard output, whatever happens. Nothing else prints there.
//!
//! A release build aborts on panic, and if standard output is empty a runtime shows only an exit code. So a panic prints an error
//! object like any failure before the process ends. The first object is printed and any other is dropped, because two objects
//! are not valid JSON.
#![expect(clippy::disallowed_methods, reason = "it writes the protocol")]

use crate::{Error, Version, code, plain};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The version of the configuration, once it is known.
static VERSION: OnceLock<Version> = OnceLock::new();
static SPOKEN: AtomicBool = AtomicBool::new(false);

/// Sets the version of a panic's error object. The first one stays.
pub(crate) fn set_version(version: Version) {
    let _ = VERSION.set(version);
}

/// Prints `object` on a line of its own, unless something was printed before. Does not panic if the reader is gone.
pub(crate) fn print(object: &Value) -> io::Result<()> {
    if SPOKEN.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    say(&format!("{object}\n"))
}

/// Writes to standard output.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Fails if the caller has died: code 5.
///
/// If a runtime is killed its plugin goes on, and a DEL may arrive before that plugin has begun. An ADD calls this when it holds
/// the lock that excludes a DEL: then either the DEL comes later, or the ADD ends here.
/// The caller is dead if nobody can read our answer (pipe(7): POLLERR at the writing end).
pub fn caller_listens() -> Result<(), Error> {
    if is_heard(io::stdout().as_fd()) {
        return Ok(());
    }
    Err(Error::io(
        "the caller closed standard output; nothing was created",
    ))
}

fn is_heard(output: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&output, PollFlags::OUT)];
    let at_once = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut polled, Some(&at_once)) {
        Ok(_) => !polled[0].revents().contains(PollFlags::ERR),
        Err(_) => true,
    }
}

/// A line for a person on standard error: something that did not stop the verb.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(line));
}

/// From now on a panic, of any thread, prints an error object of code 199 and ends the process with exit code 1.
pub(crate) fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let error = told(panic);
        note(&error.to_string());
        let version = VERSION.get().copied().unwrap_or(Version::LATEST);
        let _ = print(&error.to_value(version));
        std::process::exit(1);
    }));
}

fn told(panic: &PanicHookInfo<'_>) -> Error {
    let place = panic.location().map(ToString::to_string);
    let place = place.unwrap_or_else(|| "an unknown place".to_owned());
    Error::new(code::INTERNAL, format!("internal error at {place}"))
        .with_details(panic.payload_as_str().unwrap_or_default())
}

/// Prints a delegate's standard error, unchanged.
pub(crate) fn copy(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

#[cfg(test)]
mod tests {
    use super::is_heard;
    use std::os::fd::AsFd;

    #[test]
    fn a_pipe_is_heard_as_long_as_its_reader_lives() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(is_heard(writer.as_fd()));
        drop(reader);
        assert!(!is_heard(writer.as_fd()));
        let null = std::fs::File::options()
            .write(true)
            .open("/dev/null")
            .unwrap();
        assert!(is_heard(null.as_fd()));
    }
}
