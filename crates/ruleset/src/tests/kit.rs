//! Throwaway network namespaces. Each hangs on a child process that lives no longer than its standard input is open, so
//! neither a failed nor a killed test leaves one behind.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) struct Namespace {
    keeper: Child,
    file: File,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo inside; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "inside\n", "unshare --net failed: are we root?");
        let file = File::open(format!("/proc/{}/ns/net", keeper.id())).unwrap();
        Self { keeper, file }
    }

    /// Runs `f` on a thread that enters the namespace and ends with `f`. Commands that it starts are inside as well.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            use std::os::fd::AsFd;
            let kind = LinkNameSpaceType::Network;
            move_into_link_name_space(self.file.as_fd(), Some(kind)).unwrap();
            f()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// The standard output of a shell script that has to succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.run(|| {
            let output = Command::new("sh").args(["-ec", script]).output().unwrap();
            let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{script}\n{err}");
            String::from_utf8(out).unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take()); // end of file for cat
        let _ = self.keeper.wait();
    }
}
