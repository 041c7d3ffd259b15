//! What cannot be read is neither absent nor fatal: each kind of key and each kind of document, alone and in pairs, truncated,
//! empty, random and of the future. No address is given twice, no running container's lease goes, every other network and
//! host goes on.

#![allow(clippy::unwrap_used, reason = "a test: it stops where it broke")]

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use cluster::{
    Allocator, Cluster, DataDir, Error, Host, Layout, LeaseOwner, LocalStore, NetworkSpec, Node,
    Noted, Request, Stored, note_gone,
};
use ipam::Range;
use ipam_kv::local_store::FsLocalStore;
use store::{Key, Store as _, mem::Mem};

/// What may become of a value.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Truncated,
    Empty,
    Random,
    Future,
}

const DAMAGES: [Damage; 4] = [
    Damage::Truncated,
    Damage::Empty,
    Damage::Random,
    Damage::Future,
];

impl Damage {
    fn of(self, value: &[u8]) -> Vec<u8> {
        match self {
            Self::Truncated => value[..value.len() / 2].to_vec(),
            Self::Empty => Vec::new(),
            Self::Random => vec![0x9b, 0x00, 0xff, b'{', b'"', 0xc3, 0x28],
            Self::Future => {
                let text = String::from_utf8(value.to_vec()).unwrap();
                assert!(text.contains(r#""schema":1"#), "{text}");
                text.replacen(r#""schema":1"#, r#""schema":2"#, 1).into()
            }
        }
    }
}

/// What is damaged: always of host h1, and of network a.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    Network,
    Vni,
    Subnets,
    Removed,
    Block,
    Lease,
    LedgerKey,
    Ack,
    Ledger,
    LocalLease,
    Memory,
}

const KINDS: [Kind; 12] = [
    Kind::Node,
    Kind::Network,
    Kind::Vni,
    Kind::Subnets,
    Kind::Removed,
    Kind::Block,
    Kind::Lease,
    Kind::LedgerKey,
    Kind::Ack,
    Kind::Ledger,
    Kind::LocalLease,
    Kind::Memory,
];

/// One host's side.
struct Site {
    host: Host,
    root: PathBuf,
    files: FsLocalStore,
}

impl Site {
    fn new(root: &Path, name: &str) -> Self {
        let root = root.join(name);
        Self {
            host: Host {
                node: name.into(),
                boot_id: format!("boot-{name}"),
                machine_id: Some(format!("machine-{name}")),
                vtep: None,
                tunnel: None,
                store_ref: None,
                version: None,
                commit: None,
            },
            files: FsLocalStore::below(&root, &DataDir::default()),
            root,
        }
    }

    fn allocator<'a>(&'a self, cluster: &'a Cluster<'a>, network: &'a str) -> Allocator<'a> {
        Allocator {
            cluster,
            local_store: &self.files,
            clock: &self.files,
            host: &self.host,
            network,
            patience: Duration::ZERO,
            cool_down: 0,
        }
    }

    async fn add(
        &self,
        cluster: &Cluster<'_>,
        network: &str,
        container: &str,
    ) -> Result<IpAddr, Error> {
        let request = Request {
            spec: &spec(network),
            owner: owner(container),
            name: None,
            requested: &[],
            mac: None,
            narrow: &[],
        };
        let allocator = self.allocator(cluster, network);
        let leased = allocator.add(&request).await?;
        allocator.told(&request.owner).await?;
        Ok(leased.addresses[0])
    }

    async fn del(&self, cluster: &Cluster<'_>, network: &str, container: &str) {
        let owner = owner(container);
        note_gone(&self.files, network, &owner).await.unwrap();
        // What the store does not take stays noted.
        let _ = self.allocator(cluster, network).release(&owner).await;
    }

    /// The document of this kind.
    fn document(&self, kind: Kind) -> Option<PathBuf> {
        match kind {
            Kind::Ledger => Some(self.root.join("ledger/a.json")),
            Kind::Memory => Some(self.root.join("memory/a.json")),
            Kind::LocalLease => {
                let mut files = fs::read_dir(self.root.join("holding/a")).unwrap();
                Some(files.next().unwrap().unwrap().path())
            }
            _ => None,
        }
    }
}

fn owner(container: &str) -> LeaseOwner {
    LeaseOwner {
        container: container.into(),
        ifname: "eth0".into(),
    }
}

fn spec(network: &str) -> NetworkSpec {
    let subnet = if network == "a" {
        "10.0.0.0/24"
    } else {
        "10.0.1.0/24"
    };
    NetworkSpec {
        name: network.into(),
        id: Some(format!("id-{network}")),
        segment: true,
        ranges: vec![vec![Range::of(subnet.parse().unwrap()).unwrap()]],
        ..NetworkSpec::default()
    }
}

/// Two hosts with a container each on two networks.
struct Table {
    store: Mem,
    _dir: tempfile::TempDir,
    hosts: [Site; 2],
    /// Who runs where, and with which address.
    running: BTreeMap<(usize, &'static str, String), IpAddr>,
}

impl Table {
    async fn lay() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosts = ["h1", "h2"].map(|name| Site::new(dir.path(), name));
        let mut table = Self {
            store: Mem::new(),
            _dir: dir,
            hosts,
            running: BTreeMap::new(),
        };
        let layout = Layout::new("p").unwrap();
        // Another one of its name was removed before.
        let removed = layout.removed("a").unwrap();
        let value = br#"{"schema":1,"ids":{"old":1}}"#;
        table.store.create(&removed, value).await.unwrap().unwrap();
        for (n, host) in table.hosts.iter().enumerate() {
            let cluster = Cluster::new(&table.store, layout.clone());
            let Host { node, boot_id, .. } = &host.host;
            let known = Node {
                name: node.clone(),
                vtep: Some([192, 168, 1, 11 + u8::try_from(n).unwrap()].into()),
                boot_id: boot_id.clone(),
                machine_id: host.host.machine_id.clone(),
                last_contact: 1,
                version: None,
                commit: None,
            };
            cluster.register(&known).await.unwrap();
            for network in ["a", "b"] {
                let address = host.add(&cluster, network, "c").await.unwrap();
                let key = (n, network, "c".to_owned());
                table.running.insert(key, address);
                cluster.join(network, node, boot_id).await.unwrap();
            }
        }
        for host in &table.hosts {
            let cluster = Cluster::new(&table.store, layout.clone());
            for network in ["a", "b"] {
                let late = host.allocator(&cluster, network).sync().await.unwrap();
                assert!(late.is_empty(), "{late:?}");
            }
        }
        table
    }

    fn cluster(&self) -> Cluster<'_> {
        Cluster::new(&self.store, Layout::new("p").unwrap())
    }

    async fn key(&self, kind: Kind) -> Option<Key> {
        let held = self.running[&(0, "a", "c".to_owned())];
        let path = match kind {
            Kind::Node => "nodes/h1".to_owned(),
            Kind::Network => "networks/a".to_owned(),
            Kind::Vni => {
                // Where it begins to choose depends on the prefix.
                let network = self.cluster().network("a").await.unwrap().unwrap().record;
                format!("vnis/{}", network.vni.unwrap())
            }
            Kind::Subnets => "subnets".to_owned(),
            Kind::Removed => "removed/a".to_owned(),
            Kind::Lease => format!("leases/a/{held}"),
            Kind::LedgerKey => "ledgers/a/h1".to_owned(),
            Kind::Ack => "acks/a/h1".to_owned(),
            Kind::Block => {
                let network = self.cluster().network("a").await.unwrap().unwrap().record;
                let range = network.range_of(held).unwrap();
                format!("blocks/a/{}", network.block_of(range, held).unwrap())
            }
            Kind::Ledger | Kind::LocalLease | Kind::Memory => return None,
        };
        Some(Key::new(format!("p/v1/{path}")).unwrap())
    }

    /// Damages the things of these kinds, all found before the first is damaged.
    async fn damage(&self, kinds: &[Kind], damage: Damage) -> Vec<(Option<Key>, Option<PathBuf>)> {
        let mut found = Vec::new();
        for kind in kinds {
            found.push((self.key(*kind).await, self.hosts[0].document(*kind)));
        }
        for (key, path) in &found {
            if let Some(key) = key {
                let entry = self.store.get(key).await.unwrap().unwrap();
                let value = damage.of(&entry.value);
                let swapped = self.store.swap(key, &value, entry.revision).await;
                assert!(swapped.unwrap().is_some());
            }
            if let Some(path) = path {
                let value = damage.of(&fs::read(path).unwrap());
                fs::write(path, value).unwrap();
            }
        }
        found
    }

    /// No two that run have one address, and the store has all their leases, or what they were damaged to.
    async fn holds(&self, what: &str) {
        let mut seen = BTreeMap::new();
        for ((host, network, container), address) in &self.running {
            let other = seen.insert((network, address), (host, container));
            assert_eq!(other, None, "{what}: {address} of {network}");
            let leases = self.cluster().leases(network).await.unwrap();
            match leases.get(address) {
                None => panic!("{what}: the lease of {address} of {network} is gone"),
                Some(Stored::Unreadable(_)) => {}
                Some(Stored::Readable(lease)) => {
                    let lease = &lease.record;
                    let of = (&lease.node, &lease.container);
                    let name = &self.hosts[*host].host.node;
                    assert_eq!(of, (name, container), "{what}: {address} of {network}");
                }
            }
        }
    }

    /// What each host does, for some rounds: sync, ADD, GC, DEL of another container.
    async fn live(&mut self, tag: &str, broken: &str, what: &str) {
        let cluster = Cluster::new(&self.store, Layout::new("p").unwrap());
        // What the store has lost by a deletion it is told by whoever remembers it.
        for host in self.hosts.iter().chain(&self.hosts) {
            for network in ["a", "b"] {
                let synced = host.allocator(&cluster, network).sync().await;
                if network == "b" {
                    let late = synced.unwrap();
                    assert!(late.is_empty(), "{what}: sync of b: {late:?}");
                }
            }
        }
        for (n, host) in self.hosts.iter().enumerate() {
            for network in ["a", "b"] {
                let (stays, goes) = (format!("{tag}-stays"), format!("{tag}-goes"));
                for container in [&stays, &goes] {
                    match host.add(&cluster, network, container).await {
                        Ok(address) => {
                            let key = (n, network, container.clone());
                            self.running.insert(key, address);
                        }
                        Err(error) => {
                            assert_eq!(network, broken, "{what}: ADD on h{}: {error}", n + 1);
                            assert!(error.to_string().contains("p/v1/"), "{error}");
                        }
                    }
                }
                let gone = self.running.remove(&(n, network, goes.clone()));
                host.del(&cluster, network, &goes).await;
                assert!(gone.is_some() || network == broken);
                let listed = |owner: &LeaseOwner| {
                    let key = (n, network, owner.container.clone());
                    self.running.contains_key(&key)
                };
                let collected = host.allocator(&cluster, network).gc(&listed).await;
                assert!(
                    collected.is_ok() || network == broken,
                    "{what}: GC of {network}"
                );
            }
        }
        self.holds(what).await;
    }
}

/// Damages these, lives with it, mends it as doctor says, and lives on.
async fn row(kinds: &[Kind], damage: Damage) {
    let what = format!("{kinds:?} {damage:?}");
    let mut table = Table::lay().await;
    let found = table.damage(kinds, damage).await;
    let broken = if kinds.contains(&Kind::Network) {
        "a"
    } else {
        ""
    };
    table.live("damaged", broken, &what).await;
    if let [_] = kinds {
        table.live("still", broken, &what).await;
    }
    // An ADD where nobody can tell whether there is one is refused; the others' were not.
    if kinds.contains(&Kind::LocalLease) {
        let noted = table.hosts[0].files.lease("a", &owner("c")).unwrap();
        assert!(matches!(noted, Noted::Unreadable(_)), "{what}: {noted:?}");
        let again = table.hosts[0].add(&table.cluster(), "a", "c").await;
        let again = again.unwrap_err();
        let is_duplicate = matches!(again, cluster::Error::Duplicate { .. });
        assert!(is_duplicate || !broken.is_empty(), "{what}: {again}");
    }
    // A container ends as it always does, whatever nobody can read of it.
    table.running.remove(&(0, "a", "c".to_owned()));
    table.hosts[0].del(&table.cluster(), "a", "c").await;
    let noted = table.hosts[0].files.lease("a", &owner("c")).unwrap();
    let is_known = matches!(&noted, Noted::Unreadable(_));
    assert!(!is_known, "{what}: {noted:?}");
    table.holds(&what).await;
    for (key, path) in found {
        if let Some(key) = key
            && let Some(entry) = table.store.get(&key).await.unwrap()
        {
            let faults = table.cluster().unusable_keys().await.unwrap();
            if faults.iter().any(|fault| fault.key == key.as_str()) {
                table.store.delete(&key, entry.revision).await.unwrap();
            }
        }
        if let Some(path) = path {
            let _ = fs::remove_file(path);
        }
    }
    table.live("mended", "", &what).await;
    if let [_] = kinds {
        table.live("after", "", &what).await;
    }
    let faults = table.cluster().unusable_keys().await.unwrap();
    assert_eq!(faults, [], "{what}");
}

#[tokio::test]
async fn one_thing_that_cannot_be_read() {
    for damage in DAMAGES {
        for kind in KINDS {
            row(&[kind], damage).await;
        }
    }
}

#[tokio::test]
async fn two_things_that_cannot_be_read() {
    for damage in DAMAGES {
        for (n, one) in KINDS.iter().enumerate() {
            for other in &KINDS[n + 1..] {
                row(&[*one, *other], damage).await;
            }
        }
    }
}

/// A key that names no block of the network: whoever it names, and however large it is.
#[tokio::test]
async fn a_block_that_is_none_of_the_networks() {
    for name in [
        "10.0.0.0_24",
        "10.0.0.0_30",
        "10.0.0.9_32",
        "10.0.7.0_29",
        "10.0.0.9_29",
        "10.0.0.0_8",
        "0.0.0.0_0",
        "::_0",
        "nonsense",
    ] {
        let mut table = Table::lay().await;
        let key = Key::new(format!("p/v1/blocks/a/{name}")).unwrap();
        let value = br#"{"schema":1,"node":"h1"}"#;
        let revision = table.store.create(&key, value).await.unwrap().unwrap();
        table.live("stray", "", name).await;
        let faults = table.cluster().unusable_keys().await.unwrap();
        assert_eq!(faults.len(), 1, "{name}: {faults:?}");
        assert_eq!(faults[0].key, key.as_str());
        table.store.delete(&key, revision).await.unwrap();
        table.live("deleted", "", name).await;
        let again = table.store.get(&key).await.unwrap();
        assert_eq!(again, None, "{name}: nobody writes it again");
    }
}

/// The same where an older version took it into its documents.
#[tokio::test]
async fn a_block_that_is_none_of_the_networks_in_documents_of_an_older_version() {
    let mut table = Table::lay().await;
    let record = r#"{"record":{"node":"h1"},"revision":7}"#;
    let own = r#"{"record":{"node":"h1"},"revision":7,"used":""}"#;
    for (path, value) in [("ledger/a.json", own), ("memory/a.json", record)] {
        let path = table.hosts[0].root.join(path);
        let text = fs::read_to_string(&path).unwrap();
        let taken = format!(r#""blocks":{{"10.0.0.0_8":{value},"#);
        let with = text.replacen(r#""blocks":{"#, &taken, 1);
        assert_ne!(with, text);
        fs::write(&path, with).unwrap();
    }
    table.live("old", "", "documents of an older version").await;
    let key = Key::new("p/v1/blocks/a/10.0.0.0_8").unwrap();
    assert_eq!(table.store.get(&key).await.unwrap(), None);
}

/// The host that began to write a network again lives, and has lost its memory of it.
#[tokio::test]
async fn a_restore_that_its_host_has_forgotten_is_ended_by_that_host() {
    for lost in [&["ledger", "memory", "holding"] as &[&str], &["memory"]] {
        let table = Table::lay().await;
        let cluster = table.cluster();
        let key = Key::new("p/v1/networks/a").unwrap();
        let entry = table.store.get(&key).await.unwrap().unwrap();
        let text = String::from_utf8(entry.value).unwrap();
        let restoring = r#""removing","restoring":{"node":"h2","bootID":"boot-h2"}"#;
        let text = text.replacen(r#""ready""#, restoring, 1);
        let put = table.store.swap(&key, text.as_bytes(), entry.revision);
        put.await.unwrap().unwrap();
        for folder in lost {
            fs::remove_dir_all(table.hosts[1].root.join(folder)).unwrap();
        }
        let late = table.hosts[1].allocator(&cluster, "a").sync().await;
        assert!(late.unwrap().is_empty());
        let network = cluster.network("a").await.unwrap().unwrap().record;
        assert_eq!(network.restoring, None);
        table.hosts[0].add(&cluster, "a", "more").await.unwrap();
        table.holds("forgotten").await;
    }
}
