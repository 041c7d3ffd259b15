//! News: what a host forwards by, and how newer ones take the place of older ones.
//!
//! Verbs read the news side by side, so that they come by them in any order. The copy below `/run` is what the sandbox
//! forwards by. Under the network's lock a verb applies what it has read only if nothing else was applied since, and
//! reads again otherwise; then it keeps the copy, and then it acknowledges. So what this host has acknowledged it
//! never forgets, and an address that it has dropped stays dropped.
//!
//! With the store away the copy goes on being right if it was read as a member: until this host acknowledges newer
//! news no address of it changes its home. Whoever is no member may only flood.

use std::{collections::BTreeSet, net::IpAddr};

use cluster::{Cluster, NetworkSnapshot, NetworkSpec, Resolved};
use ipam::Mac;
use plugin::{Error, readable};

use crate::{
    firewall::table,
    follow::{
        membership::{self, Membership},
        watcher_lease,
    },
    host_link,
    segment::{
        self,
        forwarding::{Trust, desired, translations},
        mac_rewrite,
        sandbox::Sandbox,
    },
    state::host::Host,
};

/// How often news are applied anew because the store had forgotten that this host forwards.
const ATTEMPTS: u32 = 3;

/// One network's news on this host.
pub(crate) struct Follower<'a> {
    pub(crate) host: &'a Host,
    pub(crate) cluster: &'a Cluster<'a>,
    pub(crate) settings: &'a Resolved,
    pub(crate) network: &'a str,
}

/// What a verb starts from.
pub(crate) struct Known {
    /// News that have the network.
    pub(crate) snapshot: NetworkSnapshot,
    /// Whether they are the copy.
    copied: bool,
    /// Whether this node had to be registered: the store may have forgotten what else it knew of it.
    registered: bool,
}

/// What came of asking for news.
pub(crate) enum Heard {
    /// The store is away.
    Away,
    /// The network is another one by now.
    Renewed,
    /// There is nothing that a watcher did not hear.
    Nothing,
    /// News.
    NetworkSnapshot(Box<Reading>),
}

/// A container that is being plugged in.
pub(crate) struct Plugged<'a> {
    /// Its addresses.
    pub(crate) addresses: &'a [IpAddr],
    /// The MAC that it asked for, if that does not follow from them.
    pub(crate) mac: Option<Mac>,
}

/// News, read as a member.
pub(crate) struct Reading {
    /// The news.
    pub(crate) snapshot: NetworkSnapshot,
    /// The revision of the membership before they were read.
    under: u64,
}

impl Follower<'_> {
    /// The copy of the news, if it fits the configuration; else the store's. This alone decides whether an ADD has
    /// to wait for the store before it starts.
    pub(crate) async fn known(&self, spec: &NetworkSpec) -> Result<Known, Error> {
        let fits = |snapshot: &NetworkSnapshot| {
            let network = snapshot.ready_network(self.network);
            network.is_ok_and(|network| {
                network.record.vni.is_some() && spec.agree(&network.record).is_ok()
            })
        };
        if let Some(snapshot) = self.copy()?.filter(fits) {
            return Ok(Known {
                snapshot,
                copied: true,
                registered: false,
            });
        }
        let (snapshot, registered) = self.host.prepare(self.cluster, self.settings, spec).await?;
        Ok(Known {
            snapshot,
            copied: false,
            registered,
        })
    }

    fn copy(&self) -> Result<Option<NetworkSnapshot>, Error> {
        copy(self.host, self.network)
    }

    /// Fresh news for a verb that started from `known`: one read, and before it a join where this host is no member. None
    /// where a watcher keeps the copy fresh. Asks while others are at work: holds no lock.
    pub(crate) async fn fresh(&self, known: &Known) -> Result<Heard, Error> {
        if known.copied && self.is_followed()? {
            return Ok(Heard::Nothing);
        }
        let heard = self.hear(known.registered).await?;
        let Heard::NetworkSnapshot(reading) = heard else {
            return Ok(heard);
        };
        if revision(&reading.snapshot) == revision(&known.snapshot) {
            return Ok(Heard::NetworkSnapshot(reading));
        }
        // What is kept of the other network is of no use to anyone.
        self.host.snapshots.remove(self.network)?;
        Ok(Heard::Renewed)
    }

    /// Whether this host forwards by the copy as a member, and a watcher keeps that fresh.
    fn is_followed(&self) -> Result<bool, Error> {
        let member = membership::load(self.host, self.network)?;
        let follows = |member: &Membership| member.follows && member.joined().is_some();
        Ok(member.as_ref().is_some_and(follows)
            && watcher_lease::is_followed(self.host, self.network)?)
    }

    /// News, read as a member; with `anew` after a join in any case. [`Heard::Renewed`] where the store has no such network.
    pub(crate) async fn hear(&self, anew: bool) -> Result<Heard, Error> {
        let (network, node) = (self.network, &self.settings.node);
        let mut anew = anew;
        for _ in 0..ATTEMPTS {
            let joined = membership::enter(self.host, self.cluster, network, node, anew).await;
            let under = match joined {
                Ok(Some(own)) => own.revision,
                Ok(None) => return Ok(Heard::Renewed),
                Err(error) if error.code == cni::code::AGAIN => return Ok(self.away(&error)),
                Err(error) => return Err(error),
            };
            let (mut snapshot, join) = match self.cluster.snapshot_and_join(network, node).await {
                Ok(heard) => heard,
                Err(error) if error.is_away() => return Ok(self.away(&error)),
                Err(error) => return Err(error.into()),
            };
            if join.is_some() {
                self.recall(&mut snapshot)?;
                return Ok(Heard::NetworkSnapshot(Box::new(Reading {
                    snapshot,
                    under,
                })));
            }
            // Our join went with a network of this name that was removed, or the store forgot it.
            anew = true;
        }
        let why = format!("network {network}: removed or left by others at each attempt to join");
        Err(Error::again(why))
    }

    /// News, if the store still knows that this host forwards, as we know it. One read.
    pub(crate) async fn hear_as_known(&self) -> Result<Option<Box<Reading>>, Error> {
        let member = membership::load(self.host, self.network)?;
        let Some(own) = member.as_ref().and_then(Membership::joined) else {
            return Ok(None);
        };
        let (network, node) = (self.network, &self.settings.node);
        let heard = self.cluster.snapshot_and_join(network, node).await;
        let (mut snapshot, join) = heard?;
        let Some(under) = join.filter(|join| *join == own.revision) else {
            return Ok(None);
        };
        self.recall(&mut snapshot)?;
        Ok(Some(Box::new(Reading { snapshot, under })))
    }

    /// Goes on with the nodes whose records cannot be read by what this host last read of them.
    fn recall(&self, snapshot: &mut NetworkSnapshot) -> Result<(), Error> {
        if snapshot.nodes.unreadable().next().is_some()
            && let Some(copy) = self.copy()?
        {
            snapshot.nodes.remember(&copy.nodes);
        }
        Ok(())
    }

    /// Whether we have acknowledged newer news than these: the store was put back to what it was once.
    pub(crate) fn is_older(&self, reading: &Reading) -> Result<bool, Error> {
        let member = membership::load(self.host, self.network)?;
        let own = member.as_ref().and_then(Membership::joined);
        Ok(own.is_some_and(|own| reading.snapshot.revision() < own.record.seen))
    }

    fn away(&self, why: &dyn std::error::Error) -> Heard {
        let network = self.network;
        cni::log(&format!(
            "network {network}: forwarding from the last news: {why}"
        ));
        Heard::Away
    }

    /// Makes the sandbox forward by what was heard, or by something newer, for a container; the caller holds the
    /// network's lock. `None` if the network is another one by now.
    pub(crate) async fn apply(
        &self,
        sandbox: &Sandbox,
        heard: Heard,
        known: &Known,
        plugged: &Plugged<'_>,
    ) -> Result<Option<usize>, Error> {
        let reading = match heard {
            Heard::Renewed => return Ok(None),
            Heard::Away => return self.go_on(sandbox, known, plugged).await.map(Some),
            // The watcher looks after the entries too.
            Heard::Nothing if sandbox.stood && self.knows(&known.snapshot, plugged) => {
                return Ok(Some(0));
            }
            Heard::NetworkSnapshot(reading) if self.is_current(&reading, known, plugged)? => {
                reading
            }
            outdated => {
                let before = match &outdated {
                    Heard::NetworkSnapshot(old) => revision(&old.snapshot),
                    _ => revision(&known.snapshot),
                };
                match self.hear(false).await? {
                    Heard::NetworkSnapshot(new) if revision(&new.snapshot) == before => new,
                    Heard::Away => return self.go_on(sandbox, known, plugged).await.map(Some),
                    _ => return Ok(None),
                }
            }
        };
        let followed = self.follow(sandbox, reading, plugged.addresses);
        followed.await.map(Some)
    }

    /// Whether nothing was applied, joined or left since the news were read, and they know of the container.
    fn is_current(
        &self,
        reading: &Reading,
        known: &Known,
        plugged: &Plugged<'_>,
    ) -> Result<bool, Error> {
        let member = membership::load(self.host, self.network)?;
        let joined = member.as_ref().and_then(Membership::joined);
        if joined.is_none_or(|own| own.revision != reading.under) {
            return Ok(false);
        }
        let copy = self.copy()?;
        let before = Some(&known.snapshot).filter(|_| known.copied);
        let unchanged = copy.as_ref() == before || copy.as_ref() == Some(&reading.snapshot);
        Ok(unchanged && self.knows(&reading.snapshot, plugged))
    }

    /// Whether news say of a container what it is: that its addresses are here, and which MAC it has.
    fn knows(&self, snapshot: &NetworkSnapshot, plugged: &Plugged<'_>) -> bool {
        // Its MAC was published beside the reading; that of an earlier holder of its address may still be in it.
        let exceptions = snapshot.exceptions();
        let mut macs = plugged.addresses.iter().map(|a| exceptions.get(a).copied());
        self.strays(snapshot, plugged.addresses).is_empty()
            && (snapshot.blocks.is_empty() || macs.all(|mac| mac == plugged.mac))
    }

    /// Those of a container's `addresses` of which the news do not say that they are here.
    fn strays(&self, snapshot: &NetworkSnapshot, addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
        let Some(network) = snapshot
            .network
            .as_ref()
            .filter(|_| !snapshot.blocks.is_empty())
        else {
            return BTreeSet::new();
        };
        let stray = |address: &&IpAddr| {
            network.record.range_of(**address).is_some()
                && snapshot.home(**address) != Some(self.settings.node.as_str())
        };
        addresses.iter().filter(stray).copied().collect()
    }

    /// Makes the sandbox forward by news that were read under the network's lock, or are still current; says how many
    /// entries were not so, and lets the others know. The caller holds the lock.
    pub(crate) async fn follow(
        &self,
        sandbox: &Sandbox,
        reading: Box<Reading>,
        addresses: &[IpAddr],
    ) -> Result<usize, Error> {
        let (mut reading, mut changed) = (reading, 0);
        for _ in 0..ATTEMPTS {
            let local = self.strays(&reading.snapshot, addresses);
            let snapshot = &reading.snapshot;
            let trust = Trust::Homes { local: &local };
            changed += self.bring(sandbox, snapshot, trust).await?;
            self.keep(&reading, &local)?;
            if self.acknowledge(&reading).await? {
                break;
            }
            match self.hear(false).await? {
                Heard::NetworkSnapshot(new)
                    if revision(&new.snapshot) == revision(&reading.snapshot) =>
                {
                    reading = new;
                }
                // What is applied was read before the store took us for a member again.
                _ => {
                    let floods = self.bring(sandbox, &reading.snapshot, Trust::Floods);
                    return Ok(changed + floods.await?);
                }
            }
        }
        Ok(changed)
    }

    /// Lets the nodes of these news send to the sandbox, and makes it forward by them; how many entries were not so.
    async fn bring(
        &self,
        sandbox: &Sandbox,
        snapshot: &NetworkSnapshot,
        trust: Trust<'_>,
    ) -> Result<usize, Error> {
        table::guard(self.host, self.network, sandbox.end, snapshot)?;
        let node = &self.settings.node;
        mac_rewrite::bring(self.host, self.network, &translations(snapshot, node))?;
        let wanted = desired(snapshot, node, sandbox.end.ip(), trust);
        let wanted = host_link::entries(self.host, self.network, wanted)?;
        let wanted = [segment::desired::entries(wanted)];
        sandbox.bring(self.host, &wanted).await
    }

    /// Notes what the sandbox forwards by.
    fn keep(&self, reading: &Reading, local: &BTreeSet<IpAddr>) -> Result<(), Error> {
        if self.copy()?.as_ref() != Some(&reading.snapshot) {
            self.host.keep(self.network, &reading.snapshot)?;
        }
        let stands = |member: &Membership| member.follows && member.local == *local;
        if membership::load(self.host, self.network)?.is_some_and(|member| stands(&member)) {
            return Ok(());
        }
        membership::update(self.host, self.network, |member| {
            let joined = |member: &&mut Membership| {
                member.joined().map(|own| own.revision) == Some(reading.under)
            };
            if let Some(member) = member.as_mut().filter(joined) {
                member.follows = true;
                member.local.clone_from(local);
            }
        })
    }

    /// Lets the others know that the news are applied, if any of them waits for that; whether the store knew that we
    /// forward.
    async fn acknowledge(&self, reading: &Reading) -> Result<bool, Error> {
        let (network, node) = (self.network, &self.settings.node);
        let member = membership::load(self.host, network)?;
        let Some(own) = member.as_ref().and_then(Membership::joined) else {
            return Ok(true);
        };
        if own.revision != reading.under {
            return Ok(true);
        }
        let told = self
            .cluster
            .acknowledge(network, node, &reading.snapshot, own)
            .await;
        let told = match told {
            Ok(told) if told == *own => return Ok(true),
            Ok(told) => told,
            Err(error) if error.is_away() => {
                cni::log(&format!("network {network}: not acknowledged: {error}"));
                return Ok(true);
            }
            // It was removed a moment ago: nobody waits for us any more.
            Err(cluster::Error::NoNetwork(_)) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let acknowledged = told.record.seen > 0;
        membership::update(self.host, network, |member| {
            let older = |member: &&mut Membership| {
                let own = member.joined();
                own.is_some_and(|own| own.revision < told.revision)
            };
            if let Some(member) = member.as_mut().filter(older) {
                member.own = Some(told);
                member.follows &= acknowledged;
            }
        })?;
        Ok(acknowledged)
    }

    /// Without the store: by the copy, as far as it can be relied on, and never away from here for `addresses`.
    async fn go_on(
        &self,
        sandbox: &Sandbox,
        known: &Known,
        plugged: &Plugged<'_>,
    ) -> Result<usize, Error> {
        if let Some(mac) = plugged.mac.filter(|_| !known.snapshot.blocks.is_empty()) {
            let why = "the store is away, and other hosts learn of a MAC that was asked for by it";
            return Err(Error::again(format!("MAC {mac}: {why}")));
        }
        let Some(copy) = self.copy()? else {
            return self.bring(sandbox, &known.snapshot, Trust::Floods).await;
        };
        let strays = self.strays(&copy, plugged.addresses);
        let member = membership::update(self.host, self.network, |member| {
            if let Some(member) = member {
                member.local.extend(strays);
            }
            member.clone()
        })?;
        let trust = member.as_ref().map_or(Trust::Floods, Membership::trust);
        self.bring(sandbox, &copy, trust).await
    }
}

fn revision(snapshot: &NetworkSnapshot) -> Option<u64> {
    snapshot.network.as_ref().map(|network| network.revision)
}

/// The copy of a network's news; one that cannot be read is as good as none.
pub(crate) fn copy(host: &Host, network: &str) -> Result<Option<NetworkSnapshot>, Error> {
    readable(&host.snapshots, network)
}
