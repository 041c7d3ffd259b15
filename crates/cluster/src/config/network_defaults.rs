//! The section `network` of the configuration file: what `crosshost network create` does where no option says otherwise.

use std::path::PathBuf;

use ipam::AddressPool;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{Error, config::settings::setting};

/// Docker's overlay networks are /24s of this one, too.
const BASE: (u32, u8) = (0x0a00_0000, 8);
const SIZE: u8 = 24;

/// The section, as the file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkDefaults {
    /// Where the subnets of networks come from that are created without one; empty: /24s of 10.0.0.0/8. Of IPv6, if no pool is named,
    /// a network gets a unique local subnet (RFC 4193).
    pub default_address_pools: Vec<AddressPool>,
    /// The folders in which this host has a conflist of each network; empty: none.
    pub conflist_dirs: Vec<PathBuf>,
}

impl NetworkDefaults {
    /// The section, if its values can be used; errors name key and value.
    pub(crate) fn check(self) -> Result<Self, Error> {
        for (at, pool) in self.default_address_pools.iter().enumerate() {
            let checked = pool.check();
            let key = format!("network.defaultAddressPools[{at}]");
            checked.map_err(|error| setting(&key, &error))?;
        }
        let mut folders = self.conflist_dirs.iter();
        if let Some(relative) = folders.find(|folder| !folder.is_absolute()) {
            let key = format!("network.conflistDirs {}", relative.display());
            return Err(setting(&key, &"want an absolute path"));
        }
        Ok(self)
    }

    /// The pools of one version of IP. `unique` is a word that no other network has: without a pool for IPv6 the network's global id
    /// follows from it.
    pub fn pools(&self, is_v6: bool, unique: &str) -> Vec<AddressPool> {
        let named = self.default_address_pools.iter();
        let named: Vec<_> = named
            .filter(|pool| pool.base.is_ipv6() == is_v6)
            .copied()
            .collect();
        if !named.is_empty() {
            return named;
        }
        let (base, size) = if is_v6 {
            // The 40 bits of a global id, from the hexadecimal digits of a UUID.
            let digits: String = unique.chars().filter(char::is_ascii_hexdigit).collect();
            let id = digits.get(..10).unwrap_or_default();
            let id = u128::from_str_radix(id, 16).unwrap_or_default();
            let first = std::net::Ipv6Addr::from_bits(0xfd << 120 | id << 80);
            (IpNetwork::new(first.into(), 48), 64)
        } else {
            let first = std::net::Ipv4Addr::from_bits(BASE.0);
            (IpNetwork::new(first.into(), BASE.1), SIZE)
        };
        let base = base.into_iter();
        base.map(|base| AddressPool { base, size }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(json: &str) -> Result<NetworkDefaults, Error> {
        serde_json::from_str::<NetworkDefaults>(json)
            .unwrap()
            .check()
    }

    fn spell(pools: Vec<AddressPool>) -> Vec<String> {
        let spell = |pool: AddressPool| format!("{} /{}", pool.base, pool.size);
        pools.into_iter().map(spell).collect()
    }

    #[test]
    fn without_pools_subnets_are_those_of_docker_and_unique_local_ones() {
        let defaults = NetworkDefaults::default();
        assert_eq!(spell(defaults.pools(false, "")), ["10.0.0.0/8 /24"]);
        let uuid = "0123abcd-ef45-4789-8abc-def012345678";
        assert_eq!(
            spell(defaults.pools(true, uuid)),
            ["fd01:23ab:cdef::/48 /64"]
        );
    }

    #[test]
    fn the_pools_of_a_version_of_ip_replace_its_default() {
        let defaults = defaults(
            r#"{"defaultAddressPools": [{"base": "172.20.0.0/14", "size": 26}, {"base": "10.9.0.0/16", "size": 24}]}"#,
        );
        let defaults = defaults.unwrap();
        let v4 = ["172.20.0.0/14 /26", "10.9.0.0/16 /24"];
        assert_eq!(spell(defaults.pools(false, "")), v4);
        assert_eq!(spell(defaults.pools(true, "")), ["fd00::/48 /64"]);
    }

    #[test]
    fn bad_values_are_named_with_their_key() {
        for (json, words) in [
            (
                r#"{"defaultAddressPools": [{"base": "10.0.0.1/8", "size": 24}]}"#,
                "network.defaultAddressPools[0]: base: 10.0.0.1/8",
            ),
            (
                r#"{"defaultAddressPools": [{"base": "10.0.0.0/8", "size": 4}]}"#,
                "network.defaultAddressPools[0]: size: 4",
            ),
            (
                r#"{"conflistDirs": ["net.d"]}"#,
                "network.conflistDirs net.d: want an absolute path",
            ),
        ] {
            let refused = defaults(json).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
