//! The follower: carries out what the forwarder (`cluster::forwarder`) decides, on this host and in the store.
//!
//! The machines there decide what happens in which order. Here are the store's calls, the documents below `/run`, and the kernel.
//! Verbs read at the same time without a lock. They apply what they read under the network's lock.

use cluster::{
    Cluster, NetworkSnapshot, NetworkSpec, Resolved,
    forwarder::{
        Doubt, Forwarder, Input, Known, Leaver, Machine, Membership, Output, Plugged, Reader,
        Reading, Step, Trust, Update,
    },
};
use plugin::{Error, readable};

use crate::{
    firewall::table,
    follow::{membership, watcher_lease},
    host_link,
    segment::{
        self,
        forwarding::{desired, translations},
        mac_rewrite,
        sandbox::Sandbox,
    },
    state::host::Host,
};

/// One network on this host.
pub(crate) struct Follower<'a> {
    pub(crate) host: &'a Host,
    pub(crate) cluster: &'a Cluster<'a>,
    pub(crate) settings: &'a Resolved,
    pub(crate) network: &'a str,
}

impl Follower<'_> {
    /// The copy of the network's records, if it fits the configuration; else the store's. This alone decides whether an ADD
    /// has to wait for the store before it starts.
    pub(crate) async fn known(&self, spec: &NetworkSpec) -> Result<Known, Error> {
        let fits = |copy: &NetworkSnapshot| {
            let network = copy.ready_network(self.network);
            network.is_ok_and(|network| {
                network.record.vni.is_some() && spec.agree(&network.record).is_ok()
            })
        };
        if let Some(snapshot) = copy(self.host, self.network)?.filter(fits) {
            return Ok(Known {
                snapshot,
                copied: true,
                registered: false,
            });
        }
        let prepared = self.host.prepare(self.cluster, self.settings, spec);
        let (snapshot, registered) = prepared.await?;
        Ok(Known {
            snapshot,
            copied: false,
            registered,
        })
    }

    /// A fresh snapshot for an ADD that began with `known`: one read, and before it a join where this host is no member.
    /// Nothing is asked where a watcher keeps the copy fresh. Holds no lock.
    pub(crate) async fn fresh(&self, known: &Known) -> Result<Update, Error> {
        if known.copied && self.is_followed()? {
            return Ok(Update::Unchanged);
        }
        let update = self.read(known.registered).await?;
        let is_snapshot = matches!(update, Update::Snapshot(_));
        let update = update.of_network(known);
        if is_snapshot && matches!(update, Update::Replaced) {
            // The snapshot is of an earlier network of this name.
            self.host.snapshots.remove(self.network)?;
        }
        Ok(update)
    }

    /// A snapshot for an ADD; with `anew` after a join in any case.
    pub(crate) async fn read(&self, anew: bool) -> Result<Update, Error> {
        let update = self.run(Reader::verb(self.network, anew), None).await?;
        if let Update::StoreAway(why) = &update {
            let network = self.network;
            cni::log(&format!(
                "network {network}: forwards by the last snapshot: {why}"
            ));
        }
        Ok(update)
    }

    /// Whether this host forwards by the copy as a member, and a watcher keeps that fresh.
    fn is_followed(&self) -> Result<bool, Error> {
        let member = membership::load(self.host, self.network)?;
        let follows = |member: &Membership| member.follows && member.joined().is_some();
        Ok(member.as_ref().is_some_and(follows)
            && watcher_lease::is_followed(self.host, self.network)?)
    }

    /// Makes the sandbox forward by what an ADD has read, or by something newer; the caller holds the network's lock. How
    /// many entries were not so; `None` if the network is another one by now.
    pub(crate) async fn add(
        &self,
        sandbox: &Sandbox,
        update: Update,
        known: &Known,
        plugged: Plugged<'_>,
    ) -> Result<Option<usize>, Error> {
        let (network, node) = (self.network, self.settings.node.as_str());
        let step = Forwarder::add(network, node, update, known, plugged, sandbox.stood)?;
        self.run(step, Some(sandbox)).await
    }

    /// A snapshot for a sync; the caller holds the network's lock.
    pub(crate) async fn read_for_sync(&self, doubt: Doubt) -> Result<Update, Error> {
        self.run(Reader::sync(self.network, doubt), None).await
    }

    /// Makes the sandbox forward by a snapshot that was read under the network's lock; how many entries were not so.
    pub(crate) async fn sync(
        &self,
        sandbox: &Sandbox,
        reading: Box<Reading>,
    ) -> Result<usize, Error> {
        let step = Forwarder::sync(self.network, &self.settings.node, reading);
        let changed = self.run(step, Some(sandbox)).await?;
        Ok(changed.unwrap_or_default())
    }

    /// The same without a snapshot: the sandbox floods where this host is no member any more.
    pub(crate) async fn sync_alone(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let step = Forwarder::sync_alone(self.network, &self.settings.node);
        self.run(step, Some(sandbox)).await.map(drop)
    }

    /// Tells the store that this host has left the network, if that is still to be told.
    pub(crate) async fn tell_leave(&self) -> Result<(), Error> {
        self.run(Leaver::verb(), None).await
    }

    /// Runs a machine to its end.
    async fn run<M: Machine>(
        &self,
        mut step: Step<M>,
        sandbox: Option<&Sandbox>,
    ) -> Result<M::Outcome, Error> {
        loop {
            match step {
                Step::Next(machine) => {
                    let input = self.perform(machine.output(), sandbox).await?;
                    step = machine.input(input)?;
                }
                Step::Finished(outcome) => return Ok(outcome),
            }
        }
    }

    async fn perform(&self, output: Output<'_>, sandbox: Option<&Sandbox>) -> Result<Input, Error> {
        let (host, cluster) = (self.host, self.cluster);
        let (network, node) = (self.network, self.settings.node.as_str());
        let asked = match output {
            Output::Load => {
                return Ok(Input::Documents {
                    membership: membership::load(host, network)?,
                    copy: copy(host, network)?.map(Box::new),
                });
            }
            Output::Change(change) => {
                return membership::change(host, network, change).map(Input::Membership);
            }
            Output::Apply { snapshot, trust } => {
                let gone = || Error::io(format!("network {network}: no sandbox to forward in"));
                let sandbox = sandbox.ok_or_else(gone)?;
                let applied = self.apply(sandbox, snapshot, trust).await?;
                return Ok(Input::Applied(applied));
            }
            Output::Keep(snapshot) => {
                if copy(host, network)?.as_ref() != Some(snapshot) {
                    host.save_snapshot(network, snapshot)?;
                }
                return Ok(Input::Done);
            }
            Output::Join => {
                let boot_id = journal::clock::boot_id();
                let boot_id = boot_id.map_err(|error| Error::io(format!("boot id: {error}")))?;
                let joined = cluster.join(network, node, &boot_id).await;
                joined.map(Input::Joined)
            }
            Output::Read => {
                let read = cluster.snapshot_and_join(network, node).await;
                read.map(|(snapshot, join)| Input::Read {
                    snapshot: Box::new(snapshot),
                    join,
                })
            }
            Output::Acknowledge { snapshot, own } => {
                let told = cluster.acknowledge(network, node, snapshot, own).await;
                if let Some(error) = told.as_ref().err().filter(|error| error.is_away()) {
                    cni::log(&format!("network {network}: not acknowledged: {error}"));
                }
                told.map(Input::Acknowledged)
            }
            Output::Leave { revision } => {
                let left = cluster.leave(network, node, revision).await;
                left.map(|()| Input::Done)
            }
        };
        match asked {
            Ok(input) => Ok(input),
            Err(cluster::Error::NoNetwork(_)) => Ok(Input::NoNetwork),
            Err(error) if error.is_away() => Ok(Input::StoreAway(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the members of a snapshot send to the sandbox, and makes it forward by the snapshot; how many entries were not so.
    async fn apply(
        &self,
        sandbox: &Sandbox,
        snapshot: &NetworkSnapshot,
        trust: Trust<'_>,
    ) -> Result<usize, Error> {
        let (host, network, node) = (self.host, self.network, &self.settings.node);
        table::guard(host, (network, node), sandbox, snapshot)?;
        mac_rewrite::apply(host, network, &translations(snapshot, node))?;
        let wanted = desired(snapshot, node, sandbox.end.ip(), trust);
        let wanted = host_link::entries(host, network, wanted)?;
        let wanted = [segment::desired::entries(wanted)];
        sandbox.apply(host, &wanted).await
    }
}

/// The copy of a network's records; `None` for one that cannot be read.
pub(crate) fn copy(host: &Host, network: &str) -> Result<Option<NetworkSnapshot>, Error> {
    readable(&host.snapshots, network)
}
