//! What the interface plugin does with the protocol, beside the allocator: a host joins, forwards by the news, acknowledges
//! what it has dropped, leaves. The rules are those of `crates/overlay/src/follow/follower.rs` and `membership.rs`; here the kernel is
//! a copy of the news.

use cluster::{Acknowledgement, Cluster, Error, LeaseOwner, Node, Versioned};

use crate::{scenario::network_of, site::Site, world::World};

/// How often news are applied anew because the store had forgotten that this host forwards.
const ATTEMPTS: u32 = 3;

impl World {
    /// An attachment comes to the sandbox.
    pub async fn enter_sandbox(&self, host: usize, owner: &LeaseOwner) {
        let network = network_of(owner);
        let lock = self.host(host).part(network).forwarding.lock.clone();
        let _lock = lock.lock().await;
        let mut host = self.host_mut(host);
        let users = &mut host.part_mut(network).forwarding.users;
        users.insert(owner.clone());
    }

    /// An attachment goes; with the last one the host stops to forward, and says so.
    pub async fn leave_sandbox(&self, cluster: &Cluster<'_>, site: &Site, owner: &LeaseOwner) {
        let network = network_of(owner);
        let lock = self.host(site.index).part(network).forwarding.lock.clone();
        {
            let _lock = lock.lock().await;
            let mut host = self.host_mut(site.index);
            let forwarding = &mut host.part_mut(network).forwarding;
            if forwarding.users.remove(owner) && forwarding.users.is_empty() {
                forwarding.applied = None;
                forwarding.leaving = forwarding.own.take().or(forwarding.leaving.take());
            }
        }
        let _ = self.tell_leave(cluster, site, network).await;
    }

    /// Tells the store of a leave that it does not know of.
    async fn tell_leave(
        &self,
        cluster: &Cluster<'_>,
        site: &Site,
        network: &str,
    ) -> Result<(), Error> {
        let leaving = self.leaving(site, network);
        let Some(own) = leaving else { return Ok(()) };
        let node = site.host().node;
        cluster.leave(network, &node, own.revision).await?;
        let mut host = self.host_mut(site.index);
        let leaving = &mut host.part_mut(network).forwarding.leaving;
        if leaving.as_ref() == Some(&own) && site.process.is_alive() {
            *leaving = None;
        }
        Ok(())
    }

    /// Brings what the host forwards to the news of now, if it has a sandbox. `sync`: also where the store may have
    /// forgotten that the host forwards.
    pub async fn refresh(
        &self,
        cluster: &Cluster<'_>,
        site: &Site,
        network: &str,
        sync: bool,
    ) -> Result<(), Error> {
        let lock = self.host(site.index).part(network).forwarding.lock.clone();
        let locked = lock.lock().await;
        let idle = self
            .host(site.index)
            .part(network)
            .forwarding
            .users
            .is_empty();
        if idle {
            if sync && self.leaving(site, network).is_none() {
                let node = site.host().node;
                if let Some(join) = cluster.node_view(&node).await?.joins.get(network) {
                    cluster.leave(network, &node, *join).await?;
                }
            }
            drop(locked);
            return if sync {
                self.tell_leave(cluster, site, network).await
            } else {
                Ok(())
            };
        }
        let followed = self.follow(cluster, site, network, sync).await;
        let host = self.host(site.index);
        let member = host.part(network).forwarding.own.is_some();
        drop(host);
        if followed.is_err() && !member {
            // No member: only flooding is right.
            self.apply(site, network, None);
        }
        followed
    }

    async fn follow(
        &self,
        cluster: &Cluster<'_>,
        site: &Site,
        network: &str,
        sync: bool,
    ) -> Result<(), Error> {
        let me = site.host();
        let mut anew = sync && self.register(cluster, site).await?;
        for _ in 0..ATTEMPTS {
            let mut own = self.own(site, network);
            if own.is_none() || anew {
                // A join that is killed leaves no revision that counts.
                self.note(site, network, None);
                self.register(cluster, site).await?;
                let joined = match cluster.join(network, &me.node, &me.boot_id).await {
                    // Nobody forwards on what is not there.
                    Err(Error::NoNetwork(_)) => {
                        self.apply(site, network, None);
                        return Ok(());
                    }
                    joined => joined?,
                };
                self.note(site, network, Some(&joined));
                own = Some(joined);
            }
            let Some(own) = own else { return Ok(()) };
            let (snapshot, join) = cluster.snapshot_and_join(network, &me.node).await?;
            let older = join != Some(own.revision) || snapshot.revision() < own.record.seen;
            // Without a join the network is another of this name by now, or the store forgot it.
            if !anew && (join.is_none() || sync && older) {
                anew = true;
                continue;
            }
            anew = false;
            self.apply(site, network, Some(snapshot.clone()));
            let told = match cluster
                .acknowledge(network, &me.node, &snapshot, &own)
                .await
            {
                Ok(told) => told,
                // The others wait; the next verb tells them.
                Err(error) if error.is_away() => return Ok(()),
                Err(Error::NoNetwork(_)) => {
                    self.note(site, network, None);
                    self.apply(site, network, None);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            self.note(site, network, Some(&told));
            if told == own || told.record.seen > 0 {
                return Ok(());
            }
        }
        // What is applied was read before the store took us for a member again.
        self.apply(site, network, None);
        Ok(())
    }

    /// Makes the node known in this boot; whether that was needed.
    pub async fn register(&self, cluster: &Cluster<'_>, site: &Site) -> Result<bool, Error> {
        let me = site.host();
        let nodes = cluster.nodes().await?;
        let known = nodes.known(&me.node);
        if known.is_some_and(|node| node.record.boot_id == me.boot_id) {
            return Ok(false);
        }
        let node = Node {
            name: me.node,
            vtep: None,
            boot_id: me.boot_id,
            machine_id: me.machine_id,
            last_contact: cluster::Clock::unix(site),
            version: None,
            commit: None,
        };
        cluster.register(&node).await?;
        Ok(true)
    }

    /// The host forwards by these news from now on.
    fn apply(&self, site: &Site, network: &str, snapshot: Option<cluster::NetworkSnapshot>) {
        if !site.process.is_alive() {
            return;
        }
        self.say(|| {
            let by = snapshot
                .as_ref()
                .map(|snapshot| format!("news of {}", snapshot.revision()));
            format!(
                "{} forwards by {}",
                self.spell(&site.process),
                by.unwrap_or("flooding".into())
            )
        });
        let mut host = self.host_mut(site.index);
        host.part_mut(network).forwarding.applied = snapshot;
        drop(host);
        self.check_forwarding(site.index);
    }

    fn leaving(&self, site: &Site, network: &str) -> Option<Versioned<Acknowledgement>> {
        let host = self.host(site.index);
        host.part(network).forwarding.leaving.clone()
    }

    fn own(&self, site: &Site, network: &str) -> Option<Versioned<Acknowledgement>> {
        let host = self.host(site.index);
        host.part(network).forwarding.own.clone()
    }

    fn note(&self, site: &Site, network: &str, own: Option<&Versioned<Acknowledgement>>) {
        if site.process.is_alive() {
            let mut host = self.host_mut(site.index);
            host.part_mut(network).forwarding.own = own.cloned();
        }
    }
}
