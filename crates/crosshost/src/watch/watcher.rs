//! The watcher's state, and what wakes it: an answer of the store about nodes or blocks (`line.rs`), a notification of this host's
//! kernel (`kernel.rs`), a time at which something is due, and SIGHUP (`mod.rs`). It decides what to do then.

use std::{collections::BTreeSet, time::Duration};

use cluster::DataDir;
use ipam_kv::Pool;
use journal::clock;
use overlay::follow::watcher_lease::WatcherLease;
use store::Backoff;
use tokio::time::Instant;

use super::{
    duties::{Duties, changed},
    kernel::Kernel,
    line::{DEAF, Line, Subject},
    log::Log,
    orphans::Orphans,
    pace::Pace,
};
use crate::{
    commands::sync::{PORTS, admitted},
    connect,
    session::Session,
};

/// How often this host's kernel is compared with the last snapshots. Needs no store.
const REPAIR: Duration = Duration::from_secs(30);
/// How often everything is synced without a notification: addresses have rested, or a verb could not tell the store everything.
const WHOLE: Duration = Duration::from_mins(10);

/// What the watcher knows, and what is due.
pub struct Watcher {
    watch: WatcherLease,
    line: Line,
    kernel: Kernel,
    pace: Pace,
    orphans: Orphans,
    log: Log,
    duties: Duties,
    pools: BTreeSet<Pool>,
    /// What the store has told us all of.
    heard: BTreeSet<Subject>,
    /// Whether the store is away.
    away: bool,
    /// Whether a first sync was tried.
    tried: bool,
    /// What failed is not tried again before.
    not_before: Instant,
    backoff: Backoff,
    repair: Instant,
    whole: Instant,
    /// Whether this host keeps conflists of all networks.
    conflists: bool,
    /// When this node's contact is due on a network with `reclaimAfter`, in seconds since boot.
    contact: Option<u64>,
}

impl Watcher {
    /// A watcher that knows nothing yet. It begins with a sync.
    pub fn new(watch: WatcherLease) -> Self {
        let now = Instant::now();
        Self {
            watch,
            line: Line::new(),
            kernel: Kernel::default(),
            pace: Pace::new(),
            orphans: Orphans::new(),
            log: Log::default(),
            duties: Duties {
                whole: true,
                contact: true,
                ..Duties::default()
            },
            pools: BTreeSet::new(),
            heard: BTreeSet::new(),
            away: false,
            tried: false,
            not_before: now,
            backoff: pauses(),
            repair: now + REPAIR,
            whole: now + WHOLE,
            conflists: false,
            contact: None,
        }
    }

    /// Reads the settings again and syncs, with a new connection to the store.
    pub fn reload(&mut self) {
        self.hang_up();
        match Session::open() {
            Ok(session) => {
                let (node, store) = (&session.settings.node, session.settings.store_ref());
                Log::note(&format!("settings read again: node {node}, store {store}"));
            }
            Err(error) => self.log.wrong("settings", &error.to_string()),
        }
        self.sync_now();
    }

    /// Restarts the queries. Earlier answers may come from another store, so the lease on all networks ends.
    fn hang_up(&mut self) {
        self.line.hang_up();
        self.heard.clear();
    }

    fn sync_now(&mut self) {
        self.duties.whole = true;
        self.duties.contact = true;
        self.not_before = Instant::now();
        self.away = false;
    }

    /// Checks this host's documents and the clock.
    pub fn look(&mut self) {
        match subjects(&mut self.pools) {
            Ok(mut subjects) => {
                if self.conflists {
                    subjects.insert(Subject::Networks);
                }
                self.line.listen_to(subjects);
            }
            Err(error) => self.log.wrong("this host's documents", &error.msg),
        }
        self.listen();
        let heard = self.watch.heard(self.line.heard(), DEAF);
        if let Err(error) = heard {
            self.log
                .wrong("when the store was heard", &error.to_string());
        }
        if self.whole <= Instant::now() {
            self.whole = Instant::now() + WHOLE;
            self.duties.whole = true;
        }
        if self.contact.is_some_and(|due| due <= clock::uptime()) {
            self.show_up();
        }
    }

    /// Lets the kernel tell of what is here now.
    fn listen(&mut self) {
        match self.kernel.listen() {
            Ok(()) => self.log.right("notices of the kernel"),
            Err(error) => self.log.wrong("notices of the kernel", &error.msg),
        }
    }

    /// Notes on which networks the store has to hear of this node, and when the next is.
    fn show_up(&mut self) {
        let now = clock::uptime();
        self.contact = None;
        for pool in &self.pools {
            // The next repair reports a document that cannot be read.
            let Ok(Some(due)) = pool.contact_due() else {
                continue;
            };
            if due <= now {
                self.duties.pools.insert(pool.clone());
            } else {
                self.contact = Some(self.contact.map_or(due, |other| other.min(due)));
            }
        }
    }

    /// Waits for an answer of the store or a notification of the kernel.
    pub async fn woken(&self) {
        tokio::select! {
            () = self.line.woken() => {}
            () = self.kernel.told() => {}
        }
    }

    /// When what the kernel told is to be looked at.
    pub fn next_look(&self) -> Option<Instant> {
        self.pace.due()
    }

    /// Notes what the store and the kernel have said.
    pub fn hear(&mut self) {
        if self.kernel.take() {
            self.pace.touched(Instant::now());
        }
        for (subject, outcome) in self.line.take() {
            let about = subject.to_string();
            match outcome {
                Ok(heard) => {
                    if std::mem::take(&mut self.away) {
                        Log::note("the store is back");
                        // Verbs could not tell it everything meanwhile, and it may have lost records.
                        self.duties.whole = true;
                        self.not_before = Instant::now();
                    }
                    let before = self.duties.len();
                    match self.duties.hear(&heard) {
                        Ok(()) => {
                            if self.duties.len() > before {
                                // Not behind what failed before it.
                                self.not_before = Instant::now();
                            }
                            self.log.right(&about);
                            self.heard.insert(subject);
                        }
                        Err(error) => {
                            self.log.wrong(&about, &error.msg);
                            self.heard.remove(&subject);
                        }
                    }
                }
                Err(failure) if failure.away => {
                    self.heard.clear();
                    if !std::mem::replace(&mut self.away, true) {
                        Log::note(&format!(
                            "the store is away, this host continues with its last snapshot: {}",
                            failure.why
                        ));
                    }
                }
                Err(failure) => {
                    self.log.wrong(&about, &failure.why);
                    self.heard.remove(&subject);
                }
            }
        }
        self.vouch();
    }

    /// Says which networks forward by all that was heard.
    fn vouch(&mut self) {
        let mut networks = BTreeSet::new();
        if !self.away && !self.duties.whole && self.heard.contains(&Subject::Nodes) {
            let fresh = self.pools.iter().filter(|pool| {
                pool.data_dir.is_default()
                    && self.heard.contains(&Subject::Blocks((*pool).clone()))
                    && !self.duties.sandboxes.contains(&pool.network)
            });
            networks = fresh.map(|pool| pool.network.clone()).collect();
        }
        match self.watch.follows(networks) {
            Ok(()) => self.log.right("what the watcher follows"),
            Err(error) => self
                .log
                .wrong("what the watcher follows", &error.to_string()),
        }
    }

    /// Whether there is work that can be done now.
    pub fn has_work(&self) -> bool {
        self.must_repair() || self.orphans.is_due() || self.can_sync()
    }

    fn must_repair(&self) -> bool {
        let now = Instant::now();
        self.repair <= now || self.pace.due().is_some_and(|due| due <= now)
    }

    fn can_sync(&self) -> bool {
        !self.away && !self.duties.is_empty() && self.not_before <= Instant::now()
    }

    /// Does the work that is due.
    pub async fn work(&mut self) {
        if let Err(error) = admitted() {
            self.log.wrong("layout", &error.to_string());
            let now = Instant::now();
            self.repair = now + REPAIR;
            self.not_before = self.repair;
            self.orphans = Orphans::new();
            self.kernel.take();
            self.pace.looked(now, false);
            self.tried = true;
            return;
        }
        self.log.right("layout");
        if self.must_repair() {
            // Listeners of removed sandboxes go first, because a listener keeps its namespace alive.
            self.listen();
            self.kernel.take();
            let looked = self.repair().await;
            let now = Instant::now();
            self.repair = now + REPAIR;
            match looked {
                Some(was_wrong) => self.pace.looked(now, was_wrong),
                None => self.pace.failed(now),
            }
        }
        if self.orphans.is_due() && self.orphans.sweep(&mut self.log).await {
            // The store has to hear which addresses are free.
            self.duties.whole = true;
        }
        if self.can_sync() {
            let done = match Session::open() {
                Ok(session) => {
                    self.log.right("settings");
                    self.conflists = !session.settings.network.conflist_dirs.is_empty();
                    Box::pin(self.duties.work_off(&session, &mut self.log)).await
                }
                Err(error) => {
                    self.log.wrong("settings", &error.to_string());
                    false
                }
            };
            if done {
                self.backoff = pauses();
            } else {
                self.not_before = Instant::now() + self.backoff.pause();
            }
            self.tried = true;
        }
        self.show_up();
        self.vouch();
    }

    /// Removes what a command has connected and whose container is gone: no runtime sends its DEL.
    async fn sweep(&mut self) {
        match Box::pin(connect::sweep()).await {
            Ok((lines, failures)) => {
                for line in &lines {
                    Log::note(line);
                }
                // The store is told.
                self.duties.whole |= !lines.is_empty();
                match failures.first() {
                    None => self.log.right("connected containers"),
                    Some(failure) => self.log.wrong("connected containers", failure),
                }
            }
            Err(error) => self.log.wrong("connected containers", &error.to_string()),
        }
    }

    /// Repairs our objects; returns whether something was wrong, `None` if it could not be repaired.
    async fn repair(&mut self) -> Option<bool> {
        let mut ports = None;
        match portmap::repair().await {
            Ok(mended) => {
                self.log.right("published ports");
                if mended {
                    Log::note(PORTS);
                }
                ports = Some(mended);
            }
            Err(error) => self.log.wrong("published ports", &error.msg),
        }
        self.sweep().await;
        let session = match Session::open() {
            Ok(session) => session,
            Err(error) => {
                self.log.wrong("settings", &error.to_string());
                return None;
            }
        };
        match overlay::maintain::repair::repair(&session.settings).await {
            Ok(repaired) => {
                let failures = repaired.failures.iter().map(|error| error.msg.as_str());
                match failures.collect::<Vec<_>>().join("; ") {
                    none if none.is_empty() => self.log.right("repair"),
                    why => self.log.wrong("repair", &why),
                }
                changed(repaired.networks.iter());
                if repaired.egress {
                    Log::note("the containers' egress was damaged, and is mended");
                }
                // A connection from an address that this host does not have any more receives nothing.
                if repaired.outdated && !self.duties.whole {
                    self.hang_up();
                    self.duties.whole = true;
                }
                let was_wrong = repaired.egress || !repaired.networks.is_empty();
                let all_mended = repaired.failures.is_empty();
                ports.filter(|_| all_mended).map(|ports| ports || was_wrong)
            }
            Err(error) => {
                self.log.wrong("repair", &error.msg);
                None
            }
        }
    }

    /// The status; `None` before the first sync.
    pub fn status(&self) -> Option<String> {
        let networks = self.pools.len();
        self.tried.then(|| {
            if self.away {
                "the store is away, this host continues with its last snapshot".to_owned()
            } else if let Some(about) = self.log.first() {
                format!("{about}: does not work, see the log")
            } else {
                format!("in sync, {networks} networks here")
            }
        })
    }
}

/// What is to be listened to: the nodes, and the blocks of each network that this host forwards or allocates on.
fn subjects(pools: &mut BTreeSet<Pool>) -> Result<BTreeSet<Subject>, plugin::Error> {
    let sandboxes = overlay::segment::sandbox::networks()?.into_iter();
    let mut all: BTreeSet<Pool> = Pool::all()?.into_iter().collect();
    all.extend(sandboxes.map(|network| Pool {
        data_dir: DataDir::default(),
        network,
    }));
    *pools = all;
    let blocks = pools.iter().cloned().map(Subject::Blocks);
    Ok(blocks.chain([Subject::Nodes]).collect())
}

fn pauses() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(30))
}
