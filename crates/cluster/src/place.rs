//! Places: of which store, and where in it, the documents are that a host keeps of a network. A conflist may name another store
//! than the host's own settings do, and what was read of one must never be written to the other.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Layout, Network, Resolved};

/// A store, and the first segments of our keys in it. No secret is in it, only which files have them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Place {
    /// The store's URL, as it was configured.
    pub url: String,
    /// First segments of all keys.
    pub prefix: String,
    /// File that holds the ACL token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Certificates of the authorities to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Whether a token of the environment was used, which is written nowhere.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unwritten: bool,
}

impl Place {
    /// Whether both are called the same. Two that are not may be one store all the same.
    pub fn is_called_as(&self, other: &Self) -> bool {
        (&self.url, &self.prefix) == (&other.url, &other.prefix)
    }

    /// Whether what a host keeps of `network`, read at this place, may be gone on with `here`, where the store says `present`
    /// of the network of that name.
    pub fn leads_to(&self, here: &Self, network: &Network, present: Option<&Network>) -> bool {
        self.is_called_as(here) || present.is_some_and(|present| present.is_same(network))
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

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (prefix {})", self.url, self.prefix)
    }
}

impl Resolved {
    /// Where these settings lead.
    pub fn place(&self) -> Place {
        let store = self.store.clone();
        Place {
            url: store.url.unwrap_or_else(|| store::DEFAULT_URL.to_owned()),
            prefix: self.layout.prefix().to_owned(),
            unwritten: store.token.is_some(),
            token_file: store.token_file,
            ca_file: store.ca_file,
            cert_file: store.cert_file,
            key_file: store.key_file,
        }
    }

    /// The same host's settings for another place; `None` where that takes a token that is written nowhere: one that is in the
    /// environment now may be of another store, which alone may see it.
    pub fn at(&self, place: &Place) -> Option<Self> {
        if place.unwritten {
            return None;
        }
        let place = place.clone();
        Some(Self {
            layout: Layout::new(&place.prefix).ok()?,
            store: store::Config {
                url: Some(place.url),
                token: None,
                token_file: place.token_file,
                ca_file: place.ca_file,
                cert_file: place.cert_file,
                key_file: place.key_file,
                ..self.store.clone()
            },
            ..self.clone()
        })
    }
}
