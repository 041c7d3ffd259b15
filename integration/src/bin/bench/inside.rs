//! The part of the benchmark that lives in a host of the laboratory: it executes what it is told and says what that cost.
//!
//! Entering namespaces costs as much as a plugin, so it must not be in the numbers. The benchmark therefore starts itself
//! once a host, through `nsenter`, and this child does all the host's calls as a runtime does them: one spawn, the
//! configuration through a pipe, one wait. Orders and answers are lines of JSON on its standard input and output.
//!
//! The kernel counts what a process had in memory before its exec as its own, so the answer's peak is never below this
//! process' own size: the line of `/bin/true` shows it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use integration::Host;
use serde::{Deserialize, Serialize};
use wait4::Wait4;

/// The hidden argument that makes the benchmark the part inside.
pub const ARGUMENT: &str = "inside";

/// What to execute.
#[derive(Serialize, Deserialize)]
pub struct Order {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Environment variables beside `PATH` and `LC_ALL`.
    pub variables: BTreeMap<String, String>,
    /// At most what a pipe holds, 64 KiB.
    pub stdin: String,
}

/// What it cost, and what it said.
#[derive(Serialize, Deserialize)]
pub struct Answer {
    pub cost: Cost,
    /// How it ended, if that was not well.
    pub failure: Option<String>,
    pub stdout: String,
    pub stderr: String,
}

/// The cost of one process and of all its children that it waited for.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Cost {
    /// From before the spawn to after the wait.
    pub wall: Duration,
    /// User and system time; the kernel knows the sum to the microsecond, and guesses the two parts from its ticks.
    pub cpu: Duration,
    /// Bytes: the largest resident set of any one of the processes.
    pub peak: u64,
}

/// The benchmark's handle on its part inside one host, which ends when this is dropped.
pub struct Runner {
    host: String,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Runner {
    pub fn start(host: &Host) -> Runner {
        let program = std::env::current_exe().expect("the benchmark's own file");
        let mut child = host
            .space()
            .command(program)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the part inside");
        Runner {
            host: host.name().to_owned(),
            orders: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().expect("a piped standard output")),
            child,
        }
    }

    /// Executes and waits; a failure of the program stops the benchmark with all that it said.
    pub fn run(&mut self, order: &Order) -> Answer {
        let text = serde_json::to_string(order).expect("an order as JSON");
        let orders = self.orders.as_mut().expect("open until dropped");
        writeln!(orders, "{text}").expect("the part inside listens");
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the part inside answers");
        let answer: Answer = serde_json::from_str(&line).unwrap_or_else(|cause| {
            panic!("{}: the part inside said {line:?}: {cause}", self.host)
        });
        if let Some(failure) = &answer.failure {
            let Answer { stdout, stderr, .. } = &answer;
            panic!("{}: {failure}: {text}\n{stdout}\n{stderr}", self.host);
        }
        answer
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

/// The life of the part inside: until nobody has more orders.
pub fn serve() -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let answer = execute(&serde_json::from_str(&line?)?)?;
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &answer)?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
    }
    Ok(())
}

fn execute(order: &Order) -> io::Result<Answer> {
    let mut command = Command::new(&order.program);
    command
        .args(&order.arguments)
        .envs(&order.variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    if let Some(mut stdin) = stdin {
        // A program that reads nothing may have ended already: then there is nobody to tell.
        let _ = stdin.write_all(order.stdin.as_bytes());
    }
    let ended = child.wait4()?;
    let wall = started.elapsed();

    let (mut said, mut complained) = (String::new(), String::new());
    stdout.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut said))?;
    stderr.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut complained))?;
    Ok(Answer {
        cost: Cost {
            wall,
            cpu: ended.rusage.utime + ended.rusage.stime,
            peak: ended.rusage.maxrss,
        },
        failure: (!ended.status.success()).then(|| ended.status.to_string()),
        stdout: said,
        stderr: complained,
    })
}
