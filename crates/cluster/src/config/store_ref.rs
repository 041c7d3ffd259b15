//! The store with which the containers of a network were made on this host. A host has one store, but its configuration can
//! change while containers run, and what was read from one store must never be written to another.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Layout, Resolved, StoreSettings};

/// A store, and the first segments of our keys in it. No secret is in it, only which files have them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreRef {
    /// The store as it was configured, with the prefix of all keys.
    pub store: StoreSettings,
    /// Whether a token of the environment was used, which is written nowhere.
    pub unwritten: bool,
}

impl StoreRef {
    /// Whether both have the same name. A store can have two: then it has the very network that the host knows.
    pub fn is_called_as(&self, other: &Self) -> bool {
        (&self.store.url, &self.store.prefix) == (&other.store.url, &other.store.prefix)
    }

    /// Whether the two may be different stores: their names differ. Those of two data directories are not compared.
    pub fn is_another(&self, other: &Self) -> bool {
        self.data_dir() == other.data_dir() && !self.is_called_as(other)
    }

    fn data_dir(&self) -> Option<&str> {
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
