//! A result of another plugin: read in any version and written in any other, nothing is lost that the other can say.

use cni::{CniResult, Version};
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
        (Ok(prev), Ok(result)) => assert!(prev.as_ref() == Some(&result) && detached == prev),
        (Err(error), Err(_)) => {
            message::names_a_key(&error);
            assert_eq!(detached, None);
        }
        (added, alone) => panic!("{added:?}, but alone {alone:?}"),
    }
}

/// Through every version and back.
fn survives(result: &CniResult) {
    let read = |value: &Value, from| {
        CniResult::from_value(value, from).unwrap_or_else(|error| panic!("{value}: {error}"))
    };
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
            assert_eq!(back.ips.len(), families(result), "{said}");
            for ip in &back.ips {
                let first = result
                    .ips
                    .iter()
                    .find(|other| other.address.is_ipv4() == ip.address.is_ipv4());
                let first = first.expect("an address of the family");
                assert_eq!((ip.address, ip.gateway), (first.address, first.gateway));
            }
        } else {
            assert_eq!(addresses(&back), addresses(result), "{said}");
            assert_eq!(back.routes, result.routes, "{said}");
            assert_eq!(back.interfaces.len(), result.interfaces.len(), "{said}");
        }
        assert_eq!(back.dns, result.dns, "{said}");
        // To the newest and back again: all that this version could say.
        let newest = back.to_value(Version::LATEST).expect("1.1.0 can say all");
        let returned = read(&newest, Version::LATEST);
        assert_eq!(addresses(&returned), addresses(&back), "{newest}");
        assert_eq!(returned.to_value(version).as_ref(), Ok(&said), "{newest}");
    }
    let newest = result.to_value(Version::LATEST).expect("1.1.0 can say all");
    assert_eq!(&read(&newest, Version::LATEST), result, "{newest}");
}

/// All of the addresses but what others added to them.
fn addresses(result: &CniResult) -> Vec<String> {
    let spell = |ip: &cni::Ip| format!("{} {:?} {:?}", ip.address, ip.gateway, ip.interface);
    result.ips.iter().map(spell).collect()
}

fn families(result: &CniResult) -> usize {
    let has = |v4| result.ips.iter().any(|ip| ip.address.is_ipv4() == v4);
    usize::from(has(true)) + usize::from(has(false))
}
