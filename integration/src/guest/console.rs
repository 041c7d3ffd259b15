//! Talking to a guest's init by its serial port, with a deadline for each answer.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::run::Finished;

/// How long a guest may take to boot, and then for each script.
const PATIENCE: Duration = Duration::from_mins(1);

/// Both directions of the port; what the guest sends is read when somebody waits for it.
pub(super) struct Console {
    asks: ChildStdin,
    answers: ChildStdout,
    /// Heard and not yet looked at.
    heard: Vec<u8>,
    is_ready: bool,
}

impl Console {
    /// Of a guest that has just been turned on.
    pub(super) fn new(asks: ChildStdin, answers: ChildStdout) -> Console {
        Console {
            asks,
            answers,
            heard: Vec::new(),
            is_ready: false,
        }
    }

    /// Runs a script in the guest, once that is up; what went wrong if there is no answer.
    pub(super) fn run(&mut self, script: &str) -> Result<Finished, String> {
        if !self.is_ready {
            let said = self.line()?;
            if said != "ready" {
                return Err(format!("said {said:?} in place of \"ready\""));
            }
            self.is_ready = true;
        }
        let started = Instant::now();
        let digits: Vec<_> = script.bytes().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.asks, "{}", digits.concat()).map_err(|e| e.to_string())?;
        let head = self.line()?;
        let numbers: Vec<usize> = head.split(' ').flat_map(str::parse).collect();
        let [status, output, errors] = numbers[..] else {
            return Err(format!(
                "said {head:?} in place of a status and two lengths"
            ));
        };
        Ok(Finished {
            line: script.to_owned(),
            status: ExitStatus::from_raw(i32::try_from(status << 8).unwrap_or(-1)),
            stdout: self.text(output)?,
            stderr: self.text(errors)?,
            took: started.elapsed(),
        })
    }

    fn line(&mut self) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line = self.taken(end + 1);
                return Ok(line.trim_end().to_owned());
            }
            self.listen(deadline)?;
        }
    }

    fn text(&mut self, length: usize) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        while self.heard.len() < length {
            self.listen(deadline)?;
        }
        Ok(self.taken(length))
    }

    fn taken(&mut self, length: usize) -> String {
        let bytes: Vec<u8> = self.heard.drain(..length).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for more from the guest.
    fn listen(&mut self, deadline: Instant) -> Result<(), String> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|e| e.to_string())?;
        let mut waiting = [PollFd::new(&self.answers, PollFlags::IN)];
        let ready = poll(&mut waiting, Some(&left)).map_err(|e| e.to_string())?;
        if ready == 0 {
            let heard = String::from_utf8_lossy(&self.heard);
            return Err(format!("said only {heard:?} in {PATIENCE:?}"));
        }
        let mut piece = [0; 4096];
        match rustix::io::read(&self.answers, &mut piece) {
            Ok(0) => Err("is off".to_owned()),
            Ok(count) => {
                self.heard.extend(&piece[..count]);
                Ok(())
            }
            Err(cause) => Err(cause.to_string()),
        }
    }
}
