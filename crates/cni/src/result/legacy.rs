//! Results in the form of CNI 0.1.0 and 0.2.0: at most one address a family, each with its own routes, and no interfaces. `write.rs`
//! writes all versions: it calls this file for these two, and leaves out what 0.3.0 to 1.0.0 do not have.

use super::{CniResult, Dns, Ip, Route, read, write};
use crate::{Error, decode};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::net::IpAddr;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Legacy {
    ip4: Option<Family>,
    ip6: Option<Family>,
    dns: Dns,
    #[serde(rename = "$extra")]
    extra: Map<String, Value>,
}

#[derive(Deserialize)]
struct Family {
    #[serde(deserialize_with = "read::cidr")]
    ip: IpNetwork,
    #[serde(default, deserialize_with = "read::address")]
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default, rename = "$extra")]
    extra: Map<String, Value>,
}

/// Code 7, with path and value.
pub(super) fn read(value: &Value) -> Result<CniResult, Error> {
    let Legacy {
        ip4,
        ip6,
        dns,
        extra,
    } = decode(value)?;
    let mut result = CniResult {
        dns,
        extra,
        ..CniResult::default()
    };
    for family in [ip4, ip6].into_iter().flatten() {
        result.routes.extend(family.routes);
        result.ips.push(Ip {
            gateway: family.gateway,
            extra: family.extra,
            ..Ip::new(family.ip)
        });
    }
    Ok(result)
}

/// The first address of each family with the routes of that family. This form has no room for anything else.
/// Adds to `object`; returns whether there was an address.
pub(super) fn write(result: &CniResult, object: &mut Map<String, Value>) -> bool {
    let mut any = false;
    for (key, v4) in [("ip4", true), ("ip6", false)] {
        let Some(ip) = result.ips.iter().find(|ip| ip.address.is_ipv4() == v4) else {
            continue;
        };
        let mut family = Map::new();
        write::put(&mut family, "ip", Some(ip.address.to_string()));
        write::put(&mut family, "gateway", ip.gateway.map(|g| g.to_string()));
        let routes = result.routes.iter().filter(|r| r.dst.is_ipv4() == v4);
        write::put_list(&mut family, "routes", routes.map(route).collect());
        write::put_extra(&mut family, &ip.extra, &["ip", "gateway", "routes"]);
        object.insert(key.to_owned(), Value::Object(family));
        any = true;
    }
    any
}

/// Destination and gateway only.
fn route(route: &Route) -> Value {
    let mut object = Map::new();
    write::put(&mut object, "dst", Some(route.dst.to_string()));
    write::put(&mut object, "gw", route.gw.map(|g| g.to_string()));
    write::put_extra(&mut object, &route.extra, &[]);
    Value::Object(object)
}
