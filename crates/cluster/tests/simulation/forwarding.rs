//! What the interface plugin does with the protocol, beside the allocator: a host joins, forwards by the news, acknowledges
//! what it has dropped, leaves. The rules are those of `crates/overlay/src/news.rs` and `membership.rs`; here the kernel is
//! a copy of the news.

use cluster::{Cluster, Error, Holder, Node};

use crate::{
    scenario::NETWORK,
    site::Site,
    world::{Process, World},
};

/// How often news are applied anew because the store had forgotten that this host forwards.
const ATTEMPTS: u32 = 3;

impl World {
    /// An attachment comes to the sandbox.
    pub async fn enter_sandbox(&self, host: usize, holder: &Holder) {
        let lock = self.host(host).forwarding.lock.clone();
        let _lock = lock.lock().await;
        self.host_mut(host).forwarding.users.insert(holder.clone());
    }

    /// An attachment goes; with the last one the host stops to forward, and says so.
    pub async fn leave_sandbox(&self, cluster: &Cluster<'_>, site: &Site, holder: &Holder) {
        let lock = self.host(site.index).forwarding.lock.clone();
        {
            let _lock = lock.lock().await;
            let mut host = self.host_mut(site.index);
            let forwarding = &mut host.forwarding;
            if forwarding.users.remove(holder) && forwarding.users.is_empty() {
                forwarding.applied = None;
                forwarding.leaving = forwarding.own.take().or(forwarding.leaving.take());
            }
        }
        let _ = self.tell_leave(cluster, site).await;
    }

    /// Tells the store of a leave that it does not know of.
    async fn tell_leave(&self, cluster: &Cluster<'_>, site: &Site) -> Result<(), Error> {
        let leaving = self.host(site.index).forwarding.leaving.clone();
        let Some(own) = leaving else { return Ok(()) };
        cluster
            .leave(NETWORK, &site.host().node, own.revision)
            .await?;
        let mut host = self.host_mut(site.index);
        if host.forwarding.leaving.as_ref() == Some(&own) && site.process.is_alive() {
            host.forwarding.leaving = None;
        }
        Ok(())
    }

    /// Brings what the host forwards to the news of now, if it has a sandbox. `sync`: also where the store may have
    /// forgotten that the host forwards.
    pub async fn refresh(
        &self,
        cluster: &Cluster<'_>,
        site: &Site,
        sync: bool,
    ) -> Result<(), Error> {
        let lock = self.host(site.index).forwarding.lock.clone();
        let locked = lock.lock().await;
        if self.host(site.index).forwarding.users.is_empty() {
            if sync && self.host(site.index).forwarding.leaving.is_none() {
                let node = site.host().node;
                for (network, join) in cluster.survey(&node).await?.joins {
                    cluster.leave(&network, &node, join).await?;
                }
            }
            drop(locked);
            return if sync {
                self.tell_leave(cluster, site).await
            } else {
                Ok(())
            };
        }
        let followed = self.follow(cluster, site, sync).await;
        if followed.is_err() && self.host(site.index).forwarding.own.is_none() {
            // No member: only flooding is right.
            self.apply(site, None);
        }
        followed
    }

    async fn follow(&self, cluster: &Cluster<'_>, site: &Site, sync: bool) -> Result<(), Error> {
        let me = site.host();
        let mut anew = sync && self.register(cluster, site).await?;
        for _ in 0..ATTEMPTS {
            let mut own = self.host(site.index).forwarding.own.clone();
            if own.is_none() || anew {
                // A join that is killed leaves no revision that counts.
                self.change(&site.process, |host| host.forwarding.own = None, site.index);
                self.register(cluster, site).await?;
                let joined = cluster.join(NETWORK, &me.node, &me.boot_id).await?;
                self.change(
                    &site.process,
                    |host| host.forwarding.own = Some(joined.clone()),
                    site.index,
                );
                own = Some(joined);
            }
            let Some(own) = own else { return Ok(()) };
            let (news, join) = cluster.news_and_join(NETWORK, &me.node).await?;
            let known = join == Some(own.revision);
            if sync && !anew && (!known || news.revision() < own.record.seen) {
                anew = true;
                continue;
            }
            anew = false;
            self.apply(site, Some(news.clone()));
            let told = match cluster.acknowledge(NETWORK, &me.node, &news, &own).await {
                Ok(told) => told,
                // The others wait; the next verb tells them.
                Err(error) if error.is_away() => return Ok(()),
                Err(error) => return Err(error),
            };
            self.change(
                &site.process,
                |host| host.forwarding.own = Some(told.clone()),
                site.index,
            );
            if told == own || told.record.seen > 0 {
                return Ok(());
            }
        }
        // What is applied was read before the store took us for a member again.
        self.apply(site, None);
        Ok(())
    }

    /// Makes the node known in this boot; whether that was needed.
    async fn register(&self, cluster: &Cluster<'_>, site: &Site) -> Result<bool, Error> {
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
    fn apply(&self, site: &Site, news: Option<cluster::News>) {
        if !site.process.is_alive() {
            return;
        }
        self.say(|| {
            let by = news
                .as_ref()
                .map(|news| format!("news of {}", news.revision()));
            format!(
                "{} forwards by {}",
                self.spell(&site.process),
                by.unwrap_or("flooding".into())
            )
        });
        self.host_mut(site.index).forwarding.applied = news;
        self.check_forwarding(site.index);
    }

    fn change(&self, process: &Process, what: impl FnOnce(&mut crate::world::Host), index: usize) {
        if process.is_alive() {
            what(&mut self.host_mut(index));
        }
    }
}
