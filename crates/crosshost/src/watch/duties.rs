//! The duties of the watcher. They follow from the store's answers and from this host's documents, are done one after the other, and
//! stay due until they are done.

use std::collections::BTreeSet;

use ipam_kv::Pool;
use overlay::maintain::repair::Known;

use super::{
    line::{Heard, Records},
    log::Log,
};
use crate::{commands::sync, conflists, session::Session};

/// What the watcher has to do with the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// Everything that `crosshost sync` does.
    pub whole: bool,
    /// Also to write this host's contact.
    pub contact: bool,
    /// To bring the conflists up to date.
    pub conflists: bool,
    /// Networks whose forwarding has to change.
    pub sandboxes: BTreeSet<String>,
    /// Pools of which another host wants something.
    pub pools: BTreeSet<Pool>,
}

impl Duties {
    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        !self.whole && !self.conflists && self.sandboxes.is_empty() && self.pools.is_empty()
    }

    /// How many things wait to be done, beside a sync of everything.
    pub fn len(&self) -> usize {
        usize::from(self.conflists) + self.sandboxes.len() + self.pools.len()
    }

    /// Adds the duties that follow from an answer.
    pub fn hear(&mut self, heard: &Heard) -> Result<(), plugin::Error> {
        self.whole |= heard.rewound;
        let node = heard.node.as_str();
        match &heard.records {
            Records::Nodes(nodes) => {
                let known = Known::load(None)?;
                self.sandboxes.extend(known.behind(nodes));
                // Only this host can repair its record, unless a newer version wrote it.
                let unreadable = nodes.unreadable().find(|(name, _)| *name == node);
                self.whole |= unreadable.is_some_and(|(_, unreadable)| !unreadable.is_newer);
                if !nodes.contains(node) && !self.whole {
                    Log::note(&format!(
                        "node {node}: somebody has removed it; it lives, and registers anew"
                    ));
                    self.whole = true;
                }
            }
            Records::Networks => self.conflists = true,
            Records::Blocks(pool, snapshot) => {
                let network = &pool.network;
                let is_sandbox = pool.data_dir.is_default()
                    && overlay::segment::sandbox::networks()?.contains(network);
                if is_sandbox && Known::load(Some(network))?.is_behind(network, snapshot) {
                    self.sandboxes.insert(network.clone());
                }
                if Pool::all()?.contains(pool) && pool.is_behind(snapshot, node)? {
                    self.pools.insert(pool.clone());
                }
            }
        }
        Ok(())
    }

    /// Does the duties until the store is away; returns whether all were done. A duty that fails for another reason does not stop
    /// the others.
    pub async fn work_off(&mut self, session: &Session, log: &mut Log) -> bool {
        if self.whole && !Box::pin(self.sync(session, log)).await {
            return false;
        }
        let mut all = true;
        if self.conflists {
            match conflists::bring(session).await {
                Ok(brought) => {
                    self.conflists = false;
                    brought.lines.iter().for_each(|line| Log::note(line));
                    match brought.failures.first() {
                        None => log.right("conflists"),
                        Some(failure) => log.wrong("conflists", failure),
                    }
                }
                Err(error) => {
                    log.wrong("conflists", &error.to_string());
                    all = false;
                }
            }
        }
        for network in self.sandboxes.clone() {
            let about = format!("network {network}");
            let (cluster, settings) = (session.cluster(), &session.settings);
            match overlay::maintain::sync::sync_network(&cluster, settings, &network).await {
                Ok(done) => {
                    log.right(&about);
                    changed(done.iter());
                    self.sandboxes.remove(&network);
                }
                Err(error) => {
                    log.wrong(&about, &error.msg);
                    if error.code == cni::code::AGAIN {
                        return false;
                    }
                    all = false;
                }
            }
        }
        for pool in self.pools.clone() {
            let about = format!("addresses of network {pool}");
            match pool.sync(&session.settings).await {
                Ok(failures) => {
                    self.pools.remove(&pool);
                    match failures.first() {
                        None => log.right(&about),
                        Some(failure) => log.wrong(&about, &failure.to_string()),
                    }
                    if failures.iter().any(cluster::Error::is_away) {
                        self.pools.insert(pool);
                        return false;
                    }
                }
                Err(error) => {
                    log.wrong(&about, &error.msg);
                    if error.code == cni::code::AGAIN {
                        return false;
                    }
                    all = false;
                }
            }
        }
        all
    }

    async fn sync(&mut self, session: &Session, log: &mut Log) -> bool {
        let done = match sync::once(session, self.contact).await {
            Ok(done) => done,
            Err(error) => {
                log.wrong("sync", &error.to_string());
                return false;
            }
        };
        changed(done.networks.iter());
        done.conflists.lines.iter().for_each(|line| Log::note(line));
        // A failure that is not the store's stays until something changes on this host.
        match done.late() {
            None => log.right("sync"),
            Some(late) => log.wrong("sync", &late),
        }
        if done.is_away() {
            return false;
        }
        *self = Self::default();
        // A network that could not be brought up to date stays due, and has no lease.
        self.sandboxes = overlay::segment::sandbox::networks()
            .unwrap_or_default()
            .into_iter()
            .filter(|network| done.networks.iter().all(|it| it.network != *network))
            .collect();
        true
    }
}

/// Logs the networks whose forwarding was changed.
pub fn changed<'s>(networks: impl Iterator<Item = &'s overlay::maintain::sync::Synced>) {
    for done in networks.filter(|done| done.changes > 0) {
        Log::note(&sync::line(done));
    }
}
