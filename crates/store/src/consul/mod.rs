//! The shared store: a Consul agent, over its HTTP API, with our own client (why:
//! `docs/decisions/0001-consul-client.md`). Reads and writes are transactions (`txn`), except lists of keys; watches are blocking queries, and each
//! of them is repeated as long as that is safe and useful (`retry`).

mod connect;
mod resolve;
mod retry;
mod tls;
mod token;
mod transport;
mod txn;
mod url;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::Method;

use self::retry::Called;
use self::tls::Tls;
use self::transport::{Answer, Ask, Transport};
use self::txn::Pair;
use self::url::Url;
pub use self::url::without_secrets;
use crate::budget::{Budget, random};
use crate::op::{self, MAX_OPS, Op, Outcome};
use crate::{Config, Entry, Error, Key, Snapshot, Store};

/// Longest wait of one blocking query; Consul allows 10 minutes.
const MAX_WAIT: Duration = Duration::from_mins(10);

/// A Consul agent.
pub struct Consul {
    transport: Transport,
    budget: Budget,
    /// Prefixes that the token may read for certain: an empty answer for one of them means that nothing is there.
    readable: RefCell<HashSet<Key>>,
}

impl Consul {
    /// Checks the URL and all settings; reads files, but does not touch the network.
    pub fn open(url: &str, config: &Config) -> Result<Self, Error> {
        let url = Url::parse(url)?;
        let token = token::read(&url, config)?;
        let tls = if url.tls {
            Some(Tls::new(&url, config)?)
        } else {
            None
        };
        Ok(Self {
            transport: Transport::new(url, token, tls),
            budget: Budget::new(config.timeout),
            readable: RefCell::default(),
        })
    }

    async fn transact(
        &self,
        body: Vec<u8>,
        expects: &'static [u16],
        what: String,
    ) -> Result<Called, Error> {
        let (method, path) = (Method::PUT, "/v1/txn".into());
        let ask = Ask {
            method,
            path,
            body: body.into(),
            blocks: Duration::ZERO,
            expects,
            what,
        };
        self.call(&ask).await
    }

    /// The pairs at or below `prefixes`, and others whose keys begin with the same text.
    async fn pairs(&self, prefixes: &[Key]) -> Result<Vec<Pair>, Error> {
        let what = format!("read of {}", names(prefixes.iter()));
        let answer = self
            .transact(txn::read(prefixes), &[200], what)
            .await?
            .answer;
        txn::pairs(&answer.body).map_err(|why| self.garbled(&answer, &why))
    }

    /// Keeps what is at or below one of `prefixes`. If there is nothing, the token may lack the right to see it. That must not be
    /// taken for an empty store.
    async fn entries(&self, prefixes: &[Key], pairs: Vec<Pair>) -> Result<Vec<Entry>, Error> {
        let mut entries = BTreeMap::new();
        for pair in pairs {
            // A key in another form than ours was made by another program, like the folders of Consul's web UI ("a/b/").
            let Ok(key) = Key::new(pair.key.as_str()) else {
                continue;
            };
            if prefixes.iter().any(|prefix| key.is_within(prefix)) {
                let value = pair.value().map_err(|why| self.transport.garbage(why))?;
                let revision = pair.modify_index;
                entries.insert(
                    key.clone(),
                    Entry {
                        key,
                        value,
                        revision,
                    },
                );
            }
        }
        let is_empty = |prefix: &&Key| !entries.keys().any(|key| key.is_within(prefix));
        let mut doubtful: Vec<_> = prefixes.iter().filter(is_empty).collect();
        if !doubtful.is_empty() {
            // Rights are given by folder: if a key is visible, so are the keys beside it.
            let shown: HashSet<_> = entries.keys().filter_map(Key::folder).collect();
            doubtful.retain(|prefix| prefix.folder().is_none_or(|it| !shown.contains(it)));
            self.probe(&doubtful).await?;
        }
        Ok(entries.into_values().collect())
    }

    /// Finds out whether the token may read each of `prefixes`, once for each. For several in one folder one question about the folder
    /// is enough if the token may read all of it.
    async fn probe(&self, prefixes: &[&Key]) -> Result<(), Error> {
        let is_known = |place: &Key| {
            let readable = self.readable.borrow();
            readable.iter().any(|known| place.is_within(known))
        };
        let mut folders: BTreeMap<_, Vec<Key>> = BTreeMap::new();
        for prefix in prefixes.iter().filter(|prefix| !is_known(prefix)) {
            let others = folders.entry(prefix.folder()).or_default();
            others.push((*prefix).clone());
        }
        let mut alone = Vec::new();
        for (folder, keys) in folders {
            let folder = folder.filter(|_| keys.len() > 1);
            match folder {
                Some(folder) => match self.probe_each(&[Key::new(folder)?]).await {
                    Err(Error::Denied { .. }) => alone.extend(keys),
                    answered => answered?,
                },
                None => alone.extend(keys),
            }
        }
        for some in alone.chunks(MAX_OPS / 2) {
            self.probe_each(some).await?;
        }
        Ok(())
    }

    async fn probe_each(&self, prefixes: &[Key]) -> Result<(), Error> {
        let what = format!("read of {}", names(prefixes.iter()));
        let answer = self
            .transact(txn::probe(prefixes), &[409], what)
            .await?
            .answer;
        let objections =
            txn::objections(&answer.body).map_err(|why| self.garbled(&answer, &why))?;
        for (at, prefix) in prefixes.iter().enumerate() {
            // A policy may name the key or what is below it: the right to one of them is enough.
            let denials: Vec<_> = objections
                .iter()
                .filter(|objection| objection.op_index / 2 == at && objection.is_denial())
                .collect();
            if let [denial, _] = denials[..] {
                return Err(self.denied(format!("read of {prefix}: {}", denial.what)));
            }
        }
        self.readable.borrow_mut().extend(prefixes.iter().cloned());
        Ok(())
    }

    fn url(&self) -> String {
        self.transport.url()
    }

    fn denied(&self, what: String) -> Error {
        Error::Denied {
            url: self.url(),
            what,
        }
    }

    fn garbled(&self, answer: &Answer, why: &str) -> Error {
        self.transport
            .garbage(format!("HTTP {}, {why}: {}", answer.status, answer.text()))
    }
}

#[async_trait(?Send)]
impl Store for Consul {
    async fn read(&self, prefixes: &[Key]) -> Result<Vec<Entry>, Error> {
        op::check_prefixes(prefixes)?;
        if prefixes.is_empty() {
            return Ok(Vec::new());
        }
        let pairs = self.pairs(prefixes).await?;
        self.entries(prefixes, pairs).await
    }

    async fn apply(&self, ops: &[Op]) -> Result<Outcome, Error> {
        op::check(ops)?;
        if ops.is_empty() {
            return Ok(Outcome::Done(Vec::new()));
        }
        let mark = random();
        let what = format!("write of {}", names(ops.iter().map(Op::key)));
        let Called { answer, repeated } = self
            .transact(txn::write(ops, mark), &[200, 409], what)
            .await?;
        if answer.status == 200 {
            return txn::outcome(ops, &answer.body).map_err(|why| self.garbled(&answer, &why));
        }
        let objections =
            txn::objections(&answer.body).map_err(|why| self.garbled(&answer, &why))?;
        let mut first = None;
        for objection in &objections {
            let Some(op) = ops.get(objection.op_index) else {
                return Err(self.garbled(&answer, "an objection to no operation"));
            };
            if objection.is_denial() {
                return Err(self.denied(format!("write of {}: {}", op.key(), objection.what)));
            }
            first = first.or(Some(objection.op_index));
        }
        match first {
            None => Err(self.garbled(&answer, "a conflict without a reason")),
            Some(first) if repeated => self.settle(ops, mark, first).await,
            Some(first) => Ok(Outcome::Conflict(first)),
        }
    }

    async fn children(&self, prefix: &Key) -> Result<Vec<String>, Error> {
        let below = format!("{prefix}/");
        let ask = Ask {
            method: Method::GET,
            path: format!("/v1/kv/{below}?keys&separator=/"),
            body: Bytes::new(),
            blocks: Duration::ZERO,
            expects: &[200, 404],
            what: format!("list of {prefix}"),
        };
        let answer = self.call(&ask).await?.answer;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = serde_json::from_slice(&answer.body)
            .map_err(|why| self.garbled(&answer, &why.to_string()))?;
        // "a/b/" means everything below it, beside a key "a/b"; "a/" itself is a folder of Consul's web UI.
        let child = |key: &String| Some(key.strip_prefix(&below)?.trim_end_matches('/').to_owned());
        let mut children: Vec<_> = keys.iter().filter_map(child).collect();
        children.retain(|child| !child.is_empty());
        children.sort_unstable();
        children.dedup();
        Ok(children)
    }

    async fn watch(&self, prefix: &Key, index: u64, wait: Duration) -> Result<Snapshot, Error> {
        self.budget.fill();
        let wait = wait.min(MAX_WAIT);
        let (mut query, mut blocks) = (String::new(), Duration::ZERO);
        // For Consul a wait of zero means the default.
        if index > 0 && wait >= Duration::from_millis(1) {
            query = format!("&index={index}&wait={}ms", wait.as_millis());
            // Consul adds up to a sixteenth, so that not all queries end at once.
            blocks = wait + wait / 16;
        }
        let path = format!("/v1/kv/{prefix}?recurse={query}");
        let what = format!("watch of {prefix}");
        // 404 means that nothing is there, which is a normal answer.
        let ask = Ask {
            method: Method::GET,
            path,
            body: Bytes::new(),
            blocks,
            expects: &[200, 404],
            what,
        };
        let answer = self.call(&ask).await?.answer;
        let Some(index) = answer.index else {
            return Err(self.garbled(&answer, "no X-Consul-Index"));
        };
        let pairs = match answer.status {
            404 => Vec::new(),
            _ => serde_json::from_slice(&answer.body)
                .map_err(|why| self.garbled(&answer, &why.to_string()))?,
        };
        let entries = self.entries(std::slice::from_ref(prefix), pairs).await?;
        // With index 0 each next watch would return at once, for ever.
        Ok(Snapshot {
            entries,
            index: index.max(1),
        })
    }
}

/// The first few of `keys`, for a message.
fn names<'a>(keys: impl ExactSizeIterator<Item = &'a Key>) -> String {
    const SHOWN: usize = 3;
    let more = keys.len().saturating_sub(SHOWN);
    let shown: Vec<_> = keys.take(SHOWN).map(Key::as_str).collect();
    let shown = shown.join(", ");
    if more == 0 {
        shown
    } else {
        format!("{shown} and {more} more")
    }
}
