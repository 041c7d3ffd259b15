//! Realms: the records of configurations that name a data directory (`ipam.dataDir`). Each has a layout of its own below
//! `<prefix>/data/<realm>`, so that two directories never see each other. An operator, and what looks after a host, sees all.

use crate::{Cluster, Error};

impl Cluster<'_> {
    /// The realms below these records. One request.
    pub async fn realms(&self) -> Result<Vec<String>, Error> {
        let mut realms = self.store.children(&self.layout.data()?).await?;
        // What others put there is none.
        realms.retain(|realm| self.layout.apart(realm).is_ok());
        Ok(realms)
    }
}

/// A directory's name as one segment of a key: what a key cannot have is written as `-` and two hex digits.
pub fn realm_of(dir: &str) -> String {
    let spell = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' => char::from(byte).to_string(),
        _ => format!("-{byte:02x}"),
    };
    dir.bytes().map(spell).collect()
}

/// The directory of a realm; the realm itself where it was made of none.
pub fn directory_of(realm: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = realm.as_bytes();
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
    let dir = String::from_utf8(bytes).unwrap_or_default();
    if realm_of(&dir) == realm {
        dir
    } else {
        realm.to_owned()
    }
}

/// How a network is called among those of all realms: `net1`, or `net1@/srv/a` with its data directory.
pub fn full_name(network: &str, realm: Option<&str>) -> String {
    match realm {
        None => network.to_owned(),
        Some(realm) => format!("{network}@{}", directory_of(realm)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_from_its_realm() {
        for dir in ["/srv/a", "", "x", "/a-b/é_1", "-2f", "%", "/srv/a b"] {
            assert_eq!(directory_of(&realm_of(dir)), dir);
        }
        for none in ["a-b", "-2F", "-", "-ff", "-2"] {
            assert_eq!(directory_of(none), none);
        }
        assert_eq!(full_name("net1", Some("-2fsrv-2fa")), "net1@/srv/a");
    }
}
