//! The desk of one verb: the ledger with its locks, the store, and the moves between them.

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use cluster::{Cluster, NetworkSpec, Node, Published, Resolved};
use cni::Error;
use journal::{Attachment, Journal, Lock, clock};

use crate::{
    conf::failed,
    ledger::{Entry, Ledger, Stage, is_of},
};

/// Longest wait for another verb of the same attachment, and for the ledger.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ledger, locks and store.
pub struct Desk<'a> {
    /// The shared records.
    pub cluster: &'a Cluster<'a>,
    /// This node's name.
    pub node: &'a str,
    /// The id of this boot.
    pub boot_id: String,
    network: &'a str,
    ledgers: Journal<Ledger>,
}

impl<'a> Desk<'a> {
    /// The desk for `network`. Touches nothing yet.
    pub fn new(
        cluster: &'a Cluster<'a>,
        settings: &'a Resolved,
        network: &'a str,
    ) -> Result<Self, Error> {
        let boot_id = clock::boot_id().map_err(|error| Error::io(format!("boot id: {error}")))?;
        let ledgers = ledgers(Path::new(journal::ROOT));
        Ok(Self {
            cluster,
            node: &settings.node,
            boot_id,
            network,
            ledgers,
        })
    }

    /// Keeps other verbs of this host off the network's ledger.
    pub fn lock(&self) -> Result<Lock, Error> {
        self.ledgers
            .lock(&format!("ledger-{}", self.network), PATIENCE)
            .map_err(|e| local(&e))
    }

    /// The ledger as it is, `None` if this host has none for the network since its boot. One that cannot be read is as
    /// good as none: the store has what it said.
    pub fn ledger(&self) -> Result<Option<Ledger>, Error> {
        match self.ledgers.load(self.network) {
            Err(error @ journal::Error::Unreadable { .. }) => {
                cni::log(&error.to_string());
                Ok(None)
            }
            loaded => loaded.map_err(|error| local(&error)),
        }
    }

    /// Writes the ledger; the caller holds the [lock](Self::lock).
    pub fn save(&self, ledger: &Ledger) -> Result<(), Error> {
        self.ledgers
            .save(self.network, ledger)
            .map_err(|e| local(&e))
    }

    /// Changes the ledger under its lock, if there is one; returns it as it is then.
    pub fn update(&self, change: impl FnOnce(&mut Ledger)) -> Result<Option<Ledger>, Error> {
        let _lock = self.lock()?;
        let Some(mut ledger) = self.ledger()? else {
            return Ok(None);
        };
        let before = ledger.clone();
        change(&mut ledger);
        if ledger != before {
            self.save(&ledger)?;
        }
        Ok(Some(ledger))
    }

    /// A lease of this node for an attachment.
    pub fn lease(&self, attachment: &Attachment) -> cluster::Lease {
        cluster::Lease {
            node: self.node.to_owned(),
            boot_id: self.boot_id.clone(),
            container: attachment.container.clone(),
            ifname: attachment.ifname.clone(),
            since: clock::unix(),
        }
    }

    /// The ledger, begun from the store if this is the first verb on the network since the boot: the node is made
    /// known, the network is created if the configuration describes one, and this node's leases are taken over;
    /// those of an earlier boot have no container any more and are released. The caller holds the lock.
    pub async fn ready_ledger(&self, spec: &NetworkSpec) -> Result<Ledger, Error> {
        let ledger = match self.ledger()? {
            Some(ledger) if spec.agree(&ledger.network.record).is_ok() => return Ok(ledger),
            // The network may have been removed and made anew since we last looked.
            Some(mut ledger) => {
                self.refresh(spec, &mut ledger).await.map_err(failed)?;
                ledger
            }
            None => self.begin(spec).await.map_err(failed)?,
        };
        self.save(&ledger)?;
        Ok(ledger)
    }

    async fn begin(&self, spec: &NetworkSpec) -> Result<Ledger, cluster::Error> {
        self.tell_unheard().await?;
        let mut news = self.cluster.news(self.network).await?;
        if news
            .nodes
            .get(self.node)
            .is_none_or(|node| node.record.boot_id != self.boot_id)
        {
            let (name, boot_id) = (self.node.to_owned(), self.boot_id.clone());
            self.cluster
                .register(&Node {
                    name,
                    vtep: None,
                    boot_id,
                    machine_id: clock::machine_id(),
                    last_contact: clock::unix(),
                })
                .await?;
        }
        if news.network.is_none() {
            self.cluster.ensure_network(spec).await?;
            news = self.cluster.news(self.network).await?;
        }
        let network = news.ready_network(self.network)?.clone();
        spec.agree(&network.record)?;
        let mut ledger = Ledger::new(self.node, network, &news);
        for (address, lease) in self.cluster.leases(self.network).await? {
            if lease.record.node != self.node {
                continue;
            }
            if lease.record.boot_id == self.boot_id {
                ledger.adopt(address, lease);
            } else {
                self.cluster
                    .release(self.network, address, &lease.record, Some(lease.revision))
                    .await?;
            }
        }
        Ok(ledger)
    }

    /// Reads the news again where the ledger's copy proved old: our blocks, the network, and whether we are known.
    pub async fn refresh(
        &self,
        spec: &NetworkSpec,
        ledger: &mut Ledger,
    ) -> Result<(), cluster::Error> {
        let begun = self.begin(spec).await?;
        (ledger.network, ledger.blocks) = (begun.network, begun.blocks);
        for (address, entry) in begun.leases {
            ledger.leases.entry(address).or_insert(entry);
        }
        Ok(())
    }

    /// Gives addresses back: noted in the ledger first, then released in the store, then free. A store that does not
    /// take the release keeps it noted; the next verb or sync tries again.
    pub async fn give_back(&self, addresses: &[IpAddr]) -> Result<Vec<cluster::Error>, Error> {
        let Some(ledger) = self.update(|ledger| ledger.give_back(addresses))? else {
            return Ok(Vec::new());
        };
        let entries = ledger.unpublished();
        self.settle(
            entries
                .into_iter()
                .filter(|(address, _)| addresses.contains(address))
                .collect(),
        )
        .await
    }

    /// Tells the store what it missed while it was away: releases and leases, as the ledger has them.
    pub async fn replay(&self) -> Result<Vec<cluster::Error>, Error> {
        let Some(ledger) = self.ledger()? else {
            return Ok(Vec::new());
        };
        self.settle(ledger.unpublished()).await
    }

    /// Tells the store of entries that it does not know.
    pub async fn settle(
        &self,
        entries: Vec<(IpAddr, Entry)>,
    ) -> Result<Vec<cluster::Error>, Error> {
        let (mut settled, mut failures) = (Vec::new(), Vec::new());
        for (address, entry) in entries {
            let done = match entry.stage {
                Stage::Freeing(revision) => self
                    .cluster
                    .release(self.network, address, &entry.lease, revision)
                    .await
                    .map(|()| None),
                _ => self.publish_late(address, &entry).await,
            };
            match done {
                Ok(revision) => settled.push((address, entry, revision)),
                Err(error) => {
                    let away = error.is_away();
                    failures.push(error);
                    if away {
                        break;
                    }
                }
            }
        }
        if !settled.is_empty() {
            self.update(|ledger| {
                for (address, entry, revision) in &settled {
                    match revision {
                        None => ledger.forget(*address, &entry.lease, clock::uptime()),
                        Some(revision) => {
                            if let Some(now) = ledger.leases.get_mut(address)
                                && *now == *entry
                            {
                                now.stage = Stage::Held(Some(*revision));
                            }
                        }
                    }
                }
            })?;
        }
        Ok(failures)
    }

    /// Publishes a lease that was given out while the store was away.
    async fn publish_late(
        &self,
        address: IpAddr,
        entry: &Entry,
    ) -> Result<Option<u64>, cluster::Error> {
        let changed = |why: &str| cluster::Error::Contended(format!("lease of {address}: {why}"));
        for _ in 0..2 {
            let ledger = self
                .ledger()
                .ok()
                .flatten()
                .ok_or_else(|| changed("no ledger"))?;
            let guard = ledger
                .guard(&[address])
                .ok_or_else(|| changed("its block is no longer ours"))?;
            match self
                .cluster
                .publish(self.network, &[address], &entry.lease, &guard)
                .await?
            {
                Published::Done(revisions) => return Ok(revisions.first().copied()),
                Published::Taken(_, held) => {
                    return Err(changed(&format!(
                        "the store has it for container {}",
                        held.record.container
                    )));
                }
                // Something about the network changed while the store was away: look again, once.
                Published::Stale => {
                    let news = self.cluster.news(self.network).await?;
                    let network = news.ready_network(self.network)?.clone();
                    let blocks = news.blocks_of(self.node);
                    let learnt =
                        self.update(|ledger| (ledger.network, ledger.blocks) = (network, blocks));
                    learnt.map_err(|error| changed(&error.msg))?;
                }
            }
        }
        Err(changed("the network changes faster than it can be read"))
    }

    /// Releases what was given back on this network when nobody could hear of it.
    pub async fn tell_unheard(&self) -> Result<(), cluster::Error> {
        let documents = unheard();
        let local = |error: journal::Error| cluster::Error::Contended(error.to_string());
        for attachment in documents.all().map_err(local)? {
            if attachment.network == self.network {
                self.release_unknown(|lease| is_of(lease, &attachment))
                    .await?;
                documents.remove(&attachment.hash()).map_err(local)?;
            }
        }
        Ok(())
    }

    /// Finds and releases leases of this node in the store that the ledger does not know: it was lost with `/run`.
    pub async fn release_unknown(
        &self,
        doomed: impl Fn(&cluster::Lease) -> bool,
    ) -> Result<(), cluster::Error> {
        for (address, lease) in self.cluster.leases(self.network).await? {
            if lease.record.node == self.node && doomed(&lease.record) {
                self.cluster
                    .release(self.network, address, &lease.record, Some(lease.revision))
                    .await?;
            }
        }
        Ok(())
    }
}

/// The ledgers of a host, by network.
pub fn ledgers(root: &Path) -> Journal<Ledger> {
    Journal::new(root, "ledger")
}

/// Brings the store up to date with what this host did while it was away. What failed is returned, with its network.
pub async fn sync(
    cluster: &Cluster<'_>,
    settings: &Resolved,
) -> Result<Vec<(String, cluster::Error)>, Error> {
    let ledgers = ledgers(Path::new(journal::ROOT))
        .all()
        .map_err(|error| local(&error))?;
    let pending = unheard().all().map_err(|error| local(&error))?;
    let known = ledgers.into_iter().map(|ledger| ledger.network.record.name);
    let networks: BTreeSet<String> = known
        .chain(pending.into_iter().map(|attachment| attachment.network))
        .collect();
    let mut failures = Vec::new();
    for network in networks {
        let desk = Desk::new(cluster, settings, &network)?;
        let late = desk
            .replay()
            .await?
            .into_iter()
            .chain(desk.tell_unheard().await.err());
        failures.extend(late.map(|failure| (network.clone(), failure)));
    }
    Ok(failures)
}

/// A local document or lock that could not be used: busy is worth another try, the rest is the host's.
pub fn local(error: &journal::Error) -> Error {
    match error {
        journal::Error::Busy { .. } => Error::again(error.to_string()),
        _ => Error::io(error.to_string()),
    }
}

/// Notes that an attachment's addresses are given back, without any store: what DEL can always do. `None` if there is
/// no ledger to note it in.
pub fn give_back_locally(attachment: &Attachment) -> Result<Option<Ledger>, Error> {
    let ledgers = ledgers(Path::new(journal::ROOT));
    let name = &attachment.network;
    let _lock = ledgers
        .lock(&format!("ledger-{name}"), PATIENCE)
        .map_err(|error| local(&error))?;
    let Ok(Some(mut ledger)) = ledgers.load(name) else {
        return Ok(None);
    };
    let addresses = ledger.of(attachment);
    if !addresses.is_empty() {
        ledger.give_back(&addresses);
        ledgers.save(name, &ledger).map_err(|error| local(&error))?;
    }
    Ok(Some(ledger))
}

/// Attachments whose addresses were given back with neither a ledger to note it in nor a store to tell.
pub fn unheard() -> Journal<Attachment> {
    Journal::new(Path::new(journal::ROOT), "unheard")
}

/// Keeps other verbs of the same attachment out.
pub fn lock_attachment(attachment: &Attachment) -> Result<Lock, Error> {
    let ledgers = ledgers(Path::new(journal::ROOT));
    ledgers
        .lock(&format!("ipam-kv-{}", attachment.hash()), PATIENCE)
        .map_err(|error| local(&error))
}
