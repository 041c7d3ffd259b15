//! One HTTP exchange with an agent, in bounded time and memory, and what is known if it fails. For a write the question is whether
//! the agent may have received it. [`Failure`] tells that, and `retry` decides by it.
//!
//! A connection is kept for the next exchange. Two exchanges at the same time (a blocking query and a read) have one each.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout, timeout_at};

use super::tls::Tls;
use super::url::Url;
use crate::Error;

/// Largest answer, in bytes. The leases of a whole /16 are about 30 MiB of Consul's JSON.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Time for name lookup, connection and TLS handshake together.
pub(super) const CONNECT: Duration = Duration::from_secs(3);

/// Largest number of connections that are kept.
const KEEP: usize = 2;

/// What to ask.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
    /// How long the agent was asked to wait before it answers.
    pub(super) blocks: Duration,
    /// The HTTP statuses of expected answers.
    pub(super) expects: &'static [u16],
    /// The request in words, with its keys, for messages.
    pub(super) what: String,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    /// `X-Consul-Index`.
    pub(super) index: Option<u64>,
    pub(super) body: Bytes,
}

impl Answer {
    /// The beginning of the body, on one line.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]);
        let words: Vec<_> = text.split_whitespace().collect();
        if words.is_empty() {
            return "(empty)".into();
        }
        words
            .join(" ")
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect()
    }
}

/// Why nothing came back.
pub(super) enum Failure {
    /// Nothing listens there: nothing was sent, and that was clear at once.
    Refused(Error),
    /// No connection in time: nothing was sent.
    Unsent(Error),
    /// The agent may have got the request.
    Lost(Error),
    /// Another attempt would fail in the same way.
    Final(Error),
}

/// The user agent, for Consul's log and proxies: the program and its version.
fn agent() -> HeaderValue {
    let path = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&path).file_name().unwrap_or_default();
    let agent = format!(
        "{}/{}",
        program.to_string_lossy(),
        env!("CARGO_PKG_VERSION")
    );
    HeaderValue::from_str(&agent).unwrap_or(HeaderValue::from_static("crosshost"))
}

type Sender = SendRequest<Full<Bytes>>;

/// The connections to one agent.
pub(super) struct Transport {
    pub(super) url: Url,
    pub(super) tls: Option<Tls>,
    token: Option<HeaderValue>,
    agent: HeaderValue,
    idle: RefCell<Vec<Sender>>,
}

impl Transport {
    pub(super) fn new(url: Url, token: Option<HeaderValue>, tls: Option<Tls>) -> Self {
        Self {
            url,
            token,
            tls,
            agent: agent(),
            idle: RefCell::default(),
        }
    }

    pub(super) fn url(&self) -> String {
        self.url.to_string()
    }

    /// Asks, and waits at most for `limit` for the whole answer.
    pub(super) async fn exchange(&self, ask: &Ask, limit: Duration) -> Result<Answer, Failure> {
        let late = |cause: &str| {
            let (url, after, cause) = (self.url(), limit, cause.into());
            Error::Timeout { url, after, cause }
        };
        let begun = Instant::now();
        let mut sender = match timeout(CONNECT.min(limit), self.sender()).await {
            Ok(sender) => sender?,
            Err(_) => return Err(Failure::Unsent(late("no connection"))),
        };
        match timeout_at(begun + limit, self.talk(&mut sender, ask)).await {
            Ok(Ok(answer)) => {
                let mut idle = self.idle.borrow_mut();
                if idle.len() < KEEP {
                    idle.push(sender);
                }
                Ok(answer)
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Lost(late("connected, but no whole answer"))),
        }
    }

    async fn sender(&self) -> Result<Sender, Failure> {
        while let Some(mut sender) = self.kept() {
            // A connection that the agent has closed meanwhile fails here.
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TokioIo::new(self.connect().await?);
        let handshake = http1::handshake(stream).await;
        let (sender, connection) = handshake.map_err(|error| self.failure(&error))?;
        // The task ends when the sender is dropped, or with the runtime. The caller that waits for an answer gets its errors.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn kept(&self) -> Option<Sender> {
        self.idle.borrow_mut().pop()
    }

    async fn talk(&self, sender: &mut Sender, ask: &Ask) -> Result<Answer, Failure> {
        let request = self.request(ask).map_err(|error| {
            let what = format!("no request for {}: {error}", ask.what);
            Failure::Final(self.garbage(what))
        })?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.failure(&error))?;
        let status = response.status().as_u16();
        let index = response.headers().get("X-Consul-Index");
        let index = index.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let body = body.await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let what = format!("more than {} MiB", MAX_ANSWER >> 20);
                Failure::Final(self.garbage(what))
            } else {
                self.failure(error.as_ref())
            }
        })?;
        let body = body.to_bytes();
        Ok(Answer {
            status,
            index,
            body,
        })
    }

    fn request(&self, ask: &Ask) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(&ask.path)
            .header(HOST, self.url.authority())
            .header(USER_AGENT, &self.agent);
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        request.body(Full::new(ask.body.clone()))
    }

    pub(super) fn garbage(&self, what: String) -> Error {
        let url = self.url();
        Error::Garbage { url, what }
    }

    /// The failure behind a failed handshake or exchange.
    pub(super) fn failure(&self, error: &(dyn StdError + 'static)) -> Failure {
        let url = self.url();
        let mut causes: Vec<String> = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            let cause = error.to_string();
            // An io::Error does not name the error that it carries as its source.
            let carried = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            if carried.is_some_and(<dyn StdError + Send + Sync>::is::<rustls::Error>) {
                return Failure::Final(Error::Tls { url, cause });
            }
            let http = error.downcast_ref::<hyper::Error>();
            if http.is_some_and(hyper::Error::is_parse) {
                return Failure::Final(self.garbage(format!("not HTTP ({cause})")));
            }
            causes.push(cause);
            next = error.source();
        }
        let cause = causes.join(": ");
        Failure::Lost(Error::Unreachable { url, cause })
    }
}
