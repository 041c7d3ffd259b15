//! Places: of which store, and where in it, the documents are that a host keeps of a network. A conflist may name another store
//! than the host's own settings do, and what was read of one must never be written to the other.

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
    /// Whether both are called the same. Two that are not may be one store all the same: it has the very network then that
    /// the host knows of.
    pub fn is_called_as(&self, other: &Self) -> bool {
        (&self.store.url, &self.store.prefix) == (&other.store.url, &other.store.prefix)
    }

    /// Why nothing is done for a network here.
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
        // Settings that are refused for a secret in the URL are told of as well.
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

    /// Where these settings lead.
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

    /// The same host's settings for another place; `None` where that takes a token that is written nowhere: one that is in the
    /// environment now may be of another store, which alone may see it.
    pub fn at(&self, store_ref: &StoreRef) -> Option<Self> {
        if store_ref.unwritten {
            return None;
        }
        let there = store_ref.store.clone();
        Some(Self {
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
