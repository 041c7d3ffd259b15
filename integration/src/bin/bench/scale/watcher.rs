//! Watching hosts without the hosts: many connections to a Consul, each with one blocking query open, in one thread.
//!
//! A query is what the plugins' client sends (`crates/store/src/consul/mod.rs`, `watch`). Answers are read as they come, and
//! only as far understood as it takes to know where they end and at which index the next query waits.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// One watching host.
struct Watcher {
    stream: TcpStream,
    /// The index of the last answer.
    index: u64,
    answer: Answer,
}

/// As much of an answer as is there.
#[derive(Default)]
struct Answer {
    /// Head, as text; ends with the empty line once that has come.
    head: String,
    /// Bytes of the body.
    body: u64,
    /// The body's last few bytes.
    tail: Vec<u8>,
}

/// All of them.
pub struct Herd {
    watchers: Vec<Watcher>,
    /// Path of the prefix that they watch.
    path: String,
    gzip: bool,
}

/// How a herd was answered.
#[derive(Clone, Copy, Default)]
pub struct Answered {
    pub count: u64,
    /// Bytes of all answers, with their heads.
    pub bytes: u64,
    /// From the start of the wait.
    pub first: Duration,
    pub last: Duration,
}

impl Herd {
    /// Connects `count` watchers of `path` from this thread's namespace.
    pub fn connect(consul: SocketAddr, count: usize, path: &str, gzip: bool) -> Herd {
        let watcher = |_| {
            let stream = TcpStream::connect(consul).expect("a connection to consul");
            stream.set_nonblocking(true).expect("a socket");
            Watcher {
                stream,
                index: 0,
                answer: Answer::default(),
            }
        };
        Herd {
            watchers: (0..count).map(watcher).collect(),
            path: path.to_owned(),
            gzip,
        }
    }

    /// Sends everybody's query: for what is there, the first time, else for what is news.
    pub fn ask(&mut self) {
        for watcher in &mut self.watchers {
            let news = match watcher.index {
                0 => String::new(),
                index => format!("&index={index}&wait=300000ms"),
            };
            let encoding = if self.gzip {
                "Accept-Encoding: gzip\r\n"
            } else {
                ""
            };
            let request = format!(
                "GET /v1/kv/{}?recurse={news} HTTP/1.1\r\nHost: consul\r\n{encoding}\r\n",
                self.path
            );
            watcher.answer = Answer::default();
            let sent = watcher.stream.write_all(request.as_bytes());
            sent.expect("a query fits into a socket");
        }
    }

    /// Reads until all have an answer, at most for `limit`.
    pub fn gather(&mut self, limit: Duration) -> Answered {
        let started = Instant::now();
        let mut buffer = vec![0; 256 << 10];
        let mut found = Answered::default();
        let mut waiting: Vec<&mut Watcher> = self.watchers.iter_mut().collect();
        while !waiting.is_empty() && started.elapsed() < limit {
            let mut polled: Vec<_> = waiting
                .iter()
                .map(|it| PollFd::new(&it.stream, PollFlags::IN))
                .collect();
            let left = limit.saturating_sub(started.elapsed());
            let left = Timespec::try_from(left).expect("a short time");
            poll(&mut polled, Some(&left)).expect("poll");
            let ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
            let mut ready = ready.into_iter();
            waiting.retain_mut(|watcher| {
                let is_ready = ready.next().unwrap_or(false);
                if !is_ready || !watcher.read(&mut buffer, &mut found.bytes) {
                    return true;
                }
                found.last = started.elapsed();
                if found.count == 0 {
                    found.first = found.last;
                }
                found.count += 1;
                false
            });
        }
        found
    }
}

impl Watcher {
    /// Takes what is there; whether the answer is complete now.
    fn read(&mut self, buffer: &mut [u8], bytes: &mut u64) -> bool {
        match self.stream.read(buffer) {
            Ok(0) => panic!("consul hung up: {}", self.answer.head),
            Ok(count) => {
                *bytes += count as u64;
                self.answer.take(&buffer[..count]);
            }
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => return false,
            Err(cause) => panic!("consul: {cause}"),
        }
        let complete = self.answer.is_complete();
        if complete {
            assert!(
                self.answer.head.starts_with("HTTP/1.1 200"),
                "{}",
                self.answer.head
            );
            let index = self.answer.field("x-consul-index");
            self.index = index.expect("an index");
        }
        complete
    }
}

impl Answer {
    fn take(&mut self, mut bytes: &[u8]) {
        if !self.head.ends_with("\r\n\r\n") {
            const END: &[u8] = b"\r\n\r\n";
            let end = bytes.windows(END.len()).position(|it| it == END);
            let head = end.map_or(bytes.len(), |end| end + END.len());
            self.head += &String::from_utf8_lossy(&bytes[..head]);
            bytes = &bytes[head..];
        }
        self.body += bytes.len() as u64;
        self.tail.extend(&bytes[bytes.len().saturating_sub(8)..]);
        self.tail.drain(..self.tail.len().saturating_sub(8));
    }

    /// By the length that the head names, or by the last chunk.
    fn is_complete(&self) -> bool {
        if !self.head.ends_with("\r\n\r\n") {
            return false;
        }
        self.field("content-length").map_or_else(
            || self.tail.ends_with(b"\r\n0\r\n\r\n"),
            |length| self.body >= length,
        )
    }

    /// A number of the head.
    fn field(&self, name: &str) -> Option<u64> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        value.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_framing_says() {
        let mut chunked = Answer::default();
        chunked.take(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 42\r\n\r\n2\r\n[]\r\n");
        assert!(!chunked.is_complete());
        chunked.take(b"0\r\n");
        assert!(!chunked.is_complete());
        chunked.take(b"\r\n");
        assert!(chunked.is_complete());
        assert_eq!(chunked.field("x-consul-index"), Some(42));

        let mut counted = Answer::default();
        counted.take(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[]");
        assert!(!counted.is_complete());
        counted.take(b"\n");
        assert!(counted.is_complete());
    }
}
