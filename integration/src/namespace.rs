//! A pair of namespaces, mount and network, and the process that holds them open.
//!
//! The holder is `cat`. It answers a byte as soon as it runs, so we know that its namespaces exist, and
//! it ends when its standard input closes: on drop, on panic, and when the test process is killed with
//! SIGKILL, since the kernel then closes the pipe. With the last process of a namespace go its mounts, its
//! named namespaces and its links, so no clean-up code has to run.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::run::{Finished, run};
use crate::words::Words;

/// A mount and a network namespace, alive as long as this value.
pub struct Namespace {
    name: String,
    holder: Child,
    /// Seconds by which the clock since boot is ahead of the machine's.
    ahead: AtomicU64,
}

/// Where a namespace keeps its own clocks: a mount there is the laboratory's.
pub(crate) const CLOCKS: &str = "/dev/shm/clock-";

/// A network namespace that code of the test process can work in.
pub struct Net {
    file: File,
    name: String,
}

impl Namespace {
    /// A new namespace named `name` (for messages), its mounts a private copy of those of `inside`, or of
    /// the machine's own.
    #[track_caller]
    pub fn new(name: &str, inside: Option<&Namespace>) -> Namespace {
        let mut command = match inside {
            Some(namespace) => namespace.command("unshare"),
            None => Command::new("unshare"),
        };
        let mut holder = command
            .args(["-m", "-n", "--propagation", "private", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut byte = [0];
        let answered = holder
            .stdin
            .as_mut()
            .expect("a piped stdin")
            .write_all(b"?")
            .and_then(|()| {
                holder
                    .stdout
                    .as_mut()
                    .expect("a piped stdout")
                    .read_exact(&mut byte)
            });
        assert!(
            answered.is_ok(),
            "no namespaces for {name}: the laboratory needs root (CAP_SYS_ADMIN)"
        );
        Namespace {
            name: name.to_owned(),
            holder,
            ahead: AtomicU64::new(0),
        }
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The holder's process id, by which `ip` and `nsenter` find the namespaces.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that will run inside, with a fixed environment: what a developer has exported, say a
    /// `CONSUL_HTTP_ADDR`, must not reach the product. `nsenter` execs, so the child is the program itself.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().to_string(), "-m", "-n"]);
        if self.ahead.load(Ordering::Relaxed) > 0 {
            let clock = self.path(self.clock());
            command.arg(format!("--time={}", clock.display()));
        }
        command
            .arg("--")
            .arg(program)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C");
        command
    }

    /// Lets the clock that counts since boot (`CLOCK_BOOTTIME`) jump ahead for all that is started in here from now on,
    /// as if so many seconds had gone by in this namespace and in no other: a test need not sit out a rest or a grace. The
    /// time of day stays as it is.
    #[track_caller]
    pub fn let_pass(&self, seconds: u64) {
        let ahead = self.ahead.load(Ordering::Relaxed) + seconds;
        let clock = self.clock();
        // A time namespace that no process lives in, held by the file; a later one hides an earlier one.
        self.script(&format!(
            "test -e {clock} || touch {clock}
             unshare --time={clock} --boottime {ahead} true"
        ));
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// The file that holds this namespace's own clocks.
    fn clock(&self) -> String {
        format!("{CLOCKS}{}", self.name)
    }

    /// Runs `words` inside, to the end.
    #[track_caller]
    pub fn run(&self, words: &(impl Words + ?Sized)) -> Finished {
        let words = words.words();
        let mut command = self.command(words[0]);
        command.args(&words[1..]);
        run(command)
    }

    /// Runs a shell script inside; any failing line fails the test.
    #[track_caller]
    pub fn script(&self, text: &str) {
        self.run(&["sh", "-euc", text]).ok();
    }

    /// The namespace's file tree, as this process can read and write it.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid()))
    }

    /// `path`, which starts with `/` inside, as this process can open it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root().join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Writes a file inside, with the directories above it.
    #[track_caller]
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let file = self.path(path);
        let folder = file.parent().expect("a file in a folder");
        std::fs::create_dir_all(folder).expect("make a folder inside");
        std::fs::write(&file, text).unwrap_or_else(|e| panic!("write {}: {e}", file.display()));
    }

    /// The network namespace's identity, as `/proc/PID/ns/net` links to it.
    #[track_caller]
    pub fn identity(&self) -> String {
        identity_of(&format!("/proc/{}", self.pid())).expect("a living holder")
    }

    /// The network namespace.
    #[track_caller]
    pub fn net(&self) -> Net {
        let path = format!("/proc/{}/ns/net", self.pid());
        Net::open(Path::new(&path), &self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The identities of all network namespaces that some process of this machine lives in.
#[track_caller]
pub fn inhabited() -> BTreeSet<String> {
    let processes = std::fs::read_dir("/proc").expect("/proc");
    processes
        .flatten()
        .filter_map(|process| identity_of(&process.path().to_string_lossy()))
        .collect()
}

fn identity_of(process: &str) -> Option<String> {
    let link = std::fs::read_link(format!("{process}/ns/net")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

impl Net {
    /// Opens a namespace file; `name` is for messages.
    #[track_caller]
    pub fn open(path: &Path, name: &str) -> Net {
        let file = File::open(path).unwrap_or_else(|e| panic!("{name}: {}: {e}", path.display()));
        Net {
            file,
            name: name.to_owned(),
        }
    }

    /// Runs `work` on a thread of its own that lives in the namespace. Sockets that it makes and threads
    /// that it starts stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// How many datagrams this namespace has cut into fragments (`/proc/net/snmp`, Ip: `FragCreates`).
    #[track_caller]
    pub fn fragments_made(&self) -> u64 {
        let table = self.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
        let table = table.expect("the namespace's counters");
        let mut rows = table.lines().filter(|line| line.starts_with("Ip: "));
        let (names, values) = (rows.next().expect("names"), rows.next().expect("values"));
        names
            .split_whitespace()
            .zip(values.split_whitespace())
            .find(|(name, _)| *name == "FragCreates")
            .and_then(|(_, value)| value.parse().ok())
            .expect("a FragCreates counter")
    }

    /// Moves the calling thread, for a thread that stays until it ends.
    pub(crate) fn enter(&self) {
        let kind = Some(LinkNameSpaceType::Network);
        if let Err(cause) = move_into_link_name_space(std::os::fd::AsFd::as_fd(&self.file), kind) {
            panic!("cannot enter {}: {cause}", self.name);
        }
    }
}
