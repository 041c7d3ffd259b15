//! Data directories. Configurations that name different ones (`ipam.dataDir`) have records and documents of their own, under one relative
//! path: below the prefix in the store, and below `/run/crosshost` on the host. This type has that path. [`Layout::within`] and
//! [`DataDir::folder`] apply it; all else works with one layout and plain names of networks.

use std::path::{Path, PathBuf};

use crate::{Cluster, Error, Layout};

/// The folder of all data directories but the default one.
const FOLDER: &str = "data";

/// A data directory. The default one is that of configurations that name none.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataDir(Option<String>);

impl DataDir {
    /// The one that a configuration names. What a key cannot have is written as `-` and two hex digits.
    pub fn new(directory: &str) -> Self {
        let spell = |byte: u8| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' => char::from(byte).to_string(),
            _ => format!("-{byte:02x}"),
        };
        let key: String = directory.bytes().map(spell).collect();
        Self((!key.is_empty()).then_some(key))
    }

    /// The one whose name in the store and on the host this is.
    pub fn from_key(key: String) -> Self {
        Self(Some(key))
    }

    /// Its name in the store and on the host; empty for the default one.
    pub fn key(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// The one of a network with this full name, and the network's own name.
    pub fn of_network(full_name: &str) -> (Self, &str) {
        match full_name.split_once('@') {
            Some((network, directory)) if !directory.is_empty() => (Self::new(directory), network),
            _ => (Self::default(), full_name),
        }
    }

    /// Whether this is the default one.
    pub fn is_default(&self) -> bool {
        self.0.is_none()
    }

    /// The directory that configurations name, `None` for the default one; the key if it is not one of a directory.
    pub fn directory(&self) -> Option<String> {
        let key = self.0.as_ref()?;
        let mut bytes = Vec::new();
        let mut rest = key.as_bytes();
        while let Some((first, more)) = rest.split_first() {
            let (byte, after) = match more.split_at_checked(2) {
                Some((hex, after)) if *first == b'-' => {
                    let hex = std::str::from_utf8(hex).unwrap_or_default();
                    (u8::from_str_radix(hex, 16).unwrap_or(*first), after)
                }
                _ => (*first, more),
            };
            bytes.push(byte);
            rest = after;
        }
        let directory = String::from_utf8(bytes).unwrap_or_default();
        let is_its = Self::new(&directory) == *self;
        Some(if is_its { directory } else { key.clone() })
    }

    /// The name of one of its networks among those of all data directories: `net1`, or `net1@/srv/a`.
    pub fn full_name(&self, network: &str) -> String {
        match self.directory() {
            None => network.to_owned(),
            Some(directory) => format!("{network}@{directory}"),
        }
    }

    /// The folder of the host's documents of all but the default one, below `root`.
    pub fn all(root: &Path) -> PathBuf {
        root.join(FOLDER)
    }

    /// The folder of the host's documents, below `root`.
    pub fn folder(&self, root: &Path) -> PathBuf {
        (self.path()).map_or_else(|| root.to_owned(), |path| root.join(path))
    }

    /// The relative path of the records and documents.
    fn path(&self) -> Option<String> {
        self.0.as_ref().map(|key| format!("{FOLDER}/{key}"))
    }
}

impl Layout {
    /// The layout of a data directory, below this one of the default one.
    pub fn within(&self, data_dir: &DataDir) -> Result<Self, store::Error> {
        let Some(path) = data_dir.path() else {
            return Ok(self.clone());
        };
        let mut layout = Self::new(self.prefix.join(&path)?.as_str())?;
        layout.data_dir = data_dir.clone();
        Ok(layout)
    }
}

impl Cluster<'_> {
    /// All data directories, the default one first. One request.
    pub async fn data_dirs(&self) -> Result<Vec<DataDir>, Error> {
        let named = self
            .store
            .children(&self.layout.prefix.join(FOLDER)?)
            .await?;
        let named = named.into_iter().map(DataDir::from_key);
        // Others may have put there what cannot be a data directory.
        let named = named.filter(|data_dir| self.layout.within(data_dir).is_ok());
        Ok([DataDir::default()].into_iter().chain(named).collect())
    }

    /// The records of a data directory, for a user of those of the default one.
    pub fn within(&self, data_dir: &DataDir) -> Result<Self, Error> {
        Ok(Self::new(self.store, self.layout.within(data_dir)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_from_its_key() {
        for directory in ["/srv/a", "x", "/a-b/é_1", "-2f", "%", "/srv/a b"] {
            let named = DataDir::new(directory).directory();
            assert_eq!(named.as_deref(), Some(directory));
        }
        for key in ["a-b", "-2F", "-", "-ff", "-2"] {
            let named = DataDir::from_key(key.to_owned()).directory();
            assert_eq!(named.as_deref(), Some(key));
        }
    }

    #[test]
    fn records_and_documents_are_under_one_path() {
        let usual = Layout::new("p").unwrap();
        for (directory, path, name) in [
            ("", "", "net1"),
            ("/srv/a", "/data/-2fsrv-2fa", "net1@/srv/a"),
        ] {
            let data_dir = DataDir::new(directory);
            assert_eq!(data_dir.is_default(), directory.is_empty());
            let layout = usual.within(&data_dir).unwrap();
            assert_eq!(
                layout.nodes().unwrap().as_str(),
                format!("p{path}/v1/nodes")
            );
            assert_eq!(layout.data_dir(), &data_dir);
            let folder = data_dir.folder(Path::new("/run"));
            assert_eq!(folder, Path::new(&format!("/run{path}")));
            assert_eq!(data_dir.full_name("net1"), name);
            assert_eq!(DataDir::of_network(name), (data_dir, "net1"));
        }
        assert_eq!(DataDir::of_network("net1@"), (DataDir::default(), "net1@"));
    }
}
