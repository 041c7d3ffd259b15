//! The watcher's queries of the store: one blocking query for each subject, in a task of its own, repeated for ever.
//!
//! Only the latest answer of each query is kept, so that a burst of changes is one update and memory is bounded. After an answer a
//! query rests, and then asks for everything since: a subject that changes a thousand times a second costs ten answers. A query
//! that fails is repeated after a pause that doubles from one second to thirty and has jitter. The first answer wakes the others.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt,
    rc::Rc,
    time::Duration,
};

use cluster::{NetworkSnapshot, Node};
use ipam_kv::Pool;
use journal::clock::uptime;
use store::Backoff;
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_local},
    time::{sleep, timeout},
};

use crate::session::{Result, Session};

/// How long a query waits at the store. Not too short, because then everything is sent again. Not too long, because only then a
/// store that keeps the connection and does not answer is noticed. (The kernel reports a dead connection within half a minute.)
const WAIT: Duration = Duration::from_mins(1);
/// A watcher without an answer for so long is deaf: the wait, the sixteenth that Consul adds, the rest, and one retry.
pub const DEAF: Duration = Duration::from_secs(90);
/// How long a query of blocks rests after an answer.
const REST: Duration = Duration::from_millis(100);
/// How long a query of nodes rests: contacts of all hosts wake it. Nothing waits for it, because a block's owner is read with the
/// block.
const LONG_REST: Duration = Duration::from_secs(1);

/// The subject of a query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// All hosts.
    Nodes,
    /// All networks.
    Networks,
    /// The blocks of a network.
    Blocks(Pool),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes => f.write_str("watch of nodes"),
            Self::Networks => f.write_str("watch of networks"),
            Self::Blocks(pool) => write!(f, "watch of network {pool}"),
        }
    }
}

/// All records of a subject.
pub enum Records {
    /// Hosts by name.
    Nodes(cluster::Records<String, Node>),
    /// Some network changed. Its records are read with those of removed ones.
    Networks,
    /// Blocks of a network.
    Blocks(Pool, Box<NetworkSnapshot>),
}

/// An answer.
pub struct Heard {
    /// The records.
    pub records: Records,
    /// Whether the store was put back to an earlier state since the last answer.
    pub rewound: bool,
    /// The node's name in the settings with which the store was asked.
    pub node: String,
}

/// Why there was no answer.
pub struct Failure {
    /// A message for a person.
    pub why: String,
    /// Whether the store is away; otherwise it refused.
    pub away: bool,
}

/// How a query ended.
pub type Outcome = std::result::Result<Heard, Failure>;

/// The running queries.
pub struct Line {
    end: Rc<End>,
    queries: BTreeMap<Subject, JoinHandle<()>>,
}

/// What the tasks share.
#[derive(Default)]
struct End {
    session: RefCell<Option<Rc<Session>>>,
    latest: RefCell<BTreeMap<Subject, Outcome>>,
    /// When each query had its last answer, or began, in seconds since boot.
    answered_at: RefCell<BTreeMap<Subject, u64>>,
    wake: Notify,
    /// The number of queries that pause after a failure.
    answered: Notify,
    failing: Cell<bool>,
}

impl Line {
    /// No query yet.
    pub fn new() -> Self {
        Self {
            end: Rc::default(),
            queries: BTreeMap::new(),
        }
    }

    /// Queries these subjects from now on, and no others.
    pub fn listen_to(&mut self, subjects: BTreeSet<Subject>) {
        self.queries.retain(|subject, query| {
            let stays = subjects.contains(subject);
            if !stays {
                query.abort();
                self.end.latest.borrow_mut().remove(subject);
                self.end.answered_at.borrow_mut().remove(subject);
            }
            stays
        });
        for subject in subjects {
            let end = &self.end;
            let mut answered_at = end.answered_at.borrow_mut();
            answered_at.entry(subject.clone()).or_insert_with(uptime);
            self.queries
                .entry(subject)
                .or_insert_with_key(|subject| spawn_local(repeat(subject.clone(), end.clone())));
        }
    }

    /// Restarts all queries, with the current settings and a new connection.
    pub fn hang_up(&mut self) {
        for query in std::mem::take(&mut self.queries).into_values() {
            query.abort();
        }
        self.end.session.take();
    }

    /// When the query that has waited longest had its last answer, in seconds since boot.
    pub fn heard(&self) -> u64 {
        let answered = self.end.answered_at.borrow();
        answered.values().min().copied().unwrap_or_else(uptime)
    }

    /// Waits until there is an answer to [take](Self::take).
    pub async fn woken(&self) {
        self.end.wake.notified().await;
    }

    /// The latest outcome of each query that ended since the last call.
    pub fn take(&self) -> BTreeMap<Subject, Outcome> {
        self.end.latest.take()
    }
}

impl End {
    /// One session for all queries, opened with the settings of that moment.
    fn session(&self) -> Result<Rc<Session>> {
        if let Some(session) = &*self.session.borrow() {
            return Ok(session.clone());
        }
        let session = Rc::new(Session::open()?);
        *self.session.borrow_mut() = Some(session.clone());
        Ok(session)
    }

    fn tell(&self, subject: &Subject, outcome: Outcome) {
        if outcome.is_ok() && self.failing.replace(false) {
            self.answered.notify_waiters();
        }
        let mut latest = self.latest.borrow_mut();
        // A later answer must not hide that the store was put back.
        let rewound = matches!(latest.get(subject), Some(Ok(before)) if before.rewound);
        let outcome = outcome.map(|heard| Heard {
            rewound: heard.rewound || rewound,
            ..heard
        });
        latest.insert(subject.clone(), outcome);
        self.wake.notify_one();
    }
}

async fn repeat(subject: Subject, end: Rc<End>) {
    let mut backoff = pauses();
    loop {
        let failure = match end.session() {
            Ok(session) => ask(&subject, &end, &session, &mut backoff).await,
            Err(error) => Failure {
                why: error.to_string(),
                away: false,
            },
        };
        // The next session reads the settings again.
        end.session.take();
        end.failing.set(true);
        end.tell(&subject, Err(failure));
        let _ = timeout(backoff.pause(), end.answered.notified()).await;
    }
}

/// Repeats a query until it fails.
async fn ask(subject: &Subject, end: &End, session: &Session, backoff: &mut Backoff) -> Failure {
    let mut index = 0;
    loop {
        let (records, next) = match query(subject, session, index).await {
            Ok(answer) => answer,
            Err(error) => {
                return Failure {
                    away: error.is_away(),
                    why: error.to_string(),
                };
            }
        };
        *backoff = pauses();
        end.answered_at
            .borrow_mut()
            .insert(subject.clone(), uptime());
        if next != index {
            let heard = Heard {
                records,
                rewound: next < index,
                node: session.settings.node.clone(),
            };
            end.tell(subject, Ok(heard));
        }
        index = next;
        sleep(match subject {
            Subject::Nodes => LONG_REST,
            Subject::Networks | Subject::Blocks(_) => REST,
        })
        .await;
    }
}

async fn query(
    subject: &Subject,
    session: &Session,
    index: u64,
) -> std::result::Result<(Records, u64), cluster::Error> {
    match subject {
        Subject::Nodes => {
            let (nodes, next) = session.cluster().watch_nodes(index, WAIT).await?;
            Ok((Records::Nodes(nodes), next))
        }
        Subject::Networks => {
            let next = session.cluster().watch_networks(index, WAIT).await?;
            Ok((Records::Networks, next))
        }
        Subject::Blocks(pool) => {
            let cluster = session.cluster().within(&pool.data_dir)?;
            let (news, next) = cluster.watch_blocks(&pool.network, index, WAIT).await?;
            Ok((Records::Blocks(pool.clone(), Box::new(news)), next))
        }
    }
}

fn pauses() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(30))
}
