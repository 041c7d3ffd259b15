//! What an ADD answers, and what the next plugin gets as `prevResult`: one form for all versions.

use crate::{Error, Version};
use ipnetwork::IpNetwork;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// A result, in the shape of 1.1.0. `extra` everywhere holds the keys that we do not know, so that a chained plugin
/// passes on what it was given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CniResult {
    /// Host side and container side devices.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes in the container.
    pub routes: Vec<Route>,
    /// Name service.
    pub dns: Dns,
    /// Unknown keys.
    pub extra: Map<String, Value>,
}

/// A device. `Interface { name, ..Default::default() }`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Bytes; written in 1.1.0 only.
    pub mtu: Option<u32>,
    /// The namespace as in `CNI_NETNS`; none on the host.
    pub sandbox: Option<String>,
    /// `socketPath`; never ours.
    pub socket_path: Option<String>,
    /// `pciID`; never ours.
    pub pci_id: Option<String>,
    /// Unknown keys.
    pub extra: Map<String, Value>,
}

/// An address. `Ip { gateway, ..Ip::new(address) }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ip {
    /// Address with its network's prefix length.
    pub address: IpNetwork,
    /// The network's gateway.
    pub gateway: Option<IpAddr>,
    /// Index in `interfaces`; none from an IPAM plugin.
    pub interface: Option<usize>,
    /// Unknown keys.
    pub extra: Map<String, Value>,
}

/// A route. `Route { gw, ..Route::to(dst) }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Destination.
    pub dst: IpNetwork,
    /// None: the gateway of the address of the same family, if it has one.
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
    pub extra: Map<String, Value>,
}

/// Name service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dns {
    /// Servers' addresses.
    pub nameservers: Vec<String>,
    /// Local domain.
    pub domain: Option<String>,
    /// Search list.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
    /// Unknown keys.
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

impl CniResult {
    /// Reads a result of any version; `default` if it does not say its own. Code 6.
    pub fn from_value(_value: &Value, _default: Version) -> Result<Self, Error> {
        todo!()
    }
    /// Writes it in `version`. Code 7 for a version that needs an address (0.1.0, 0.2.0) if there is none.
    pub fn to_value(&self, _version: Version) -> Result<Value, Error> {
        todo!()
    }
}
