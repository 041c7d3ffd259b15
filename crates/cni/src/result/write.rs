//! Writes JSON of any version. What is empty is left out, as in the reference. A key in `extra` never replaces a field, in upper
//! or lower case: a key that was unknown in the version that was read may be known in the one that is written.

use super::{Answer, CniResult, Dns, Interface, Ip, Route, legacy};
use crate::{Error, Version};
use serde_json::{Map, Value};

impl Answer for CniResult {
    /// Writes it in `version`, without what that version does not have: before 1.1.0 an interface's `mtu`, `socketPath` and
    /// `pciID`; before 0.3.0 also the interfaces, all but the first address of each family, and all of a route but destination
    /// and gateway. Code 7 for these oldest versions if there is no address.
    fn to_value(&self, version: Version) -> Result<Value, Error> {
        let mut object = Map::new();
        put(&mut object, "cniVersion", Some(version.as_str()));
        if version < Version::V0_3_0 {
            if !legacy::write(self, &mut object) {
                let msg =
                    format!("cniVersion: {version} cannot express a result without addresses");
                return Err(Error::config(msg));
            }
        } else {
            let interface = |i| interface(i, version);
            let interfaces = self.interfaces.iter().map(interface).collect();
            put_list(&mut object, "interfaces", interfaces);
            let ips = self.ips.iter().map(|i| ip(i, version)).collect();
            put_list(&mut object, "ips", ips);
            put_list(
                &mut object,
                "routes",
                self.routes.iter().map(route).collect(),
            );
        }
        let dns = dns(&self.dns);
        put(&mut object, "dns", (!dns.is_empty()).then_some(dns));
        let keys: &[&str] = if version < Version::V0_3_0 {
            &["cniVersion", "ip4", "ip6", "dns"]
        } else {
            &["cniVersion", "interfaces", "ips", "routes", "dns"]
        };
        put_extra(&mut object, &self.extra, keys);
        Ok(Value::Object(object))
    }
}

fn interface(from: &Interface, version: Version) -> Value {
    let mut object = Map::new();
    put(&mut object, "name", Some(from.name.as_str()));
    put(&mut object, "mac", from.mac.as_deref());
    if version >= Version::V1_1_0 {
        put(&mut object, "mtu", from.mtu);
    }
    put(&mut object, "sandbox", from.sandbox.as_deref());
    if version >= Version::V1_1_0 {
        put(&mut object, "socketPath", from.socket_path.as_deref());
        put(&mut object, "pciID", from.pci_id.as_deref());
    }
    // Keys of 1.1.0 that came in an older version are passed on unchanged.
    put_extra(&mut object, &from.extra, &["name", "mac", "sandbox"]);
    Value::Object(object)
}

fn ip(from: &Ip, version: Version) -> Value {
    let mut object = Map::new();
    if version < Version::V1_0_0 {
        let family = if from.address.is_ipv4() { "4" } else { "6" };
        put(&mut object, "version", Some(family));
    }
    put(&mut object, "interface", from.interface);
    put(&mut object, "address", Some(from.address.to_string()));
    put(&mut object, "gateway", from.gateway.map(|g| g.to_string()));
    let keys = ["version", "interface", "address", "gateway"];
    put_extra(&mut object, &from.extra, &keys);
    Value::Object(object)
}

fn route(from: &Route) -> Value {
    let mut object = Map::new();
    put(&mut object, "dst", Some(from.dst.to_string()));
    put(&mut object, "gw", from.gw.map(|g| g.to_string()));
    put(&mut object, "mtu", from.mtu);
    put(&mut object, "advmss", from.advmss);
    put(&mut object, "priority", from.priority);
    put(&mut object, "table", from.table);
    put(&mut object, "scope", from.scope);
    put_extra(&mut object, &from.extra, &[]);
    Value::Object(object)
}

fn dns(from: &Dns) -> Map<String, Value> {
    let mut object = Map::new();
    let texts = |list: &[String]| list.iter().cloned().map(Value::from).collect();
    put_list(&mut object, "nameservers", texts(&from.nameservers));
    put(&mut object, "domain", from.domain.as_deref());
    put_list(&mut object, "search", texts(&from.search));
    put_list(&mut object, "options", texts(&from.options));
    put_extra(&mut object, &from.extra, &[]);
    object
}

pub(super) fn put(object: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}

pub(super) fn put_list(object: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    put(object, key, (!list.is_empty()).then_some(list));
}

/// `keys` are the keys that this form has for the object, if the form that was read had others.
pub(super) fn put_extra(
    object: &mut Map<String, Value>,
    extra: &Map<String, Value>,
    keys: &[&str],
) {
    for (key, value) in extra {
        if !keys.iter().any(|ours| ours.eq_ignore_ascii_case(key)) {
            object.entry(key).or_insert_with(|| value.clone());
        }
    }
}
