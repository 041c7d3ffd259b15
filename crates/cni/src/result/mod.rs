//! The result of an ADD, which the next plugin gets as `prevResult`: one form for all versions.
//!
//! JSON has three forms (0.1.0 and 0.2.0; 0.3.0 to 0.4.0; 1.0.0 and 1.1.0). In memory there is only the newest; `read` and `write`
//! translate. A chained plugin must pass on what it was given, including unknown keys, so every object keeps those in `extra`. A
//! key in a result of an older version than the one that defined it is unknown, too, and is passed on unchanged.

mod legacy;
mod previous;
mod read;
mod write;

use crate::{Error, Version};
use ipnetwork::IpNetwork;
pub use previous::Previous;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// A result that an ADD can print.
pub trait Answer {
    /// The result in this version. Code 7 if that version has no form for it.
    fn to_value(&self, version: Version) -> Result<Value, Error>;
}

/// A result, in the shape of 1.1.0. Read it with [`CniResult::from_value`]: plain serde would miss `extra`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CniResult {
    /// Devices of the host and of the container.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes in the container.
    pub routes: Vec<Route>,
    /// Name service.
    pub dns: Dns,
    /// Unknown keys.
    #[serde(default, rename = "$extra")]
    pub extra: Map<String, Value>,
}

/// A device. `Interface { name, ..Default::default() }`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(deserialize_with = "read::text")]
    pub mac: Option<String>,
    /// Bytes; written in 1.1.0 only.
    pub mtu: Option<u32>,
    /// The namespace as in `CNI_NETNS`; `None` on the host.
    #[serde(deserialize_with = "read::text")]
    pub sandbox: Option<String>,
    /// `socketPath`; never ours.
    #[serde(deserialize_with = "read::text")]
    pub socket_path: Option<String>,
    /// `pciID`; never ours.
    #[serde(rename = "pciID", deserialize_with = "read::text")]
    pub pci_id: Option<String>,
    /// Unknown keys.
    #[serde(default, rename = "$extra")]
    pub extra: Map<String, Value>,
}

/// An address. `Ip { gateway, ..Ip::new(address) }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Ip {
    /// Address with its network's prefix length.
    #[serde(deserialize_with = "read::cidr")]
    pub address: IpNetwork,
    /// The network's gateway.
    #[serde(default, deserialize_with = "read::address")]
    pub gateway: Option<IpAddr>,
    /// Index in `interfaces`; `None` from an IPAM plugin.
    pub interface: Option<usize>,
    /// Unknown keys.
    #[serde(default, rename = "$extra")]
    pub extra: Map<String, Value>,
}

/// A route. `Route { gw, ..Route::to(dst) }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Route {
    /// Destination.
    #[serde(deserialize_with = "read::cidr")]
    pub dst: IpNetwork,
    /// The gateway; `None` means that of the address of the same family, if it has one.
    #[serde(default, deserialize_with = "read::address")]
    pub gw: Option<IpAddr>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Bytes.
    pub advmss: Option<u32>,
    /// Metric.
    pub priority: Option<u32>,
    /// Routing table.
    pub table: Option<u32>,
    /// Kernel's number (253 = link).
    pub scope: Option<u8>,
    /// Unknown keys.
    #[serde(default, rename = "$extra")]
    pub extra: Map<String, Value>,
}

/// Name service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Dns {
    /// Servers' addresses.
    pub nameservers: Vec<String>,
    /// Local domain.
    #[serde(deserialize_with = "read::text")]
    pub domain: Option<String>,
    /// Search list.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
    /// Unknown keys.
    #[serde(default, rename = "$extra")]
    pub extra: Map<String, Value>,
}

impl Ip {
    /// Only an address.
    pub fn new(address: IpNetwork) -> Self {
        Self {
            address,
            gateway: None,
            interface: None,
            extra: Map::new(),
        }
    }
}

impl Route {
    /// Only a destination.
    pub fn to(dst: IpNetwork) -> Self {
        Self {
            dst,
            gw: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
            extra: Map::new(),
        }
    }
}
