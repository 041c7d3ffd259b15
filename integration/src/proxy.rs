//! An HTTP proxy in front of Consul that remembers what was asked.
//!
//! A verb makes a bounded number of round trips (invariant 9 of `docs/architecture.md`), and every write is conditional. Both
//! can be seen only between the plugin and Consul. Requests are parsed as far as their framing needs; answers are passed on as they come.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::namespace::Net;
use crate::run::LIMIT;
use crate::server::Server;
use crate::until::until;

/// One HTTP request that passed.
#[derive(Clone, Debug)]
pub struct Request {
    /// The host that asked.
    pub from: IpAddr,
    /// The program that asked: `User-Agent` without the version.
    pub program: String,
    /// GET, PUT, DELETE.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The body, as text.
    pub body: String,
}

/// A running proxy.
pub struct Proxy {
    server: Server,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Request {
    /// The verbs of a transaction's operations; empty for any other request.
    pub fn operations(&self) -> Vec<String> {
        if !self.target.starts_with("/v1/txn") {
            return Vec::new();
        }
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let verbs = body.as_array().into_iter().flatten();
        verbs
            .map(|operation| operation["KV"]["Verb"].as_str().unwrap_or("?").to_owned())
            .collect()
    }

    /// Whether the store is only asked: a GET, or a transaction of reads.
    pub fn is_read(&self) -> bool {
        const READS: [&str; 2] = ["get", "get-tree"];
        let operations = self.operations();
        let only_reads = operations.iter().all(|verb| READS.contains(&verb.as_str()));
        self.method == "GET" || (!operations.is_empty() && only_reads)
    }

    /// Whether a write happens only if the store is as its writer believed: `cas` on a key, or in a
    /// transaction no verb that writes blindly.
    pub fn is_conditional(&self) -> bool {
        const BLIND: [&str; 5] = ["set", "delete", "delete-tree", "lock", "unlock"];
        let operations = self.operations();
        if operations.is_empty() {
            let query = self.target.split_once('?').map_or("", |(_, query)| query);
            return query.split('&').any(|word| word.starts_with("cas="));
        }
        operations
            .iter()
            .all(|verb| !BLIND.contains(&verb.as_str()))
    }
}

impl Proxy {
    #[track_caller]
    pub(crate) fn start(net: Net, address: SocketAddr, upstream: SocketAddr) -> Proxy {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        let server = Server::start(net, address, move |client| {
            // A connection that breaks is the plugin's affair, not the laboratory's.
            let _ = carry(client, upstream, &record);
        });
        Proxy { server, seen }
    }

    /// The address that hosts use in place of Consul's.
    pub fn url(&self) -> String {
        format!("consul://{}", self.server.address())
    }

    /// Waits until there is a request of `program` since the last [`Proxy::take`].
    #[track_caller]
    pub fn await_request_of(&self, program: &str) {
        until(LIMIT, &format!("asked by {program}"), || {
            let seen = self.seen.lock().expect("no panic while recording");
            seen.iter().any(|request| request.program == program)
        });
    }

    /// The requests since the last call.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.seen.lock().expect("no panic while recording"))
    }
}

/// Carries one client connection until either side closes it.
fn carry(
    mut client: TcpStream,
    upstream: SocketAddr,
    seen: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let from = client.peer_addr()?.ip();
    let mut consul = TcpStream::connect(upstream)?;
    // What waits for more to send with it makes a time of its own.
    for stream in [&client, &consul] {
        stream.set_nodelay(true)?;
    }
    let (mut answers, mut asking) = (consul.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut asking);
        let _ = asking.shutdown(std::net::Shutdown::Both);
    });
    let mut reader = BufReader::new(&mut client);
    while let Some((head, body)) = next_request(&mut reader)? {
        let mut words = head.split(' ').map(str::to_owned);
        let (method, target) = (words.next(), words.next());
        seen.lock()
            .expect("no panic while recording")
            .push(Request {
                from,
                program: program(&head),
                method: method.unwrap_or_default(),
                target: target.unwrap_or_default(),
                body: String::from_utf8_lossy(&body).into_owned(),
            });
        consul.write_all(head.as_bytes())?;
        consul.write_all(&body)?;
    }
    consul.shutdown(std::net::Shutdown::Both)
}

/// What the head says of who asks.
fn program(head: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut named = lines.filter(|(key, _)| key.eq_ignore_ascii_case("user-agent"));
    let agent = named.next().map_or("", |(_, agent)| agent.trim());
    agent.split('/').next().unwrap_or_default().to_owned()
}

/// Reads one request: its head with the empty line, and its body, framed by Content-Length only.
fn next_request(reader: &mut impl BufRead) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let start = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        let line = head[start..].trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        assert!(
            !line.starts_with("transfer-encoding:"),
            "the laboratory's proxy knows Content-Length only"
        );
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((head, body)))
}
