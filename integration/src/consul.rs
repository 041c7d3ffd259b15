//! A real Consul in a namespace of its own on the underlay, 192.168.1.5.
//!
//! One server in development mode: it keeps its data in memory and is its own leader at once. It is
//! killed with the thread that started it (`setpriv --pdeathsig`), which in a test is the test's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::at;
use crate::programs::Programs;
use crate::proxy::Proxy;
use crate::server::Server;
use crate::space::Space;

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

/// A running agent.
pub struct Consul {
    agent: Child,
    guarded: bool,
    space: Space,
}

impl Consul {
    #[track_caller]
    pub(crate) fn start(space: Space, release: Release) -> Consul {
        let program = match release {
            Release::Oldest => Programs::oldest_consul(),
            Release::Current | Release::Guarded => Programs::consul(),
        };
        // All requests of a host come from one address, and a scenario makes many at once.
        let mut config = json!({ "limits": { "http_max_conns_per_client": 4000 } });
        if release == Release::Guarded {
            config["acl"] = json!({
                "enabled": true,
                "default_policy": "deny",
                "tokens": { "initial_management": MANAGEMENT, "agent": MANAGEMENT },
            });
        }
        space.write("/dev/shm/consul/config.json", config.to_string());
        let log = std::fs::File::create(space.path("/dev/shm/consul/log")).expect("a log file");
        let mut command = space.command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(["agent", "-dev", "-bind=192.168.1.5", "-client=0.0.0.0"])
            .arg("-config-file=/dev/shm/consul/config.json")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate a file"))
            .stderr(log);
        let agent = command.spawn().expect("start consul");
        let mut consul = Consul {
            agent,
            guarded: release == Release::Guarded,
            space,
        };
        consul.await_leader();
        consul
    }

    /// Where its HTTP interface is.
    pub fn address(&self) -> SocketAddr {
        at("192.168.1.5:8500")
    }

    /// Its namespaces.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// One request with the management token if there is one: the status code and the body.
    #[track_caller]
    pub fn request(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        self.ask(method, target, body).expect("an answer of consul")
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> std::io::Result<(u16, String)> {
        let address = self.address();
        let token = self.management_token().unwrap_or_default();
        self.space.net().run(|| {
            let patience = Duration::from_secs(10);
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

    /// The token that may do everything, of a guarded Consul.
    pub fn management_token(&self) -> Option<&'static str> {
        self.guarded.then_some(MANAGEMENT)
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
        Proxy::start(self.space.net(), at("192.168.1.5:18500"), self.address())
    }

    /// Something else beside Consul, on `port`: to each that connects it says `bytes` and hangs up, or,
    /// with no bytes to say, hangs on in silence.
    #[track_caller]
    pub fn impostor(&self, port: u16, bytes: &'static [u8]) -> Server {
        let address = SocketAddr::new(self.address().ip(), port);
        Server::start(self.space.net(), address, move |mut connection| {
            let _ = connection.read(&mut [0; 8192]);
            if bytes.is_empty() {
                let _ = connection.read_to_end(&mut Vec::new());
            }
            let _ = connection.write_all(bytes);
        })
    }

    fn await_leader(&mut self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let asked = self.ask("GET", "/v1/kv/lab?consistent", "");
            if matches!(asked, Ok((404, _))) {
                return;
            }
            let ended = self.agent.try_wait().expect("wait for consul");
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.space.path("/dev/shm/consul/log"));
                panic!("consul has no leader ({asked:?}, {ended:?}):\n{log:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}
