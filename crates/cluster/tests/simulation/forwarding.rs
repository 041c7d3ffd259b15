//! The interface plugin's side: the shipped forwarder (`cluster::forwarder`), driven by the simulation. Its outputs go to the
//! simulated store, to the host's documents, and to a kernel that is a snapshot and whether it is trusted. A process can die
//! before or after each of them.

use std::{cell::RefCell, collections::BTreeSet, net::IpAddr};

use cluster::{
    Cluster, Error, LeaseOwner, NetworkSnapshot, NetworkSpec, Node,
    forwarder::{
        Change, Doubt, Forwarder, Input, Known, Leaver, Machine, Membership, Output, Plugged,
        Reader, Step, Trust, Update,
    },
};

use crate::{executor::FairLock, lies::Planted, site::Site, world::World};

/// The overlay's part of a host.
#[derive(Default)]
pub struct Forwarding {
    /// The network's lock on the host.
    pub lock: FairLock,
    /// Attachments on the sandbox; the last one removes it.
    pub users: BTreeSet<LeaseOwner>,
    pub membership: Option<Membership>,
    pub copy: Option<NetworkSnapshot>,
    pub kernel: Option<Entries>,
}

/// The forwarding state of a sandbox.
pub struct Entries {
    pub snapshot: NetworkSnapshot,
    /// Addresses of containers here; `None` if the kernel floods.
    local: Option<BTreeSet<IpAddr>>,
}

impl Entries {
    /// Where frames for an address go; `None` where they flood or stay.
    pub fn home(&self, address: IpAddr) -> Option<&str> {
        let local = self.local.as_ref()?;
        let home = self.snapshot.home(address);
        home.filter(|_| !local.contains(&address))
    }

    /// Whether it relies on the homes in the snapshot.
    pub fn has_homes(&self) -> bool {
        self.local.is_some()
    }
}

/// One verb's view of one network.
pub struct Driver<'a> {
    world: &'a World,
    cluster: &'a Cluster<'a>,
    site: &'a Site,
    network: &'a str,
    lie: Lie,
}

/// What a planted bug holds back.
#[derive(Default)]
struct Lie {
    /// Entries that the kernel should have and has not.
    late: RefCell<Option<Entries>>,
    /// A snapshot that was read before the join.
    early: RefCell<Option<NetworkSnapshot>>,
}

impl<'a> Driver<'a> {
    pub fn new(
        world: &'a World,
        cluster: &'a Cluster<'a>,
        site: &'a Site,
        network: &'a str,
    ) -> Self {
        Self {
            world,
            cluster,
            site,
            network,
            lie: Lie::default(),
        }
    }

    fn part<T>(&self, look: impl FnOnce(&Forwarding) -> T) -> T {
        look(
            &self
                .world
                .host(self.site.index)
                .part(self.network)
                .forwarding,
        )
    }

    /// Writes on the host; the process can die before or after it.
    async fn write(&self, what: impl FnOnce(&mut Forwarding)) {
        let network = self.network;
        self.site
            .write(|host| what(&mut host.part_mut(network).forwarding));
        self.site.while_alive().await;
    }

    async fn change(&self, change: &Change) -> Option<Membership> {
        self.write(|forwarding| change.apply(&mut forwarding.membership))
            .await;
        self.part(|forwarding| forwarding.membership.clone())
    }

    async fn apply(&self, entries: Option<Entries>) {
        self.world.say(|| {
            let by = match &entries {
                None => "nothing".to_owned(),
                Some(it) if !it.has_homes() => "flooding".to_owned(),
                Some(it) => format!("a snapshot of {}", it.snapshot.revision()),
            };
            format!("{} forwards by {by}", self.world.spell(&self.site.process))
        });
        self.write(|forwarding| forwarding.kernel = entries).await;
        self.world.check_forwarding(self.site.index);
    }

    /// Runs a machine to its end.
    async fn run<M: Machine>(&self, mut step: Step<M>) -> Result<M::Outcome, Error> {
        loop {
            match step {
                Step::Next(machine) => {
                    let input = self.perform(machine.output()).await?;
                    step = machine.input(input)?;
                }
                Step::Finished(outcome) => {
                    self.lie_no_longer().await;
                    return Ok(outcome);
                }
            }
        }
    }

    async fn perform(&self, output: Output<'_>) -> Result<Input, Error> {
        let (network, me) = (self.network, self.site.host());
        let done = match output {
            Output::Load => Ok(self.part(|it| Input::Documents {
                membership: it.membership.clone(),
                copy: it.copy.clone().map(Box::new),
            })),
            Output::Change(change) => Ok(Input::Membership(self.change(change).await)),
            Output::Join => {
                self.read_early().await?;
                let joined = self.cluster.join(network, &me.node, &me.boot_id).await;
                joined.map(Input::Joined)
            }
            Output::Read => {
                let read = self.cluster.snapshot_and_join(network, &me.node).await;
                read.map(|(snapshot, join)| {
                    let early = self.lie.early.take().filter(|_| join.is_some());
                    let snapshot = Box::new(early.unwrap_or(snapshot));
                    Input::Read { snapshot, join }
                })
            }
            Output::Apply { snapshot, trust } => {
                let local = match trust {
                    Trust::Floods => None,
                    Trust::Homes { local } => Some(local.clone()),
                };
                let snapshot = snapshot.clone();
                let entries = Entries { snapshot, local };
                if self.tells(Planted::AcknowledgedBeforeDropped) {
                    *self.lie.late.borrow_mut() = Some(entries);
                } else {
                    self.apply(Some(entries)).await;
                }
                Ok(Input::Applied(0))
            }
            Output::Keep(snapshot) => {
                self.write(|it| it.copy = Some(snapshot.clone())).await;
                Ok(Input::Done)
            }
            Output::Acknowledge { snapshot, own } => {
                let told = self.cluster.acknowledge(network, &me.node, snapshot, own);
                let told = told.await.map(Input::Acknowledged);
                self.lie_no_longer().await;
                told
            }
            Output::Leave { revision } => {
                let left = self.cluster.leave(network, &me.node, revision).await;
                left.map(|()| Input::Done)
            }
        };
        match done {
            Err(error) if error.is_away() => Ok(Input::StoreAway(error)),
            Err(Error::NoNetwork(_)) => Ok(Input::NoNetwork),
            done => done,
        }
    }

    fn tells(&self, lie: Planted) -> bool {
        self.world.scenario.planted == Some(lie)
    }

    /// The kernel has what the host reported.
    async fn lie_no_longer(&self) {
        let late = self.lie.late.take();
        if late.is_some() {
            self.apply(late).await;
        }
    }

    async fn read_early(&self) -> Result<(), Error> {
        if self.tells(Planted::ReadBeforeJoined) {
            let snapshot = self.cluster.snapshot(self.network).await?;
            let early = Some(snapshot).filter(|it| it.network.is_some());
            *self.lie.early.borrow_mut() = early;
        }
        Ok(())
    }

    /// The copy with which an ADD begins. Without one it registers the host and creates the network.
    pub async fn known(&self, spec: &NetworkSpec) -> Result<Known, Error> {
        let network = self.network;
        let copy = self.part(|it| it.copy.clone());
        if let Some(snapshot) = copy.filter(|copy| copy.ready_network(network).is_ok()) {
            return Ok(Known {
                snapshot,
                copied: true,
                registered: false,
            });
        }
        let registered = self.world.register(self.cluster, self.site).await?;
        let mut snapshot = self.cluster.snapshot(network).await?;
        if snapshot.network.is_none() {
            self.cluster.ensure_network(spec).await?;
            snapshot = self.cluster.snapshot(network).await?;
        }
        snapshot.ready_network(network)?;
        Ok(Known {
            snapshot,
            copied: false,
            registered,
        })
    }

    /// A fresh snapshot for an ADD, read without a lock beside other verbs.
    pub async fn fresh(&self, known: &Known) -> Result<Update, Error> {
        let update = self
            .run(Reader::verb(self.network, known.registered))
            .await?;
        let is_snapshot = matches!(update, Update::Snapshot(_));
        let update = update.of_network(known);
        if is_snapshot && matches!(update, Update::Replaced) {
            self.write(|it| it.copy = None).await;
        }
        Ok(update)
    }

    /// Adds an attachment to the sandbox.
    pub async fn enter(&self, owner: &LeaseOwner) {
        let _lock = self.lock().await;
        let owner = owner.clone();
        self.write(|it| {
            it.users.insert(owner);
        })
        .await;
    }

    /// Forwards by the snapshot that an ADD has read. Returns whether that is of the network with which it began.
    pub async fn forward(
        &self,
        update: Update,
        known: &Known,
        plugged: Plugged<'_>,
    ) -> Result<bool, Error> {
        let _lock = self.lock().await;
        let node = self.site.host().node;
        let step = Forwarder::add(self.network, &node, update, known, plugged, true)?;
        Ok(self.run(step).await?.is_some())
    }

    /// Removes an attachment. With the last one the host leaves.
    pub async fn leave(&self, owner: &LeaseOwner) {
        {
            let _lock = self.lock().await;
            let mut users = self.part(|it| it.users.clone());
            users.remove(owner);
            if users.is_empty() {
                self.remove_unused().await;
            } else {
                self.write(|it| it.users = users).await;
            }
        }
        // If the store cannot be told now, the next verb tells it.
        let _ = self.run(Leaver::verb()).await;
    }

    /// Removes the sandbox; the caller holds the lock.
    async fn remove_unused(&self) {
        self.apply(None).await;
        self.change(&Change::Leave).await;
        self.write(|it| it.users.clear()).await;
    }

    /// `crosshost sync`; `join` is this host's join as the store had it when the sync began.
    pub async fn sync(&self, join: Option<u64>) -> Result<(), Error> {
        let idle = self.part(|it| it.users.is_empty());
        if idle {
            return self.sync_idle(join).await;
        }
        let doubt = if self.world.register(self.cluster, self.site).await? {
            Doubt::Certain
        } else {
            Doubt::Some
        };
        let _lock = self.lock().await;
        if self.part(|it| it.users.is_empty()) {
            return Ok(());
        }
        let node = self.site.host().node;
        let update = self.run(Reader::sync(self.network, doubt)).await?;
        let (step, away) = match update {
            Update::Snapshot(reading) => (Forwarder::sync(self.network, &node, reading), None),
            Update::StoreAway(why) => (Forwarder::sync_alone(self.network, &node), Some(why)),
            _ => (Forwarder::sync_alone(self.network, &node), None),
        };
        self.run(step).await?;
        away.map_or(Ok(()), Err)
    }

    /// Leaves a network without a sandbox here.
    async fn sync_idle(&self, join: Option<u64>) -> Result<(), Error> {
        let lock = self.lock().await;
        if !self.part(|it| it.users.is_empty()) {
            return Ok(());
        }
        if self.part(|it| it.membership.is_some()) {
            self.change(&Change::Leave).await;
            drop(lock);
            return self.run(Leaver::verb()).await;
        }
        // A restore of the store brought back a join that this host does not know.
        match join {
            Some(join) => {
                let node = self.site.host().node;
                self.cluster.leave(self.network, &node, join).await
            }
            None => Ok(()),
        }
    }

    async fn lock(&self) -> crate::executor::Held {
        let lock = self.part(|it| it.lock.clone());
        lock.lock().await
    }
}

impl World {
    /// Registers the node in this boot. Returns whether that was needed.
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
}
