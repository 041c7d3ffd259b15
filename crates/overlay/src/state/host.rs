//! This host, as one verb sees it: its namespace, a socket in it, and its documents.

use std::{collections::BTreeSet, path::Path};

use cluster::{NetworkSnapshot, StoreRef};
use journal::{Journal, Unreadable};
use netlink::{Netns, Rtnl};
use plugin::{Error, readable};

use crate::{
    egress::Ledger,
    firewall::table::Table,
    follow::{
        membership::Membership,
        watcher_lease::{self, Following},
    },
    host_link::Foothold,
    segment::{
        forwarding::Translations,
        path_mtu::Paths,
        sandbox::{self, Users},
    },
    state::attachment::Record,
};

/// What all verbs need of the host.
pub struct Host {
    /// The host's own namespace.
    pub netns: Netns,
    /// A socket in it.
    pub rtnl: Rtnl,
    /// Attachments.
    pub records: Journal<Record>,
    /// The news that each network's sandbox forwards by.
    pub snapshots: Journal<NetworkSnapshot>,
    /// Of which store each network's documents are.
    pub places: Journal<StoreRef>,
    /// On which networks this host forwards, as the store was told.
    pub members: Journal<Membership>,
    /// Who uses which sandbox.
    pub users: Journal<Users>,
    /// What each sandbox readdresses.
    pub translations: Journal<Translations>,
    /// Who has which egress address.
    pub egress: Journal<Ledger>,
    /// What this host has of its own on each segment.
    pub footholds: Journal<Foothold>,
    /// What the firewall's table should have.
    pub firewall: Journal<Table>,
    /// What the ways to other hosts carry.
    pub paths: Journal<Paths>,
    /// Which networks a watcher follows.
    pub following: Journal<Following>,
}

impl Host {
    /// Opens what a verb needs. Must run inside the runtime.
    pub fn open() -> Result<Self, Error> {
        let netns = Netns::current()?;
        let rtnl = Rtnl::here(&netns)?;
        let root = Path::new(journal::ROOT);
        Ok(Self {
            netns,
            rtnl,
            records: Journal::new(root, "journal/overlay"),
            snapshots: Journal::new(root, "news"),
            places: Journal::new(root, "place"),
            members: Journal::new(root, "acks"),
            users: Journal::new(root, "sandbox"),
            translations: Journal::new(root, "macs").of_maps(),
            egress: Journal::new(root, "egress"),
            footholds: Journal::new(root, "foothold"),
            firewall: Journal::new(root, "firewall"),
            paths: Journal::new(root, "paths"),
            following: watcher_lease::documents(),
        })
    }

    /// Before an ADD makes anything: refused where a newer version's layout is in use here.
    pub(crate) fn begin_layout() -> Result<(), Error> {
        let (version, commit) = (cni::build::VERSION, cni::build::COMMIT);
        journal::layout::begin(Path::new(journal::ROOT), version, commit).map_err(Error::from)
    }

    /// Whether an attachment uses a network's sandbox.
    pub fn has_users(&self, network: &str) -> Result<bool, Error> {
        let users = readable(&self.users, network)?;
        Ok(users.is_some_and(|users| !users.0.is_empty()))
    }

    /// Whether attachments use a network's sandbox, also where the list of them was lost with `/run`: their ports tell.
    pub async fn needs_sandbox(&self, network: &str) -> Result<bool, Error> {
        if self.has_users(network)? {
            return Ok(true);
        }
        match sandbox::open(network)? {
            Some(rtnl) => sandbox::has_ports(&rtnl).await,
            None => Ok(false),
        }
    }

    /// The documents of this host that cannot be read, but for the attachments' records: what they said comes from the kernel
    /// and the store again.
    pub fn lost(&self) -> Result<Vec<Unreadable>, Error> {
        let all = [
            self.snapshots.all().map(|it| it.unreadable),
            self.places.all().map(|it| it.unreadable),
            self.members.all().map(|it| it.unreadable),
            self.users.all().map(|it| it.unreadable),
            self.translations.all().map(|it| it.unreadable),
            self.egress.all().map(|it| it.unreadable),
            self.footholds.all().map(|it| it.unreadable),
            self.firewall.all().map(|it| it.unreadable),
            self.paths.all().map(|it| it.unreadable),
            self.following.all().map(|it| it.unreadable),
            watcher_lease::heard().all().map(|it| it.unreadable),
            journal::tunnel::unreadable(),
        ];
        let mut lost = Vec::new();
        for unreadable in all {
            lost.extend(unreadable?);
        }
        Ok(lost)
    }

    /// The identifiers of all networks that this host knows: none of them is another network's, also where the store has lost
    /// its records.
    pub fn vnis(&self) -> Result<BTreeSet<u32>, Error> {
        let snapshot = self.snapshots.all_readable(&|it| cni::log(&it.to_string()));
        let snapshot = snapshot?.into_iter();
        let vnis = snapshot.filter_map(|snapshot| snapshot.network?.record.vni);
        Ok(vnis.collect())
    }

    /// Keeps the news of a network for the next verb.
    pub fn keep(&self, network: &str, snapshot: &NetworkSnapshot) -> Result<(), Error> {
        let _lock = self.lock(&format!("news-{network}"))?;
        self.snapshots.save(network, snapshot).map_err(Error::from)
    }
}
