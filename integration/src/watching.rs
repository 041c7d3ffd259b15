//! The resident watcher of a host, started as its service manager would, and what it costs.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::run::{Finished, Running};
use crate::until::comes_within;

/// What the unit leaves it (`dist/crosshost-sync.service`, `CapabilityBoundingSet=`).
const CAPABILITIES: &str = "-all,+net_admin,+net_raw,+sys_admin,+dac_override";

/// A `crosshost sync --watch` that runs; it is gone with the thread that started it, or when this value is dropped.
pub struct Watching {
    running: Option<Running>,
    manager: UnixDatagram,
    ready: String,
}

impl Host {
    /// Starts the watcher and waits until it says that it is ready.
    #[track_caller]
    pub fn watch(&self) -> Watching {
        self.watch_with(|_| {})
    }

    /// The same, with more in its environment.
    #[track_caller]
    pub fn watch_with(&self, change: impl FnOnce(&mut Command)) -> Watching {
        let socket = format!("/dev/shm/{}-notify", self.name());
        let path = self.namespace().path(&socket);
        let _ = std::fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).expect("a socket as of a service manager");
        let mut command = self.namespace().command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--no-new-privs"])
            .args(["--bounding-set", CAPABILITIES, "--"])
            .arg(self.program("crosshost"))
            .args(["sync", "--watch"])
            .env("NOTIFY_SOCKET", &socket);
        change(&mut command);
        let mut watching = Watching {
            running: Some(Running::start(command, b"")),
            manager,
            ready: String::new(),
        };
        watching.ready = watching.await_told("READY=1", Duration::from_secs(20));
        watching
    }
}

impl Watching {
    fn running(&self) -> &Running {
        self.running.as_ref().expect("it was not stopped")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        self.running().is_alive()
    }

    /// What it told its manager when it was ready.
    pub fn ready(&self) -> &str {
        &self.ready
    }

    /// Waits until it tells its manager something that has these words, and gives all of that.
    #[track_caller]
    pub fn await_told(&self, words: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        let mut told = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let left = left.max(Duration::from_millis(1));
            self.manager.set_read_timeout(Some(left)).expect("a limit");
            let mut bytes = [0; 4096];
            let Ok(count) = self.manager.recv(&mut bytes) else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if text.contains(words) {
                return text;
            }
            told.push(text);
        }
        let said = self.running.as_ref().map(Running::stderr_so_far);
        panic!("no {words:?} in {told:?}; it said: {said:?}");
    }

    /// Waits until `is_so`; more than `limit` fails the test, with what the watcher said. Gives how long it took.
    #[track_caller]
    pub fn until(&self, limit: Duration, what: &str, is_so: impl FnMut() -> bool) -> Duration {
        let took = comes_within(limit, is_so);
        took.unwrap_or_else(|| panic!("not {what} within {limit:?}: {}", self.said()))
    }

    /// Waits until it has looked at what its start brought: until it uses no processor time for half a second.
    #[track_caller]
    pub fn settle(&self) {
        let (mut last, mut since) = (self.cpu(), Instant::now());
        self.until(Duration::from_secs(30), "idle", || {
            let now = self.cpu();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_millis(500)
        });
    }

    /// What it has written to standard error so far.
    pub fn said(&self) -> String {
        self.running().stderr_so_far()
    }

    /// How often a line of that has these words.
    pub fn times_said(&self, words: &str) -> usize {
        let said = self.said();
        said.lines().filter(|line| line.contains(words)).count()
    }

    /// Runs a script on its host while it is stopped (SIGSTOP), so that it sees all of what the script did at once.
    #[track_caller]
    pub fn held(&self, host: &Host, script: &str) {
        let pid = self.pid();
        host.script(&format!("kill -STOP {pid}"));
        host.script(script);
        host.script(&format!("kill -CONT {pid}"));
    }

    /// Tells it to sync now (SIGHUP).
    pub fn hang_up(&self) {
        self.running().hang_up();
    }

    /// Ends it as a service manager does (SIGTERM), and waits for that.
    #[track_caller]
    pub fn stop(&mut self) -> Finished {
        let running = self.running.take().expect("it was not stopped");
        running.terminate();
        running.wait(Duration::from_secs(10))
    }

    /// User and system time so far (proc(5), fields 14 and 15), in the kernel's hundredths of a second.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("a living process");
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let fields = after_name.split(' ').skip(11).take(2);
        let ticks: u64 = fields.filter_map(|it| it.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// The most memory that it has had (`VmHWM`), in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a living process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|it| it.trim().split(' ').next()?.parse::<u64>().ok());
        kibibytes.expect("a peak") * 1024
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.kill();
        }
    }
}
