//! Running a command to its end, or to a deadline, with all it printed.
//!
//! Output goes to unnamed files, not to pipes: a killed plugin's child may outlive it and hold a pipe
//! open, and a test that waits for end-of-file would then wait for the wrong process. Standard input
//! is a pipe, as a runtime gives it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::until::spend;

/// How long a command may take unless a test says otherwise.
pub const LIMIT: Duration = Duration::from_mins(1);

/// A command that has been started.
pub struct Running {
    line: String,
    child: Child,
    process: Process,
    stdout: File,
    stderr: File,
    started: Instant,
}

/// A process that may be another process's child, held by a pidfd: it needs no polling, and its id is not reused.
pub struct Process(OwnedFd);

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The command as a user would type it, for messages.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// From just before the start to the end of the process.
    pub took: Duration,
}

impl Running {
    /// Starts `command` with `stdin` fed through a pipe by a thread of its own.
    #[track_caller]
    pub fn start(mut command: Command, stdin: &[u8]) -> Running {
        let line = spelled(&command);
        let stdout = tempfile::tempfile().expect("a file for standard output");
        let stderr = tempfile::tempfile().expect("a file for standard error");
        command
            .stdin(Stdio::piped())
            .stdout(stdout.try_clone().expect("duplicate a file"))
            .stderr(stderr.try_clone().expect("duplicate a file"));
        let started = Instant::now();
        let mut child = command
            .spawn()
            .unwrap_or_else(|cause| panic!("cannot start {line}: {cause}"));
        let process = Process::of(child.id()).expect("a child that was not waited for");
        let mut pipe = child.stdin.take().expect("a piped standard input");
        if stdin.len() <= 4096 {
            // Fits into any pipe. The command may end without reading it, which is no error.
            let _ = pipe.write_all(stdin);
        } else {
            let bytes = stdin.to_vec();
            std::thread::spawn(move || pipe.write_all(&bytes));
        }
        Running {
            line,
            child,
            process,
            stdout,
            stderr,
            started,
        }
    }

    /// The process id; the namespace tools exec, so it is the command's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL; a process that has ended already is left as it is.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Sends SIGKILL so long after now: a point of its run that the scenario chooses.
    pub fn kill_after(&self, time: Duration) {
        spend(time);
        self.kill();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Sends SIGINT, on which ping says how many answers it got.
    pub fn interrupt(&self) {
        self.process.signal(Signal::INT);
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.process.signal(Signal::HUP);
    }

    /// Standard error as far as it is written. Read at a place, since the process writes at the file's own.
    pub fn stderr_so_far(&self) -> String {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = self.stderr.read_at(&mut piece, bytes.len() as u64) {
            bytes.extend(&piece[..count]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The child of this process that runs `program`, awaited until this process ends.
    #[track_caller]
    pub fn child(&self, program: &str) -> Option<Process> {
        while self.is_alive() {
            // A plugin may start its delegate from any of its threads.
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
            for task in tasks.into_iter().flatten().flatten() {
                let children = std::fs::read_to_string(task.path().join("children"));
                for child in children.unwrap_or_default().split_whitespace() {
                    let name = std::fs::read_to_string(format!("/proc/{child}/comm"));
                    if name.is_ok_and(|name| name.trim() == program) {
                        return Process::of(child.parse().expect("a pid"));
                    }
                }
            }
        }
        None
    }

    /// Whether the process has not ended yet.
    pub fn is_alive(&self) -> bool {
        !self.process.ends_within(Duration::ZERO)
    }

    /// Waits for the end, at most for `limit`; a command that takes longer is killed and fails the test.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Finished {
        let ended = self.process.ends_within(limit);
        if !ended {
            self.kill();
        }
        let status = self.child.wait().expect("wait");
        let took = self.started.elapsed();
        let finished = Finished {
            line: self.line,
            status,
            stdout: all_of(&mut self.stdout),
            stderr: all_of(&mut self.stderr),
            took,
        };
        assert!(ended, "still running after {limit:?}: {finished}");
        finished
    }
}

impl Finished {
    /// Insists on success.
    #[track_caller]
    pub fn ok(self) -> Finished {
        assert!(self.status.success(), "failed: {self}");
        self
    }

    /// Insists on failure.
    #[track_caller]
    pub fn failed(self) -> Finished {
        assert!(!self.status.success(), "should have failed: {self}");
        self
    }

    /// Insists that standard output has all these words.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Finished {
        for word in words {
            assert!(self.stdout.contains(word), "no {word:?} in {self}");
        }
        self
    }

    /// Insists that standard error has all these words.
    #[track_caller]
    pub fn warns(self, words: &[&str]) -> Finished {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self}");
        }
        self
    }

    /// Insists on a CNI error of this code whose text has all these words, and gives the text.
    #[track_caller]
    pub fn refused(self, code: u32, words: &[&str]) -> String {
        let said = self.failed();
        let error = said.json();
        assert_eq!(error["code"], code, "the code of {said}");
        let text = error["msg"].as_str().unwrap_or_default().to_owned();
        for word in words {
            assert!(text.contains(word), "no {word:?} in {said}");
        }
        text
    }

    /// Standard output as one JSON document and nothing else.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|cause| panic!("not one JSON document ({cause}): {self}"))
    }

    /// What a command of `crosshost` answers with `--json`, without the schema and the word above it.
    #[track_caller]
    pub fn answer(&self) -> Value {
        let answer = self.json();
        let answer = answer.as_object().expect("an object");
        let keys: Vec<_> = answer.keys().map(String::as_str).collect();
        let ["schema", word] = keys[..] else {
            panic!("a schema and one word: {self}")
        };
        answer[word].clone()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finished { line, status, .. } = self;
        writeln!(f, "{line}\n  {status} after {:?}", self.took)?;
        writeln!(f, "  stdout: {}", clipped(&self.stdout))?;
        write!(f, "  stderr: {}", clipped(&self.stderr))
    }
}

/// Runs `command` to its end, at most [`LIMIT`], with an empty standard input.
#[track_caller]
pub(crate) fn run(command: Command) -> Finished {
    Running::start(command, b"").wait(LIMIT)
}

impl Process {
    fn of(pid: u32) -> Option<Process> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Process(pidfd_open(pid, PidfdFlags::empty()).ok()?))
    }

    /// Sends SIGKILL; a process that has ended already is left as it is.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// The same so long after now; see [`Running::kill_after`].
    pub fn kill_after(&self, time: Duration) {
        spend(time);
        self.kill();
    }

    fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.0, signal);
    }

    /// Blocks until the process has ended, at most for `limit`; whether it has.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).expect("a limit");
        let mut waiting = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut waiting, Some(&limit)).expect("poll") > 0
    }
}

fn all_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read back the output");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The command line without the wrapping that enters a namespace.
fn spelled(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let from = words
        .iter()
        .rposition(|word| word == "--")
        .map_or(0, |at| at + 1);
    words[from..].join(" ")
}

fn clipped(text: &str) -> String {
    const MOST: usize = 4000;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} [...]", &text[..end]),
        None => text.trim_end().to_owned(),
    }
}
