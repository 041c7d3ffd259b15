//! This host, as one verb sees it: its namespace, a socket in it, and its documents.

use std::{collections::BTreeSet, path::Path};

use cluster::{NetworkSnapshot, StoreRef};
use journal::{Journal, Unreadable};
use netlink::{Netns, Rtnl};
use plugin::{Error, all_readable, readable};

use crate::{
    egress::Ledger,
    firewall::desired::Table,
    follow::{
        membership::Membership,
        watcher_lease::{self, Following},
    },
    host_link::HostLink,
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
    /// The snapshot by which each network's sandbox forwards.
    pub snapshots: Journal<NetworkSnapshot>,
    /// The store from which each network's documents come.
    pub store_refs: Journal<StoreRef>,
    /// The networks of which this host told the store that it is a member.
    pub members: Journal<Membership>,
    /// The attachments that use each sandbox.
    pub users: Journal<Users>,
    /// The MACs that each sandbox rewrites.
    pub translations: Journal<Translations>,
    /// The egress address of each container.
    pub egress: Journal<Ledger>,
    /// The host's own link to each segment.
    pub host_links: Journal<HostLink>,
    /// The wanted contents of the nftables table.
    pub firewall: Journal<Table>,
    /// The path MTU to each other host.
    pub paths: Journal<Paths>,
    /// The networks that a watcher follows.
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
            store_refs: Journal::new(root, "place"),
            members: Journal::new(root, "acks"),
            users: Journal::new(root, "sandbox"),
            translations: Journal::new(root, "macs").of_maps(),
            egress: Journal::new(root, "egress"),
            host_links: Journal::new(root, "foothold"),
            firewall: Journal::new(root, "firewall"),
            paths: Journal::new(root, "paths"),
            following: watcher_lease::documents(),
        })
    }

    /// Writes the layout before an ADD makes anything. Fails if this host has the layout of a newer version.
    pub(crate) fn begin_layout() -> Result<(), Error> {
        let (version, commit) = (cni::build::VERSION, cni::build::COMMIT);
        journal::layout::begin(Path::new(journal::ROOT), version, commit).map_err(Error::from)
    }

    /// Whether an attachment uses a network's sandbox.
    pub fn has_users(&self, network: &str) -> Result<bool, Error> {
        let users = readable(&self.users, network)?;
        Ok(users.is_some_and(|users| !users.0.is_empty()))
    }

    /// Whether attachments use a network's sandbox. If the list of them was lost with `/run`, the ports of the bridge tell.
    pub async fn needs_sandbox(&self, network: &str) -> Result<bool, Error> {
        if self.has_users(network)? {
            return Ok(true);
        }
        match sandbox::open(network)? {
            Some(rtnl) => sandbox::has_ports(&rtnl).await,
            None => Ok(false),
        }
    }

    /// The documents of this host that cannot be read, without the records of attachments. Their contents come from the kernel
    /// and the store again.
    pub fn lost(&self) -> Result<Vec<Unreadable>, Error> {
        let all = [
            self.snapshots.all().map(|it| it.unreadable),
            self.store_refs.all().map(|it| it.unreadable),
            self.members.all().map(|it| it.unreadable),
            self.users.all().map(|it| it.unreadable),
            self.translations.all().map(|it| it.unreadable),
            self.egress.all().map(|it| it.unreadable),
            self.host_links.all().map(|it| it.unreadable),
            self.firewall.all().map(|it| it.unreadable),
            self.paths.all().map(|it| it.unreadable),
            self.following.all().map(|it| it.unreadable),
            watcher_lease::heard().all().map(|it| it.unreadable),
            plugin::connected::documents().all().map(|it| it.unreadable),
            journal::tunnel::unreadable(),
        ];
        let mut lost = Vec::new();
        for unreadable in all {
            lost.extend(unreadable?);
        }
        Ok(lost)
    }

    /// The VNIs of all networks that this host knows. No other network may take them, even if the store has lost the records
    /// of theirs.
    pub fn vnis(&self) -> Result<BTreeSet<u32>, Error> {
        let snapshots = all_readable(&self.snapshots)?.into_iter();
        let vnis = snapshots.filter_map(|snapshot| snapshot.network?.record.vni);
        Ok(vnis.collect())
    }

    /// Saves the snapshot of a network for the next verb.
    pub fn save_snapshot(&self, network: &str, snapshot: &NetworkSnapshot) -> Result<(), Error> {
        let _lock = self.lock(&format!("news-{network}"))?;
        self.snapshots.save(network, snapshot).map_err(Error::from)
    }
}
