//! A cluster that is only in the store: nodes, blocks and leases that nobody ever ran for, in the records' own form.
//!
//! It costs transactions in place of a million processes. That the records are the product's, and not only alike, is
//! shown by reading them back with `crosshost endpoint ls`, and by the host whose own leases are seeded: it takes them over.

use std::net::Ipv4Addr;

use integration::{Consul, Host};
use serde_json::{Value, json};

/// Below the prefix that the product has by default.
const ROOT: &str = "crosshost/v1";

/// Most operations in one transaction of the oldest Consul that we support.
const MOST: usize = 64;

/// A key below the root and its record.
pub type Record = (String, Value);

/// A number of nodes that are not there, each with a tunnel address that nobody answers at.
pub fn nodes(count: u32) -> impl Iterator<Item = Record> {
    (0..count).map(|number| {
        let vtep = address("100.64.0.1", number).to_string();
        (
            format!("nodes/{}", node(number)),
            json!({
                "schema": 1,
                "name": node(number),
                "vtep": vtep,
                "bootID": boot_id(number),
                "machineID": format!("{number:032x}"),
                "lastContact": 1_790_000_000,
            }),
        )
    })
}

/// The name of node `number` of those.
pub fn node(number: u32) -> String {
    format!("sim{number:04}")
}

/// That `node` owns a block, such as `10.0.4.0_22`.
pub fn block(network: &str, block: &str, node: &str) -> Record {
    let key = format!("blocks/{network}/{block}");
    (key, json!({ "schema": 1, "node": node }))
}

/// That container number `number` of `node` has an address.
pub fn lease(network: &str, address: Ipv4Addr, node: &str, boot_id: &str, number: u32) -> Record {
    let key = format!("leases/{network}/{address}");
    let record = json!({
        "schema": 1,
        "node": node,
        "bootID": boot_id,
        "containerID": format!("{number:064x}"),
        "ifname": "eth0",
        "since": 1_790_000_000,
    });
    (key, record)
}

/// The boot of node `number`, which has not ended since.
pub fn boot_id(number: u32) -> String {
    format!("5eed0000-0000-4000-8000-{number:012x}")
}

/// `offset` addresses after `first`.
pub fn address(first: &str, offset: u32) -> Ipv4Addr {
    let first: Ipv4Addr = first.parse().expect("an IPv4 address");
    Ipv4Addr::from_bits(first.to_bits() + offset)
}

/// Writes all of them. Each must be new: a block that is seeded over another's would be a lie.
pub fn seed(consul: &Consul, records: impl IntoIterator<Item = Record>) {
    let mut operations = Vec::new();
    for (key, record) in records {
        operations.push(create(&format!("{ROOT}/{key}"), &record));
        if operations.len() == MOST {
            transact(consul, std::mem::take(&mut operations));
        }
    }
    transact(consul, operations);
}

/// The operation that creates a key which must be absent.
pub fn create(key: &str, record: &Value) -> Value {
    let value = base64(record.to_string().as_bytes());
    json!({ "KV": { "Verb": "cas", "Key": key, "Value": value, "Index": 0 } })
}

fn transact(consul: &Consul, operations: Vec<Value>) {
    if operations.is_empty() {
        return;
    }
    let (status, said) = consul.request("PUT", "/v1/txn", &Value::from(operations).to_string());
    assert_eq!(status, 200, "seeding: {said}");
}

/// The names of the blocks of a network that somebody has.
pub fn blocks_of(consul: &Consul, network: &str) -> Vec<String> {
    let target = format!("/v1/kv/{ROOT}/blocks/{network}/?keys");
    let (_, said) = consul.request("GET", &target, "");
    let keys: Vec<String> = serde_json::from_str(&said).unwrap_or_default();
    let last = |key: &String| key.rsplit('/').next().map(str::to_owned);
    keys.iter().filter_map(last).collect()
}

/// Blocks of 2^`bits` addresses of the pool at `pool`, from its middle on, where no host looks for its first ones, that
/// nobody has: their first addresses.
pub fn free_blocks(
    consul: &Consul,
    network: &str,
    pool: &'static str,
    pool_bits: u32,
    bits: u32,
) -> impl Iterator<Item = Ipv4Addr> {
    let taken = blocks_of(consul, network);
    let middle = 1 << (pool_bits - 1);
    let all = (0..middle >> bits).map(move |number| address(pool, middle + (number << bits)));
    all.filter(move |first| !taken.contains(&format!("{first}_{}", 32 - bits)))
}

/// Insists that the product reads as many leases as were written.
pub fn assert_leases(host: &Host, at_least: usize) {
    let listed = host.listed("endpoint ls");
    let count = listed.as_array().map_or(0, Vec::len);
    assert!(
        count >= at_least,
        "{} sees {count} leases of {at_least}",
        host.name()
    );
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > three.len() {
                '='
            } else {
                digit.into()
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spelled_as_consul_wants_them() {
        // RFC 4648, section 10.
        for (plain, spelled) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), spelled);
        }
    }

    #[test]
    fn simulated_nodes_have_addresses_of_their_own() {
        assert_eq!(address("100.64.0.1", 999).to_string(), "100.64.3.232");
        assert_eq!(node(999), "sim0999");
    }
}
