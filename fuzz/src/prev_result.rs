//! A result of another plugin: read in any version and written in any other, nothing is lost that the other can say.

use std::net::IpAddr;

use cni::{Answer, CniResult, Version};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::{call, message};

/// Holds any result to that, taken for one of each version that does not say its own.
pub fn check(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    for default in Version::ALL {
        as_prev_result(&value, default);
        match CniResult::from_value(&value, default) {
            Ok(result) => survives(&result),
            Err(error) => {
                assert_eq!(error.code, 6, "{error}");
                message::is_a_line(&error.msg);
            }
        }
    }
}

/// In a configuration: an ADD refuses what cannot be read, a DEL does as if it were not there.
fn as_prev_result(value: &Value, version: Version) {
    let conf =
        json!({"cniVersion": version.as_str(), "name": "n", "type": "t", "prevResult": value});
    let stdin = conf.to_string();
    let read =
        |command| call::call(command, "", stdin.as_bytes()).map(|call| call.conf.prev_result);
    let alone = CniResult::from_value(value, version);
    let detached = read("DEL").expect("a DEL is not hindered");
    match (read("ADD"), alone) {
        // JSON's null is as good as nothing, where a plugin's output is an empty result.
        (Ok(None), Ok(result)) => assert!(value.is_null() && result == CniResult::default()),
        (Ok(Some(prev)), Ok(result)) => {
            assert_eq!(prev.result, result);
            if value["cniVersion"] == version.as_str() {
                assert_eq!(prev.to_value(version).as_ref(), Ok(value));
            }
            assert_eq!(detached, Some(prev));
        }
        (Err(error), Err(_)) => {
            message::names_a_key(&error);
            assert_eq!(detached, None);
        }
        (added, alone) => panic!("{added:?}, but alone {alone:?}"),
    }
}

/// Through every version and back.
fn survives(result: &CniResult) {
    for version in Version::ALL {
        let Ok(said) = result.to_value(version) else {
            assert!(
                version < Version::V0_3_0 && result.ips.is_empty(),
                "{version}: {result:?}"
            );
            continue;
        };
        assert_eq!(said["cniVersion"], version.as_str());
        let back = read(&said, version);
        if version < Version::V0_3_0 {
            assert_eq!(addresses(&back), first_of_each_family(result), "{said}");
        } else {
            assert_eq!(known(&back), known(result), "{said}");
        }
        // To the newest and back again: all that this version could say.
        let newest = back.to_value(Version::LATEST).expect("1.1.0 can say all");
        let returned = read(&newest, Version::LATEST);
        assert_eq!(known(&returned), known(&back), "{newest}");
        let again = returned.to_value(version).map(|said| read(&said, version));
        let again = again.as_ref().map(known);
        assert_eq!(again, Ok(known(&back)), "{newest}");
        // Unknown keys too, as long as the version stays.
        if version >= Version::V0_3_0 {
            assert_eq!(
                read(&back.to_value(version).expect("said before"), version),
                back,
                "{said}"
            );
        }
    }
}

fn read(value: &Value, default: Version) -> CniResult {
    CniResult::from_value(value, default).unwrap_or_else(|error| panic!("{value}: {error}"))
}

/// What all versions from 0.3.0 on have keys for. Those that 1.1.0 gave to interfaces go through the others as unknown ones.
fn known(result: &CniResult) -> CniResult {
    let mut known = result.clone();
    known.extra.clear();
    known.dns.extra.clear();
    known.ips.iter_mut().for_each(|ip| ip.extra.clear());
    known
        .routes
        .iter_mut()
        .for_each(|route| route.extra.clear());
    for interface in &mut known.interfaces {
        interface.extra.clear();
        (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
    }
    known
}

type Address = (IpNetwork, Option<IpAddr>);

fn addresses(result: &CniResult) -> Vec<Address> {
    result
        .ips
        .iter()
        .map(|ip| (ip.address, ip.gateway))
        .collect()
}

/// What the oldest versions have room for.
fn first_of_each_family(result: &CniResult) -> Vec<Address> {
    let all = addresses(result);
    let first = |v4| {
        all.iter()
            .copied()
            .find(|(address, _)| address.is_ipv4() == v4)
    };
    first(true).into_iter().chain(first(false)).collect()
}
