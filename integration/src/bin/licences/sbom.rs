//! The list of all that is linked, as `CycloneDX` 1.5 in JSON. It has neither a time nor a serial number: the same source gives the same bytes.

use std::collections::BTreeMap;

use integration::workspace;
use serde_json::{Value, json};

/// The document about `own` (`NAME VERSION`), with the crates and what else is linked (`NAME VERSION: LICENCE`).
pub(crate) fn bom(crates: &[&Value], own: &str, others: &[String]) -> Result<String, String> {
    let checksums = checksums()?;
    let mut components = Vec::new();
    for package in crates {
        let word = |key: &str| package[key].as_str().unwrap_or_default();
        let (name, version) = (word("name"), word("version"));
        let mut component = component(name, version, word("license"));
        let purl = format!("pkg:cargo/{name}@{version}");
        component["bom-ref"] = json!(purl);
        component["purl"] = json!(purl);
        if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        components.push(component);
    }
    for other in others {
        let (named, licence) = other.rsplit_once(": ").ok_or(other)?;
        let (name, version) = named.split_once(' ').ok_or(other)?;
        let mut component = component(name, version, licence);
        component["bom-ref"] = json!(format!("{name}@{version}"));
        components.push(component);
    }
    let (name, version) = own.split_once(' ').ok_or(own)?;
    let mut subject = component(name, version, "Apache-2.0");
    subject["type"] = json!("application");
    subject["bom-ref"] = json!(name);
    let needs: Vec<_> = components.iter().map(|it| it["bom-ref"].clone()).collect();
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": subject },
        "components": components,
        "dependencies": [{ "ref": name, "dependsOn": needs }],
    });
    Ok(format!("{bom:#}\n"))
}

fn component(name: &str, version: &str, licence: &str) -> Value {
    // Before Cargo knew expressions, a slash stood for OR.
    let expression = licence.replace('/', " OR ");
    json!({
        "type": "library", "name": name, "version": version, "licenses": [{ "expression": expression }],
    })
}

/// The SHA-256 of each crate's archive, as `Cargo.lock` pins them.
fn checksums() -> Result<BTreeMap<(String, String), String>, String> {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock"));
    let lock = lock.map_err(|error| format!("Cargo.lock: {error}"))?;
    let entries = lock.split("[[package]]").filter_map(|entry| {
        let value = |key: &str| {
            let start = format!("{key} = \"");
            let line = entry.lines().find_map(|line| line.strip_prefix(&start));
            line.map(|rest| rest.trim_end_matches('"').to_owned())
        };
        Some(((value("name")?, value("version")?), value("checksum")?))
    });
    Ok(entries.collect())
}
