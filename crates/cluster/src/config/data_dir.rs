//! Data directories: the records of configurations that name a data directory (`ipam.dataDir`). Each has a layout of its own below
//! `<prefix>/data/<key>`, so that two directories never see each other. An operator, and what looks after a host, sees all.

use crate::{Cluster, Error};

impl Cluster<'_> {
    /// The data directories below these records. One request.
    pub async fn data_dirs(&self) -> Result<Vec<String>, Error> {
        let mut data_dirs = self.store.children(&self.layout.data()?).await?;
        // What others put there is none.
        data_dirs.retain(|data_dir| self.layout.apart(data_dir).is_ok());
        Ok(data_dirs)
    }
}

/// A directory's name as one segment of a key: what a key cannot have is written as `-` and two hex digits.
pub fn data_dir_key(dir: &str) -> String {
    let spell = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' => char::from(byte).to_string(),
        _ => format!("-{byte:02x}"),
    };
    dir.bytes().map(spell).collect()
}

/// The directory whose key this is; the key itself if it is not one of a directory.
pub fn directory_of(data_dir: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = data_dir.as_bytes();
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
    if data_dir_key(&dir) == data_dir {
        dir
    } else {
        data_dir.to_owned()
    }
}

/// How a network is called among those of all data directories: `net1`, or `net1@/srv/a` with its data directory.
pub fn full_name(network: &str, data_dir: Option<&str>) -> String {
    match data_dir {
        None => network.to_owned(),
        Some(data_dir) => format!("{network}@{}", directory_of(data_dir)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_from_its_realm() {
        for dir in ["/srv/a", "", "x", "/a-b/é_1", "-2f", "%", "/srv/a b"] {
            assert_eq!(directory_of(&data_dir_key(dir)), dir);
        }
        for none in ["a-b", "-2F", "-", "-ff", "-2"] {
            assert_eq!(directory_of(none), none);
        }
        assert_eq!(full_name("net1", Some("-2fsrv-2fa")), "net1@/srv/a");
    }
}
