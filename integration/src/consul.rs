//! A real Consul agent in a namespace of its own on the underlay.
//!
//! Alone, at 192.168.1.5, it is one server in development mode: it keeps its data in memory and is its own leader
//! at once. Three that keep their data in files and elect a leader are a [`crate::ConsulCluster`]. An agent is killed
//! with the thread that started it (`setpriv --pdeathsig`), which in a test is the test's own: so a scenario restarts
//! agents from its main thread, and none outlives it, however it ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::lab::at;
use crate::namespace::Namespace;
use crate::programs::Programs;
use crate::proxy::Proxy;
use crate::run::LIMIT;
use crate::server::Server;
use crate::until::comes_within;

/// Which Consul, and how it is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    Current,
    Oldest,
    /// Current, with access control: nothing without a token.
    Guarded,
}

/// The management token of a guarded Consul.
const MANAGEMENT: &str = "5f1d0a52-0000-4000-8000-5f1d0a520000";

/// An agent that was started; see [`Consul::kill`] and [`Consul::pause`] for what it can suffer.
pub struct Consul {
    agent: Mutex<Child>,
    setup: Setup,
    paused: AtomicBool,
    namespace: Namespace,
}

/// What it takes to start an agent, for the first time or again.
pub(crate) struct Setup {
    pub(crate) program: PathBuf,
    /// Its address on the underlay.
    pub(crate) address: &'static str,
    /// Its own folder: configuration, log, and data if it keeps any.
    pub(crate) folder: String,
    /// Whether it keeps nothing and needs no other server (`-dev`).
    pub(crate) alone: bool,
    pub(crate) guarded: bool,
}

impl Consul {
    #[track_caller]
    pub(crate) fn start(namespace: Namespace, release: Release) -> Consul {
        let mut config = json!({});
        if release == Release::Guarded {
            config["acl"] = json!({
                "enabled": true,
                "default_policy": "deny",
                "tokens": { "initial_management": MANAGEMENT, "agent": MANAGEMENT },
            });
        }
        let setup = Setup {
            program: match release {
                Release::Oldest => Programs::oldest_consul(),
                Release::Current | Release::Guarded => Programs::consul(),
            },
            address: "192.168.1.5",
            folder: "/dev/shm/consul".to_owned(),
            alone: true,
            guarded: release == Release::Guarded,
        };
        let consul = Consul::launch(namespace, setup, config);
        consul.await_leader();
        consul
    }

    /// Starts an agent with `config`, Consul's own words, and does not wait for anything.
    #[track_caller]
    pub(crate) fn launch(namespace: Namespace, setup: Setup, mut config: Value) -> Consul {
        config["bind_addr"] = setup.address.into();
        config["client_addr"] = "0.0.0.0".into();
        // All requests of a host come from one address, and a scenario makes many at once.
        config["limits"] = json!({ "http_max_conns_per_client": 4000 });
        namespace.write(&format!("{}/config.json", setup.folder), config.to_string());
        Consul {
            agent: Mutex::new(spawn(&namespace, &setup)),
            setup,
            paused: AtomicBool::new(false),
            namespace,
        }
    }

    /// Ends the agent at once, with SIGKILL.
    #[track_caller]
    pub fn kill(&mut self) {
        end(&mut self.agent());
        self.paused.store(false, Ordering::Relaxed);
    }

    fn agent(&self) -> MutexGuard<'_, Child> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the killed agent again, on the same address and with the data that it kept; for the thread that will
    /// outlive it.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(!self.is_alive(), "consul is running already");
        *self.agent() = spawn(&self.namespace, &self.setup);
    }

    /// Puts another Consul in the place of this one, which kept its data in memory: empty, and counting its revisions
    /// from the beginning.
    #[track_caller]
    pub fn replace(&self) {
        assert!(self.setup.alone, "a server of a cluster keeps its data");
        let mut agent = self.agent();
        end(&mut agent);
        *agent = spawn(&self.namespace, &self.setup);
        drop(agent);
        self.await_leader();
    }

    /// Stops the agent where it is (SIGSTOP): it accepts connections still, and says nothing.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Lets a paused agent go on.
    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::CONT);
        self.paused.store(false, Ordering::Relaxed);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.agent()), signal).expect("signal consul");
    }

    /// Whether it runs, and is not paused.
    #[track_caller]
    pub fn is_serving(&self) -> bool {
        !self.paused.load(Ordering::Relaxed) && self.is_alive()
    }

    fn is_alive(&self) -> bool {
        matches!(self.agent().try_wait(), Ok(None))
    }

    /// Where its HTTP interface is.
    pub fn address(&self) -> SocketAddr {
        at(&format!("{}:8500", self.setup.address))
    }

    /// Its namespaces.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// One request with the management token if there is one: the status code and the body.
    #[track_caller]
    pub fn request(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let patience = Duration::from_secs(10);
        self.ask(method, target, body, patience)
            .expect("an answer of consul")
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        target: &str,
        body: &str,
        patience: Duration,
    ) -> std::io::Result<(u16, String)> {
        let address = self.address();
        let token = self.management_token().unwrap_or_default();
        self.namespace.net().run(|| {
            let mut connection = TcpStream::connect_timeout(&address, patience)?;
            connection.set_read_timeout(Some(patience))?;
            write!(
                connection,
                "{method} {target} HTTP/1.0\r\nX-Consul-Token: {token}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
            Ok((code.unwrap_or(0), body.to_owned()))
        })
    }

    /// Saves all that Consul holds under a name of the scenario's choice (`consul snapshot save`).
    #[track_caller]
    pub fn save_snapshot(&self, name: &str) {
        self.operate(&["snapshot", "save"], &self.snapshot(name));
    }

    /// Puts Consul back to what it held when the snapshot was taken (`consul snapshot restore`).
    #[track_caller]
    pub fn restore_snapshot(&self, name: &str) {
        self.operate(&["snapshot", "restore"], &self.snapshot(name));
    }

    /// Removes every record of ours, as a slip of the hand would (`consul kv delete -recurse crosshost`).
    #[track_caller]
    pub fn empty(&self) {
        self.operate(&["kv", "delete", "-recurse"], "crosshost");
    }

    fn snapshot(&self, name: &str) -> String {
        format!("{}/{name}.snap", self.setup.folder)
    }

    #[track_caller]
    fn operate(&self, words: &[&str], what: &str) {
        let program = self.setup.program.to_string_lossy();
        let words = [&[&*program], words, &[what]].concat();
        self.namespace.run(&words).ok();
    }

    /// The token that may do everything, of a guarded Consul.
    pub fn management_token(&self) -> Option<&'static str> {
        self.setup.guarded.then_some(MANAGEMENT)
    }

    /// A token of a guarded Consul that has the rights which `rules` (Consul's own words) give.
    #[track_caller]
    pub fn token(&self, name: &str, rules: &str) -> String {
        let policy = json!({ "Name": name, "Rules": rules });
        let made = self.request("PUT", "/v1/acl/policy", &policy.to_string());
        assert_eq!(made.0, 200, "no policy: {made:?}");
        let token = json!({ "Policies": [{ "Name": name }] });
        let (_, answer) = self.request("PUT", "/v1/acl/token", &token.to_string());
        let answer: Value = serde_json::from_str(&answer).expect("a token");
        answer["SecretID"].as_str().expect("a secret").to_owned()
    }

    /// A proxy in front, on port 18500, which remembers every request.
    #[track_caller]
    pub fn proxy(&self) -> Proxy {
        let front = SocketAddr::new(self.address().ip(), 18500);
        Proxy::start(self.namespace.net(), front, self.address())
    }

    /// Something else beside Consul, on `port`: to each that connects it says `bytes` and hangs up, or,
    /// with no bytes to say, hangs on in silence.
    #[track_caller]
    pub fn impostor(&self, port: u16, bytes: &'static [u8]) -> Server {
        let address = SocketAddr::new(self.address().ip(), port);
        Server::start(self.namespace.net(), address, move |mut connection| {
            let _ = connection.read(&mut [0; 8192]);
            if bytes.is_empty() {
                let _ = connection.read_to_end(&mut Vec::new());
            }
            let _ = connection.write_all(bytes);
        })
    }

    /// Waits until the agent knows a leader that can answer.
    #[track_caller]
    pub(crate) fn await_leader(&self) {
        let led = comes_within(LIMIT, || self.has_leader() || !self.is_alive());
        if led.is_none() || !self.is_alive() {
            let log = self.namespace.path(format!("{}/log", self.setup.folder));
            panic!("consul has no leader:\n{:?}", std::fs::read_to_string(log));
        }
    }

    /// Whether a read that only a leader can answer is answered here, within a second.
    pub(crate) fn has_leader(&self) -> bool {
        let asked = self.ask("GET", "/v1/kv/lab?consistent", "", Duration::from_secs(1));
        matches!(asked, Ok((404, _)))
    }
}

#[track_caller]
fn end(agent: &mut Child) {
    agent.kill().expect("kill consul");
    agent.wait().expect("wait for consul");
}

/// Starts the agent; what an earlier one of the same folder logged is kept.
#[track_caller]
fn spawn(namespace: &Namespace, setup: &Setup) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(namespace.path(format!("{}/log", setup.folder)))
        .expect("a log file");
    let mut command = namespace.command("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&setup.program)
        .args(["agent", "-config-file"])
        .arg(format!("{}/config.json", setup.folder))
        .args(setup.alone.then_some("-dev"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("duplicate a file"))
        .stderr(log);
    command.spawn().expect("start consul")
}

impl Drop for Consul {
    fn drop(&mut self) {
        let mut agent = self.agent();
        let _ = agent.kill();
        let _ = agent.wait();
    }
}
