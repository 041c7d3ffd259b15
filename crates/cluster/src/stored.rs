//! What the store has at a key: a record, or something that this version cannot read.
//!
//! What cannot be read was damaged, or a newer version wrote it. It does not count as absent, and it is no error for the reader of other
//! records beside it: it counts as taken. So each record that is read among others is a [`Stored`], and these are kept as [`Records`],
//! whose users have to say which of the two they mean. The same holds for a key: it is spelled as this version
//! spells it, it lies directly below its prefix, and its record names what the key names. Any other key is
//! no record, and only [`Cluster::unusable_keys`](crate::Cluster::unusable_keys) reports it.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, btree_map},
    net::IpAddr,
    ops::Index,
};

use ipam::{Block, Mac};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use store::{Entry, Key};

use crate::{
    BlockRecord, Error, Lease, MacRecord, Network, Node, Versioned,
    operations::nodes::no_tunnel_address,
    records::{Refused, read},
};

/// A record, or something that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored<T> {
    /// The record.
    Readable(Versioned<T>),
    /// It cannot be read.
    Unreadable(Unreadable<T>),
}

/// A value that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unreadable<T> {
    /// The store's revision of its key.
    pub revision: u64,
    /// Why it cannot be read.
    pub why: String,
    /// Whether that is because a newer version wrote it. Nobody rewrites such a record.
    #[serde(default)]
    pub is_newer: bool,
    /// What this host last read at the key.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub last: Option<T>,
}

impl<T> Stored<T> {
    /// The record, if it can be read.
    pub fn readable(&self) -> Option<&Versioned<T>> {
        match self {
            Self::Readable(record) => Some(record),
            Self::Unreadable(_) => None,
        }
    }

    /// The record as it is, or as this host last read it.
    pub fn last_read(&self) -> Option<&T> {
        match self {
            Self::Readable(present) => Some(&present.record),
            Self::Unreadable(unreadable) => unreadable.last.as_ref(),
        }
    }

    /// The store's revision of its key.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Readable(record) => record.revision,
            Self::Unreadable(unreadable) => unreadable.revision,
        }
    }

    /// Whether a newer version wrote it, so that nobody may rewrite it.
    pub(crate) fn is_newer(&self) -> bool {
        matches!(self, Self::Unreadable(unreadable) if unreadable.is_newer)
    }

    /// The record, for a caller that can do nothing without it. The error names `key`.
    pub(crate) fn or_refuse(self, key: &Key) -> Result<Versioned<T>, Error> {
        match self {
            Self::Readable(record) => Ok(record),
            Self::Unreadable(unreadable) => Err(unreadable.refusal(key)),
        }
    }
}

impl<T> Unreadable<T> {
    /// An error that names the `key`, and what to do.
    pub(crate) fn refusal(&self, key: &Key) -> Error {
        Error::Record {
            key: key.as_str().to_owned(),
            why: self.why.clone(),
        }
    }
}

impl<T: DeserializeOwned> Stored<T> {
    /// What is at the entry's key.
    pub fn of(entry: &Entry) -> Self {
        Self::checked(entry, |_| Ok(()))
    }

    /// The same of a record that has to pass `check`, which says what is wrong with it.
    fn checked(entry: &Entry, check: impl FnOnce(&T) -> Result<(), String>) -> Self {
        let (revision, last) = (entry.revision, None);
        let (why, is_newer) = match read::<T>(&entry.value) {
            Ok(record) => match check(&record) {
                Ok(()) => return Self::Readable(Versioned { record, revision }),
                Err(why) => (why, false),
            },
            Err(Refused { why, is_newer }) => (why, is_newer),
        };
        Self::Unreadable(Unreadable {
            revision,
            why,
            is_newer,
            last,
        })
    }
}

/// All records of one kind, by what their keys name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records<K, T>(BTreeMap<K, Stored<T>>);

impl<K: Ord, T> Records<K, T> {
    /// What has that name.
    pub fn get<Q: Ord + ?Sized>(&self, name: &Q) -> Option<&Stored<T>>
    where
        K: Borrow<Q>,
    {
        self.0.get(name)
    }

    /// The record of that name, if there is one that can be read.
    pub fn known<Q: Ord + ?Sized>(&self, name: &Q) -> Option<&Versioned<T>>
    where
        K: Borrow<Q>,
    {
        self.0.get(name).and_then(Stored::readable)
    }

    /// Whether anything has that name, readable or not.
    pub fn contains<Q: Ord + ?Sized>(&self, name: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(name)
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All names.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// Everything, in the order of the names.
    pub fn iter(&self) -> btree_map::Iter<'_, K, Stored<T>> {
        self.0.iter()
    }

    /// The records that can be read, in the order of their names.
    pub fn readable(&self) -> impl Iterator<Item = (&K, &Versioned<T>)> + Clone {
        let readable = |(name, stored)| Some((name, Stored::readable(stored)?));
        self.0.iter().filter_map(readable)
    }

    /// The same, to be changed.
    pub fn readable_mut(&mut self) -> impl Iterator<Item = (&K, &mut Versioned<T>)> {
        self.0.iter_mut().filter_map(|(name, stored)| match stored {
            Stored::Readable(record) => Some((name, record)),
            Stored::Unreadable(_) => None,
        })
    }

    /// What cannot be read, in the order of the names.
    pub fn unreadable(&self) -> impl Iterator<Item = (&K, &Unreadable<T>)> {
        self.0.iter().filter_map(|(name, stored)| match stored {
            Stored::Readable(_) => None,
            Stored::Unreadable(unreadable) => Some((name, unreadable)),
        })
    }

    /// Each name with the store's revision of its key.
    pub fn revisions(&self) -> impl Iterator<Item = (&K, u64)> {
        self.0.iter().map(|(name, it)| (name, it.revision()))
    }

    /// Puts a record in the place of what has that name.
    pub fn insert(&mut self, name: K, record: Versioned<T>) {
        self.0.insert(name, Stored::Readable(record));
    }

    /// Removes what has that name.
    pub fn remove<Q: Ord + ?Sized>(&mut self, name: &Q)
    where
        K: Borrow<Q>,
    {
        self.0.remove(name);
    }

    /// Keeps the names that `stays` accepts.
    pub fn retain(&mut self, mut stays: impl FnMut(&K) -> bool) {
        self.0.retain(|name, _| stays(name));
    }

    /// Takes what was last read from `before` for the records that cannot be read now.
    pub fn remember(&mut self, before: &Self)
    where
        T: Clone,
    {
        for (name, stored) in &mut self.0 {
            if let Stored::Unreadable(unreadable) = stored
                && let Some(last) = before.get(name).and_then(Stored::last_read)
            {
                unreadable.last = Some(last.clone());
            }
        }
    }

    /// Both kinds apart, as documents have them.
    pub(crate) fn apart(self) -> (BTreeMap<K, Versioned<T>>, BTreeMap<K, Unreadable<T>>) {
        let (mut readable, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
        for (name, stored) in self.0 {
            match stored {
                Stored::Readable(record) => drop(readable.insert(name, record)),
                Stored::Unreadable(it) => drop(unreadable.insert(name, it)),
            }
        }
        (readable, unreadable)
    }

    /// Both kinds together.
    pub(crate) fn together(
        readable: BTreeMap<K, Versioned<T>>,
        unreadable: BTreeMap<K, Unreadable<T>>,
    ) -> Self {
        let readable = readable.into_iter();
        let readable = readable.map(|(name, record)| (name, Stored::Readable(record)));
        let unreadable = unreadable.into_iter();
        let unreadable = unreadable.map(|(name, it)| (name, Stored::Unreadable(it)));
        Self(readable.chain(unreadable).collect())
    }
}

impl<'r, K: Ord, T> IntoIterator for &'r Records<K, T> {
    type Item = (&'r K, &'r Stored<T>);
    type IntoIter = btree_map::Iter<'r, K, Stored<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, T> Default for Records<K, T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, T> Extend<(K, Stored<T>)> for Records<K, T> {
    fn extend<I: IntoIterator<Item = (K, Stored<T>)>>(&mut self, records: I) {
        self.0.extend(records);
    }
}

impl<K: Ord, T> Extend<(K, Versioned<T>)> for Records<K, T> {
    fn extend<I: IntoIterator<Item = (K, Versioned<T>)>>(&mut self, records: I) {
        let records = records.into_iter();
        self.0
            .extend(records.map(|(name, record)| (name, Stored::Readable(record))));
    }
}

impl<K: Ord, T> FromIterator<(K, Stored<T>)> for Records<K, T> {
    fn from_iter<I: IntoIterator<Item = (K, Stored<T>)>>(records: I) -> Self {
        Self(records.into_iter().collect())
    }
}

impl<K: Ord, T> FromIterator<(K, Versioned<T>)> for Records<K, T> {
    fn from_iter<I: IntoIterator<Item = (K, Versioned<T>)>>(records: I) -> Self {
        let mut all = Self::default();
        all.extend(records);
        all
    }
}

impl<K: Ord, T, const N: usize> From<[(K, Versioned<T>); N]> for Records<K, T> {
    fn from(records: [(K, Versioned<T>); N]) -> Self {
        let mut all = Self::default();
        all.extend(records);
        all
    }
}

/// As for a map: there must be a record of that name, and it must be readable.
impl<K: Ord + Borrow<Q>, Q: Ord + ?Sized, T> Index<&Q> for Records<K, T> {
    type Output = Versioned<T>;

    fn index(&self, name: &Q) -> &Versioned<T> {
        match &self.0[name] {
            Stored::Readable(record) => record,
            Stored::Unreadable(unreadable) => panic!("cannot be read: {}", unreadable.why),
        }
    }
}

/// The last segment of a key directly below `prefix`; `None` of one that lies deeper.
pub(crate) fn name_below<'e>(entry: &'e Entry, prefix: &Key) -> Option<&'e str> {
    let rest = entry.key.as_str().strip_prefix(prefix.as_str())?;
    let name = rest.strip_prefix('/')?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// What a key names, if it is spelled as this version spells it, so that two keys never name one thing.
pub(crate) fn spelled<T: std::str::FromStr + ToString>(name: &str) -> Option<T> {
    let parsed: T = name.parse().ok()?;
    (parsed.to_string() == name).then_some(parsed)
}

/// A node's entry, by its name. A tunnel address that cannot be one counts as absent.
pub(crate) fn node(entry: &Entry, nodes: &Key) -> Option<(String, Stored<Node>)> {
    let name = name_below(entry, nodes)?;
    let mut stored = Stored::checked(entry, |node: &Node| names(&node.name, name));
    if let Stored::Readable(node) = &mut stored {
        let usable = |vtep: &IpAddr| no_tunnel_address(*vtep).is_none();
        node.record.vtep = node.record.vtep.filter(usable);
    }
    Some((name.to_owned(), stored))
}

/// A network's entry, by its name.
pub(crate) fn network(entry: &Entry, networks: &Key) -> Option<(String, Stored<Network>)> {
    let name = name_below(entry, networks)?;
    let stored = Stored::checked(entry, |network: &Network| {
        names(&network.name, name)?;
        network.can_be_cut()
    });
    Some((name.to_owned(), stored))
}

fn names(said: &str, name: &str) -> Result<(), String> {
    if said == name {
        return Ok(());
    }
    Err(format!("names {said:?}, and its key {name:?}"))
}

/// An entry below a network's blocks.
pub(crate) enum BlockEntry {
    /// A block.
    Block(Block, Stored<BlockRecord>),
    /// A MAC that was asked for.
    Mac(Mac, Stored<MacRecord>),
}

/// A block's or a MAC's entry; `None` of a key that is neither, or that is no block of the `network`, where that is known.
pub(crate) fn block(entry: &Entry, blocks: &Key, network: Option<&Network>) -> Option<BlockEntry> {
    let name = name_below(entry, blocks)?;
    if let Some(mac) = spelled::<Mac>(name) {
        return Some(BlockEntry::Mac(mac, Stored::of(entry)));
    }
    let block = spelled::<Block>(name)?;
    let is_its = network.is_none_or(|network| network.has_block(block));
    is_its.then(|| BlockEntry::Block(block, Stored::of(entry)))
}

/// A lease's entry, by its address.
pub(crate) fn lease(entry: &Entry, leases: &Key) -> Option<(IpAddr, Stored<Lease>)> {
    let address = spelled(name_below(entry, leases)?)?;
    Some((address, Stored::of(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipam::Range;

    #[test]
    fn tunnel_addresses_are_of_one_host() {
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
        ] {
            assert!(no_tunnel_address(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for good in [
            "192.168.1.11",
            "8.8.8.8",
            "169.254.3.4",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert_eq!(no_tunnel_address(good.parse().unwrap()), None, "{good}");
        }
    }

    fn entry(key: &str, value: &str) -> Entry {
        Entry {
            key: Key::new(key).unwrap(),
            value: value.into(),
            revision: 7,
        }
    }

    fn small() -> Network {
        let range = Range::of("10.0.0.0/29".parse().unwrap()).unwrap();
        serde_json::from_value(serde_json::json!({"name": "n", "ranges": [[range]]})).unwrap()
    }

    #[test]
    fn only_blocks_that_the_network_can_have_are_read() {
        let blocks = Key::new("p/v1/blocks/n").unwrap();
        let has = |name: &str| {
            let key = format!("p/v1/blocks/n/{name}");
            let entry = entry(&key, r#"{"schema":1,"node":"a"}"#);
            block(&entry, &blocks, Some(&small())).is_some()
        };
        for good in ["10.0.0.2_32", "10.0.0.6_32", "02:11:22:33:44:55"] {
            assert!(has(good), "{good}");
        }
        for bad in [
            "10.0.0.0_24",
            "10.0.0.0_30",
            "10.0.0.0_8",
            "0.0.0.0_0",
            "::_0",
            "10.0.0.1_32",
            "10.0.0.7_32",
            "10.0.1.2_32",
            "10.0.0.9_29",
            "10.0.0.2_032",
            "10.0.0.2_+32",
            "x",
            "10.0.0.2_32/10.0.0.3_32",
            "02:AA:22:33:44:55",
        ] {
            assert!(!has(bad), "{bad}");
        }
    }

    #[test]
    fn a_record_names_what_its_key_names() {
        let nodes = Key::new("p/v1/nodes").unwrap();
        let record = r#"{"schema":1,"name":"a","bootID":"b","lastContact":1,"vtep":"224.0.0.1"}"#;
        let (name, stored) = node(&entry("p/v1/nodes/a", record), &nodes).unwrap();
        assert_eq!((name.as_str(), stored.revision()), ("a", 7));
        assert_eq!(stored.readable().unwrap().record.vtep, None);
        let (_, other) = node(&entry("p/v1/nodes/c", record), &nodes).unwrap();
        assert!(matches!(other, Stored::Unreadable(it) if it.why.contains('c') && !it.is_newer));
        assert!(node(&entry("p/v1/nodes/x/a", record), &nodes).is_none());
    }

    #[test]
    fn a_network_that_would_be_cut_into_too_large_blocks_is_not_read() {
        let networks = Key::new("p/v1/networks").unwrap();
        let read = |prefix: u8| {
            let mut network = small();
            network.block_prefix = Some(prefix);
            let value = String::from_utf8(crate::encode(&network).unwrap()).unwrap();
            let entry = entry("p/v1/networks/n", &value);
            super::network(&entry, &networks).unwrap().1
        };
        assert!(read(30).readable().is_some());
        assert!(read(8).readable().is_none());
    }
}
