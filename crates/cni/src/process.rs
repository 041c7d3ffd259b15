//! A delegate's process: writes its input, reads its answer, and waits for its end.
//!
//! One poll waits for its three pipes and its pidfd. So neither side can fill a pipe while the other waits, and a grandchild that
//! keeps a pipe open (a daemon that the plugin left behind) does not block us.

use crate::{CniResult, Error, Version, code, output};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ExitStatus};
use std::time::{Duration, Instant};

/// Bytes that are kept of a delegate's output. The rest is read and dropped.
const MAX_OUTPUT: usize = 8 << 20;

/// Bytes of its standard error that are kept for an error's details. All of it is copied to ours.
const MAX_DETAILS: usize = 2000;

/// A delegate's process. Drop waits for its end and drops its answer, so that no ADD goes on unnoticed and no zombie stays.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: OwnedFd,
    who: String,
    version: Version,
    stdin: Option<ChildStdin>,
    input: Vec<u8>,
    sent: usize,
    stdout: Option<std::process::ChildStdout>,
    answer: Vec<u8>,
    stderr: Option<std::process::ChildStderr>,
    complaint: Vec<u8>,
    /// How long it may take, and when that time ends.
    limit: (Duration, Instant),
    ended: bool,
}

impl Process {
    /// Takes over a child with three pipes, which is killed if it has not ended after `limit`.
    pub(crate) fn new(
        mut child: Child,
        who: String,
        stdin: Vec<u8>,
        version: Version,
        limit: Duration,
    ) -> Result<Self, Error> {
        let pidfd = match prepare(&child) {
            Ok(pidfd) => pidfd,
            Err(e) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(Error::io(format!("{who}: {e}")));
            }
        };
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            pidfd,
            who,
            version,
            input: stdin,
            sent: 0,
            answer: Vec::new(),
            complaint: Vec::new(),
            limit: (limit, Instant::now() + limit),
            ended: false,
        })
    }

    /// The result of an ADD. Errors: the plugin's own; code 198 if it died otherwise; code 6 if the answer is not understood.
    pub(crate) fn result(mut self) -> Result<CniResult, Error> {
        self.succeed()?;
        let bad = |why: String| Error::decode(format!("{}: result: {why}", self.who));
        if self.answer.len() >= MAX_OUTPUT {
            return Err(bad(format!("larger than {} MiB", MAX_OUTPUT >> 20)));
        }
        let value: Value = serde_json::from_slice(&self.answer).map_err(|e| bad(e.to_string()))?;
        CniResult::from_value(&value, self.version).map_err(|e| bad(e.msg))
    }

    /// The end of any other verb. Errors as in [`Process::result`].
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.succeed()
    }

    fn succeed(&mut self) -> Result<(), Error> {
        let status = self.end()?;
        if status.success() {
            return Ok(());
        }
        let said = serde_json::from_slice(&self.answer).unwrap_or_default();
        if let Some(error) = Error::from_value(&said) {
            return Err(error);
        }
        let how = match status.signal() {
            Some(signal) => format!("was killed by signal {signal}{}", name(signal)),
            None => format!("failed ({status})"),
        };
        let silent = self.answer.trim_ascii().is_empty();
        let (code, but) = if silent {
            (code::DELEGATE, "said nothing")
        } else {
            (code::DECODE, "its output is not a CNI error")
        };
        let answer = &self.answer[..self.answer.len().min(MAX_DETAILS)];
        let details = [answer, &self.complaint].map(String::from_utf8_lossy);
        let msg = format!("{} {how}, and {but}", self.who);
        Err(Error::new(code, msg).with_details(details.concat().trim()))
    }

    /// Runs it to its end. The child is reaped in any case.
    fn end(&mut self) -> Result<ExitStatus, Error> {
        let polled = self.turn_until_ended();
        self.ended = true;
        if polled.is_err() {
            let _ = self.child.kill();
        }
        let status = self.child.wait();
        polled?;
        self.hear();
        status.map_err(|e| Error::io(format!("{}: {e}", self.who)))
    }

    fn turn_until_ended(&mut self) -> Result<(), Error> {
        loop {
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            fds.extend(self.stdin.iter().map(|p| PollFd::new(p, PollFlags::OUT)));
            fds.extend(self.stdout.iter().map(|p| PollFd::new(p, PollFlags::IN)));
            fds.extend(self.stderr.iter().map(|p| PollFd::new(p, PollFlags::IN)));
            let (limit, end) = self.limit;
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now()));
            match poll(&mut fds, left.ok().as_ref()) {
                Ok(0) => {
                    let why = format!("has not ended within {limit:?}, and was killed");
                    return Err(Error::new(code::DELEGATE, format!("{} {why}", self.who)));
                }
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(e) => return Err(Error::io(format!("{}: poll: {e}", self.who))),
            }
            let ended = !fds[0].revents().is_empty();
            drop(fds);
            self.feed();
            self.hear();
            if ended {
                return Ok(());
            }
        }
    }

    /// Writes what the pipe takes, and closes it after the last byte. It is no error if a delegate does not read.
    fn feed(&mut self) {
        let Some(pipe) = &mut self.stdin else {
            return;
        };
        while self.sent < self.input.len() {
            match pipe.write(&self.input[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.stdin = None;
    }

    /// Reads what is available.
    fn hear(&mut self) {
        drain(&mut self.stdout, |bytes| {
            let room = MAX_OUTPUT - self.answer.len();
            self.answer
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
        drain(&mut self.stderr, |bytes| {
            output::copy(bytes);
            let room = MAX_DETAILS - self.complaint.len();
            self.complaint
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end();
        }
    }
}

/// Our ends of the pipes never block; the fd becomes readable when the child ends.
fn prepare(child: &Child) -> io::Result<OwnedFd> {
    let pipes = [
        child.stdin.as_ref().map(AsFd::as_fd),
        child.stdout.as_ref().map(AsFd::as_fd),
        child.stderr.as_ref().map(AsFd::as_fd),
    ];
    for pipe in pipes.into_iter().flatten() {
        ioctl_fionbio(pipe, true)?;
    }
    Ok(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?)
}

/// Reads what is available now, at most twice what fits into a pipe: an endless writer must not keep us from the deadline.
/// Drops a pipe that has ended.
fn drain(pipe: &mut Option<impl Read>, mut keep: impl FnMut(&[u8])) {
    let mut buffer = [0; 8192];
    for _ in 0..16 {
        let Some(open) = pipe else {
            return;
        };
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(n) => keep(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Err(_) => *pipe = None,
        }
    }
}

/// Names of common signals.
fn name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        31 => " (SIGSYS)",
        _ => "",
    }
}
