//! A Consul server for tests: one process on free loopback ports, with its data in a directory of its own. It ends with the
//! `Agent`, and with the test's thread should the test process be killed.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use store::{Config, Op, open};
use tempfile::TempDir;

use crate::conformance::{key, run};

/// The Consuls that are tested: path below the tools directory.
pub(crate) const NEW: &str = "consul";
pub(crate) const OLD: &str = "consul-1.8.7/usr/bin/consul";

/// A running Consul server.
pub(crate) struct Agent {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    binary: PathBuf,
    process: Mutex<Child>,
}

impl Agent {
    /// Starts one, whose configuration is completed by `more`; `client` is how to reach it.
    pub(crate) fn start(binary: &str, more: Value, client: impl Fn(&Agent) -> Config) -> Self {
        let tools = std::env::var_os("CROSSHOST_TOOLS").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools")),
            PathBuf::from,
        );
        let binary = tools.join(binary);
        assert!(binary.exists(), "no {}: run `make deps`", binary.display());
        let dir = TempDir::new().unwrap();
        // All are taken before one is given back, or one could come twice.
        let listeners: Vec<_> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let ports: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        drop(listeners);
        let mut config = json!({
            "server": true, "bootstrap_expect": 1, "node_name": "test", "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1", "data_dir": dir.path().join("data"), "log_level": "warn",
            "disable_update_check": true, "performance": {"raft_multiplier": 1},
            "limits": {"http_max_conns_per_client": 1000},
            "ports": {"http": ports[0], "serf_lan": ports[1], "server": ports[2], "serf_wan": -1, "dns": -1, "grpc": -1},
        });
        if !binary.ends_with(OLD) {
            config["ports"]["grpc_tls"] = json!(-1);
        }
        merge(&mut config, more, ports[0]);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let process = Mutex::new(launch(&binary, &dir));
        let agent = Self {
            dir,
            port: ports[0],
            binary,
            process,
        };
        agent.wait(&client(&agent));
        agent
    }

    /// One without anything special, at [`Agent::url`].
    pub(crate) fn plain(binary: &str) -> Self {
        Self::start(binary, json!({}), Agent::config)
    }

    pub(crate) fn url(&self) -> String {
        format!("consul://127.0.0.1:{}", self.port)
    }

    /// How to reach a plain one.
    pub(crate) fn config(&self) -> Config {
        Config {
            url: Some(self.url()),
            ..Config::default()
        }
    }

    /// Kills it, and starts it again on the same data and ports.
    pub(crate) fn restart(&self) {
        self.kill();
        *self.process.lock().unwrap() = launch(&self.binary, &self.dir);
        self.wait(&self.config());
    }

    /// Consul's own command, towards this server.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("CONSUL_HTTP_ADDR", format!("127.0.0.1:{}", self.port));
        command
    }

    pub(crate) fn kill(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
    }

    /// Waits until it takes writes; a leader knows no token at first, not even the one in its configuration.
    fn wait(&self, client: &Config) {
        let started = Instant::now();
        loop {
            let op = Op::Delete {
                key: key("ready"),
                revision: 1,
            };
            match run(async { open(client).unwrap().apply(&[op]).await }) {
                Ok(_) => return,
                Err(_) if started.elapsed() < Duration::from_mins(1) => {}
                Err(error) => {
                    let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                    panic!("consul does not come up: {error}\n{log}");
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(binary: &PathBuf, dir: &TempDir) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.path().join("log"))
        .unwrap();
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(binary)
        .args(["agent", "-config-file"])
        .arg(dir.path().join("config.json"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Puts `more` into `config`; the text `PORT` in a place of a number stands for the HTTP port.
fn merge(config: &mut Value, more: Value, port: u16) {
    let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) else {
        return;
    };
    for (name, value) in more {
        let value = if value == "PORT" { json!(port) } else { value };
        match config.get_mut(&name) {
            Some(old) if old.is_object() && value.is_object() => merge(old, value, port),
            _ => drop(config.insert(name, value)),
        }
    }
}
