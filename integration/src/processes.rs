//! The processes of a container runtime on a host: a process namespace for all that detaches from who started it.
//!
//! Daemons, shims, monitors and containers live in it. Its init waits on a pipe from the test process: it ends with the
//! value, on panic and when the test is killed, and the kernel ends all others with it. Mounts made inside are the host's
//! and the other way round (shared), all but `/proc`. The host name is the host's. The cgroups, which the machine's hosts
//! share, are below one name of each host and removed last.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::host::Host;
use crate::programs::Programs;
use crate::run::{Finished, Running};
use crate::words::Words;

/// How long a command of a runtime may take.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// A process namespace of a host; all that runs in it ends with this value.
pub struct Processes<'host> {
    host: &'host Host,
    cgroup: String,
    /// Waits for the end of the namespace's init, then removes the cgroups.
    anchor: Child,
    init: u32,
}

impl<'host> Processes<'host> {
    /// An empty namespace.
    #[track_caller]
    pub(crate) fn start(host: &'host Host) -> Self {
        let namespace = host.namespace();
        let cgroup = format!("crosshost-{}", namespace.pid());
        namespace.script("mount --make-rshared /");
        let mut command = namespace.command("sh");
        command
            .args(["-uc", ANCHOR, "anchor", &cgroup, host.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut anchor = command.spawn().expect("start a shell");
        let mut byte = [0];
        let ready = anchor
            .stdout
            .as_mut()
            .expect("a pipe")
            .read_exact(&mut byte);
        ready.expect("a namespace of processes");
        let init = only_child(only_child(anchor.id()));
        Processes {
            host,
            cgroup,
            anchor,
            init,
        }
    }

    /// The host.
    pub fn host(&self) -> &'host Host {
        self.host
    }

    /// The cgroup of this host, a name below the root of each hierarchy.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// What `PATH` is in here: the runtimes' programs, then the machine's.
    pub(crate) fn path() -> String {
        let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        format!("{}:{usual}", Programs::runtime_path())
    }

    /// A command that will run among these processes.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let init = self.init.to_string();
        command
            .args(["-t", &init, "-m", "-n", "-p", "-u", "--", program])
            .env_clear()
            .env("PATH", Self::path())
            .env("HOME", "/run")
            .env("LC_ALL", "C");
        command
    }

    /// Starts `words` among them: for many at once.
    #[track_caller]
    pub fn spawn(&self, words: &(impl Words + ?Sized)) -> Running {
        let words = words.words();
        let mut command = self.command(words[0]);
        command.args(&words[1..]);
        Running::start(command, b"")
    }

    /// Runs `words` among them, to the end.
    #[track_caller]
    pub fn run(&self, words: &(impl Words + ?Sized)) -> Finished {
        self.spawn(words).wait(LIMIT)
    }

    /// Runs a shell script among them; any failing line fails the test.
    #[track_caller]
    pub fn script(&self, text: &str) -> String {
        self.run(&["sh", "-euc", text]).ok().stdout
    }

    /// `crosshost WORDS`, where it sees the runtime's processes.
    #[track_caller]
    pub fn crosshost(&self, words: &(impl Words + ?Sized)) -> Finished {
        let program = Programs::product("crosshost");
        self.run(&[&[&*program.to_string_lossy()], &words.words()[..]].concat())
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        drop(self.anchor.stdin.take());
        let _ = self.anchor.wait();
    }
}

/// The one child of a process of the kit.
#[track_caller]
fn only_child(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("a living process");
    children.trim().parse().expect("one child")
}

/// Its words: the name of the cgroups, the host's name. A shell waits for all processes that lost their parent.
const ANCHOR: &str = r#"
host=$2
export host
unshare --pid --fork --kill-child --uts --mount --propagation unchanged -- sh -euc '
    mount --make-rprivate /proc
    mount -t proc proc /proc
    echo $host >/proc/sys/kernel/hostname
    mount --bind /dev/shm/hosts/$host/boot_id /proc/sys/kernel/random/boot_id
    exec 3<&0
    cat <&3 >/dev/null &
    echo
    exec >/dev/null
    wait $!'
for folder in /sys/fs/cgroup/$1 /sys/fs/cgroup/*/$1; do
    test ! -d "$folder" || find "$folder" -depth -type d -exec rmdir {} ';'
done
"#;
