//! Reads JSON of any version.

use super::{CniResult, Interface, legacy};
use crate::{Error, Version, decode};
use ipnetwork::IpNetwork;
use serde::de::{self, Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::net::IpAddr;

#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Head {
    cni_version: String,
}

/// The largest number of interfaces, of addresses, of routes, and of entries of each list of `dns` in a result. Plugins compare these
/// lists with each other and with the kernel, so that the time that they take grows with the square of it.
const MOST_ENTRIES: usize = 4096;

impl CniResult {
    /// Reads a result of any version; `default` is the version of one without. Null is an empty result, because some IPAM
    /// plugins print it. Code 6, with path and value, also for a list with more than 4,096 entries.
    pub fn from_value(value: &Value, default: Version) -> Result<Self, Error> {
        if value.is_null() {
            return Ok(Self::default());
        }
        read(value, default).map_err(|e| Error::decode(e.msg))
    }
}

fn read(value: &Value, default: Version) -> Result<CniResult, Error> {
    refuse_long_lists(value)?;
    let Head { cni_version } = decode(value)?;
    let version = if cni_version.is_empty() {
        default
    } else {
        let bad = || Error::decode(format!("cniVersion: {cni_version:?} is not supported"));
        Version::parse(&cni_version).ok_or_else(bad)?
    };
    let mut result = if version < Version::V0_3_0 {
        legacy::read(value)?
    } else {
        decode::<CniResult>(value)?
    };
    forget(&mut result.extra, "cniVersion");
    for ip in &mut result.ips {
        // 0.3.0 to 0.4.0 have the family in a key of its own. The address tells it, too.
        forget(&mut ip.extra, "version");
    }
    if version < Version::V1_1_0 {
        result.interfaces.iter_mut().for_each(not_yet_known);
    }
    Ok(result)
}

/// The lists of a result, and the objects that have some.
const LISTS: [&str; 6] = [
    "interfaces",
    "ips",
    "routes",
    "nameservers",
    "search",
    "options",
];
const OBJECTS: [&str; 3] = ["dns", "ip4", "ip6"];

/// Refuses a result with a long list before it is decoded, because that alone would take long.
fn refuse_long_lists(value: &Value) -> Result<(), Error> {
    let is_in = |names: &[&str], key: &str| names.iter().any(|it| key.eq_ignore_ascii_case(it));
    for (key, value) in value.as_object().into_iter().flatten() {
        let entries = value.as_array().map_or(0, Vec::len);
        if entries > MOST_ENTRIES && is_in(&LISTS, key) {
            let msg = format!("{key}: {entries} entries; {MOST_ENTRIES} are the most");
            return Err(Error::decode(msg));
        }
        if is_in(&OBJECTS, key) {
            refuse_long_lists(value)?;
        }
    }
    Ok(())
}

/// Removes `key`, in upper or lower case.
fn forget(extra: &mut Map<String, Value>, key: &str) {
    extra.retain(|k, _| !k.eq_ignore_ascii_case(key));
}

/// The keys that 1.1.0 added to interfaces are unknown keys in older versions.
fn not_yet_known(interface: &mut Interface) {
    let keys = [
        ("mtu", interface.mtu.take().map(Value::from)),
        ("socketPath", interface.socket_path.take().map(Value::from)),
        ("pciID", interface.pci_id.take().map(Value::from)),
    ];
    for (key, value) in keys {
        if let Some(value) = value {
            interface.extra.insert(key.to_owned(), value);
        }
    }
}

/// An address with a prefix length. Without one it would silently become a network of one host.
pub(super) fn cidr<'de, D: Deserializer<'de>>(from: D) -> Result<IpNetwork, D::Error> {
    let text = String::deserialize(from)?;
    if !text.contains('/') {
        return Err(de::Error::custom(format!("{text:?} has no prefix length")));
    }
    let bad = |_| de::Error::custom(format!("{text:?} is not an address with prefix length"));
    text.parse().map_err(bad)
}

/// Go writes an absent address as an empty string.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    let Some(text) = text(from)? else {
        return Ok(None);
    };
    let bad = |_| de::Error::custom(format!("{text:?} is not an address"));
    text.parse().map(Some).map_err(bad)
}

/// The same for a text.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}
