//! The store with which the containers of a network were made on this host. A host has one store, but its configuration can
//! change while containers run, and what was read from one store must never be written to another.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Layout, Resolved, StoreSettings};

/// A store, and the prefix of our keys in it. No secret is in it, only which files have them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreRef {
    /// The store as it was configured, with the prefix of all keys.
    pub store: StoreSettings,
    /// Whether a token of the environment was used, which is written nowhere.
    pub unwritten: bool,
    /// The key of the data directory to which the prefix leads; empty: the default one. Absent in documents of earlier versions.
    #[serde(rename = "dataDir", skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<String>,
}

impl StoreRef {
    /// Whether URL and prefix are the same. One store can have two URLs, so two references with different names may be the same
    /// store: then it has the very network that the host knows.
    pub fn has_same_name(&self, other: &Self) -> bool {
        (&self.store.url, &self.store.prefix) == (&other.store.url, &other.store.prefix)
    }

    /// Whether the two may be different stores: their names differ, and this is not because they are for two data directories.
    pub fn is_another(&self, other: &Self) -> bool {
        let of_one_data_dir = match (&self.data_dir, &other.data_dir) {
            (Some(here), Some(there)) => here == there,
            _ => self.data_dir_by_prefix() == other.data_dir_by_prefix(),
        };
        of_one_data_dir && !self.has_same_name(other)
    }

    /// The data directory as far as the prefix tells it: a prefix of the default one can look the same.
    fn data_dir_by_prefix(&self) -> Option<&str> {
        let (_, dir) = self.store.prefix.as_ref()?.rsplit_once("/data/")?;
        Some(dir)
    }

    /// The refusal of a verb that would use the store `here` while containers on `network` were made with this one.
    pub fn refuse(&self, network: &str, here: &Self) -> Error {
        Error::Elsewhere {
            network: network.to_owned(),
            there: self.to_string(),
            here: here.to_string(),
        }
    }
}

impl fmt::Display for StoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spell = |word: &Option<String>| word.clone().unwrap_or_default();
        // Settings that were refused for a secret in the URL are printed, too.
        let url = store::without_secrets(&spell(&self.store.url));
        write!(f, "{url} (prefix {})", spell(&self.store.prefix))
    }
}

impl Resolved {
    /// Whether the store is a directory of this host, which no other host shares.
    pub fn is_local(&self) -> bool {
        let url = self.store.url.as_deref().unwrap_or(store::DEFAULT_URL);
        url.starts_with("dir://")
    }

    /// The store of these settings.
    pub fn store_ref(&self) -> StoreRef {
        let store = self.store.clone();
        StoreRef {
            unwritten: store.token.is_some(),
            data_dir: Some(self.layout.data_dir().key().to_owned()),
            store: StoreSettings {
                url: store.url.or_else(|| Some(store::DEFAULT_URL.to_owned())),
                prefix: Some(self.layout.prefix().to_owned()),
                token_file: store.token_file,
                ca_file: store.ca_file,
                cert_file: store.cert_file,
                key_file: store.key_file,
                ca_path: store.ca_path,
                server_name: store.server_name,
            },
        }
    }

    /// The same settings with another store; `None` if that needs a token that was in an environment: the token of this
    /// environment may belong to another store.
    pub fn at(&self, store_ref: &StoreRef) -> Option<Self> {
        if store_ref.unwritten {
            return None;
        }
        let there = store_ref.store.clone();
        Some(Self {
            another_store: None,
            names_store: true,
            layout: Layout::new(&there.prefix?).ok()?,
            store: store::Config {
                url: there.url,
                token: None,
                token_file: there.token_file,
                ca_file: there.ca_file,
                cert_file: there.cert_file,
                key_file: there.key_file,
                ca_path: there.ca_path,
                server_name: there.server_name,
                ..self.store.clone()
            },
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDir;

    fn store_ref(prefix: &str, directory: &str) -> StoreRef {
        let settings = Resolved {
            store: store::Config::default(),
            layout: Layout::new(prefix).unwrap(),
            node: "n".to_owned(),
            underlay: None,
            vtep: None,
            network: crate::NetworkDefaults::default(),
            names_store: true,
            another_store: None,
        };
        let settings = settings.within(&DataDir::new(directory)).unwrap();
        settings.store_ref()
    }

    /// The same, as versions wrote it that did not note the data directory.
    fn earlier(prefix: &str, directory: &str) -> StoreRef {
        let mut document = serde_json::to_value(store_ref(prefix, directory)).unwrap();
        document.as_object_mut().unwrap().remove("dataDir");
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_changed_prefix_is_another_store_and_another_data_directory_is_not() {
        let there = store_ref("team", "a");
        assert!(store_ref("team/data/a", "").is_another(&store_ref("team/data/b", "")));
        assert!(there.is_another(&store_ref("other", "a")));
        assert!(!there.is_another(&store_ref("team", "b")));
        assert!(!there.is_another(&store_ref("team", "")));
        assert!(!there.is_another(&there));
    }

    #[test]
    fn a_document_without_the_data_directory_is_compared_by_its_prefix() {
        for (there, here, is_another) in [
            (("team", "a"), ("other", "a"), true),
            (("team", "a"), ("team", "b"), false),
            (("team", ""), ("team", "b"), false),
            (("one/data/a", ""), ("two/data/a", ""), true),
        ] {
            let (there, here) = (earlier(there.0, there.1), store_ref(here.0, here.1));
            assert_eq!(there.is_another(&here), is_another, "{there} {here}");
            assert_eq!(here.is_another(&there), is_another, "{there} {here}");
        }
    }
}
