//! The part of the benchmark that lives in a host of the laboratory: it executes what it is told and says what that cost.
//!
//! Entering namespaces costs as much as a plugin, so it must not be in the numbers. The benchmark therefore starts itself
//! once a host, through `nsenter`, and this child does all the host's calls as a runtime does them: one spawn, the
//! configuration through a pipe, one wait. Orders and answers are lines of JSON on its standard input and output. A line
//! may have several orders: those are started one after the other without waiting, as a runtime starts many containers.
//!
//! The kernel counts what a process had in memory before its exec as its own, so the answer's peak is never below this
//! process' own size: the line of `/bin/true` shows it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use integration::{Host, Programs};
use serde::{Deserialize, Serialize};
use serde_json::Value;
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

impl Order {
    /// A program with arguments, and nothing to read.
    pub fn program(program: impl Into<PathBuf>, arguments: &[&str]) -> Order {
        Order {
            program: program.into(),
            arguments: arguments.iter().map(|&it| it.to_owned()).collect(),
            variables: BTreeMap::new(),
            stdin: String::new(),
        }
    }

    /// One verb of a CNI plugin for the interface eth0 of a container.
    pub fn plugin(
        program: &Path,
        verb: &str,
        container: &str,
        netns: String,
        conf: &Value,
    ) -> Order {
        // A plugin finds the others of its own build first.
        let path = Programs::cni_path_of(program.parent().unwrap_or(program));
        let variables = [
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", container.to_owned()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", path),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        Order {
            variables: variables.into(),
            stdin: conf.to_string(),
            ..Order::program(program, &[])
        }
    }
}

/// What came of orders that were executed side by side.
#[derive(Serialize, Deserialize)]
pub struct Answers {
    /// From before the first spawn to after the last wait.
    pub wall: Duration,
    /// One for each order, in their order.
    pub answers: Vec<Answer>,
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
    /// From before the spawn to after the wait, which of several at once is that of their order.
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
            .namespace()
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
        let mut answers = self.run_at_once(std::slice::from_ref(order)).answers;
        answers.remove(0)
    }

    /// Executes all of them side by side and waits for the last; a failure of any stops the benchmark.
    pub fn run_at_once(&mut self, all: &[Order]) -> Answers {
        let text = serde_json::to_string(all).expect("orders as JSON");
        let orders = self.orders.as_mut().expect("open until dropped");
        writeln!(orders, "{text}").expect("the part inside listens");
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the part inside answers");
        let answers: Answers = serde_json::from_str(&line).unwrap_or_else(|cause| {
            panic!("{}: the part inside said {line:?}: {cause}", self.host)
        });
        for (order, answer) in all.iter().zip(&answers.answers) {
            if let Some(failure) = &answer.failure {
                let Answer { stdout, stderr, .. } = answer;
                let text = serde_json::to_string(order).unwrap_or_default();
                panic!("{}: {failure}: {text}\n{stdout}\n{stderr}", self.host);
            }
        }
        answers
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
        let orders: Vec<Order> = serde_json::from_str(&line?)?;
        let answer = execute(&orders)?;
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &answer)?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
    }
    Ok(())
}

/// A process that nobody has waited for.
struct Started {
    at: Instant,
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

fn execute(orders: &[Order]) -> io::Result<Answers> {
    let begun = Instant::now();
    let started = orders.iter().map(start).collect::<io::Result<Vec<_>>>()?;
    let mut ended = Vec::new();
    for one in started {
        let end = one.child.wait4()?;
        ended.push((one.at.elapsed(), end, one.stdout, one.stderr));
    }
    let wall = begun.elapsed();
    let mut answers = Vec::new();
    for (wall, end, stdout, stderr) in ended {
        let (mut said, mut complained) = (String::new(), String::new());
        stdout.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut said))?;
        stderr.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut complained))?;
        answers.push(Answer {
            cost: Cost {
                wall,
                cpu: end.rusage.utime + end.rusage.stime,
                peak: end.rusage.maxrss,
            },
            failure: (!end.status.success()).then(|| end.status.to_string()),
            stdout: said,
            stderr: complained,
        });
    }
    Ok(Answers { wall, answers })
}

fn start(order: &Order) -> io::Result<Started> {
    let mut command = Command::new(&order.program);
    command
        .args(&order.arguments)
        .envs(&order.variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let at = Instant::now();
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing may have ended already: then there is nobody to tell.
        let _ = stdin.write_all(order.stdin.as_bytes());
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    Ok(Started {
        at,
        child,
        stdout,
        stderr,
    })
}
