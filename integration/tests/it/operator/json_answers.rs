//! `docs/json.md` against what the commands print: each key that is printed is explained there, and each that is explained there is
//! printed, with a value of the kind that it says.

use std::collections::{BTreeMap, BTreeSet};

use integration::{Backend, Lab, workspace};
use serde_json::{Value, json};

use crate::portmap::published::network;

/// The keys of a table of the document, each with its kind.
fn explained(document: &str, heading: &str) -> BTreeMap<String, String> {
    let part = document.split("\n## ").find_map(|part| {
        let (head, rest) = part.split_once('\n')?;
        (head == heading).then_some(rest)
    });
    let part = part.unwrap_or_else(|| panic!("docs/json.md: no {heading}"));
    let rows = part.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| {
        let mut cells = row.split(" | ");
        let key = cells.next().unwrap_or_default().trim_end_matches('`');
        (key.to_owned(), cells.next().unwrap_or_default().to_owned())
    });
    let rows: BTreeMap<_, _> = rows.collect();
    assert!(rows.len() > 3, "{heading} was read");
    rows
}

/// Whether a value is of the kind that the document says.
fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "text" => value.is_string(),
        "number" => value.is_u64(),
        "object" => value.is_object(),
        "true or false" => value.is_boolean(),
        "list of text" => is_list(value, Value::is_string),
        "list of objects" => is_list(value, Value::is_object),
        "list of lists" => is_list(value, Value::is_array),
        _ => match kind.strip_suffix(" or null") {
            Some(kind) => value.is_null() || is_of(value, kind),
            None => panic!("docs/json.md: what is {kind:?}?"),
        },
    }
}

fn is_list(value: &Value, is: impl FnMut(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(is))
}

/// Compares an object with the table, and notes which keys were there. What the table does not take apart is not looked into.
fn compare(
    object: &Value,
    below: &str,
    table: &BTreeMap<String, String>,
    seen: &mut BTreeSet<String>,
) {
    for (key, value) in object.as_object().expect("an object") {
        let path = format!("{below}{key}");
        let kind = table.get(&path);
        let kind = kind.unwrap_or_else(|| panic!("docs/json.md: no {path}, as in {object:#}"));
        assert!(is_of(value, kind), "{path} is no {kind}: {value}");
        let mut inner = (path.clone(), vec![value]);
        while inner.1.iter().all(|it| it.is_array()) && !inner.1.is_empty() {
            inner.0 += "[]";
            inner.1 = inner
                .1
                .into_iter()
                .filter_map(Value::as_array)
                .flatten()
                .collect();
        }
        let below = format!("{}.", inner.0);
        if table.keys().any(|key| key.starts_with(&below)) {
            for one in inner.1 {
                compare(one, &below, table, seen);
            }
        }
        seen.insert(path);
    }
}

#[test]
fn each_key_is_explained_and_each_explained_key_is_printed() {
    let lab = Lab::registered(2, Backend::Dir);
    let host = lab.host(1);
    let mut conflist = network("overlay", "ov_net1", 1);
    conflist["plugins"][0]["ipam"]["ranges"][0][0]["exclude"] = json!(["10.1.0.9"]);
    host.install(&conflist);
    host.create_network("damaged", "10.2.0.0/24");
    let container = host.container("t1");
    let asked =
        json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] });
    host.cnitool_asking("add", "ov_net1", ("t1", "eth0"), &asked)
        .ok();
    host.container("t2");
    host.cnitool("add", "ov_net1", "t2", "eth0").ok();
    // Records of a later version: a host, a network, the lease and the block of one address.
    for record in [
        "nodes/docker02",
        "networks/damaged",
        "leases/ov_net1/10.1.0.3",
        "blocks/ov_net1/10.1.0.8_29",
    ] {
        host.script(&format!(
            "sed -i 's/\"schema\":1,/\"schema\":99,/' '/dev/shm/store/crosshost/v1/{record}='"
        ));
    }

    let document = std::fs::read_to_string(workspace().join("docs/json.md")).expect("docs/json.md");
    let mut networks = explained(&document, "networks");
    let answers = [
        ("networks", "network ls", networks.clone()),
        ("nodes", "node ls", explained(&document, "nodes")),
        (
            "endpoints",
            "endpoint ls",
            explained(&document, "endpoints"),
        ),
        (
            "endpoints",
            "endpoint ls --local",
            explained(&document, "endpoints"),
        ),
        ("ports", "port ls", explained(&document, "ports")),
        ("findings", "doctor", explained(&document, "findings")),
    ];
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (word, command, table) in &answers {
        let answer = host.crosshost(&format!("{command} --json")).json();
        assert_eq!(answer["schema"], 1);
        let keys: Vec<_> = answer.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["schema", word], "{command}");
        let entries = answer[word].as_array().expect("a list");
        assert!(!entries.is_empty(), "{command}");
        for entry in entries {
            compare(entry, "", table, seen.entry(word).or_default());
        }
    }
    for (word, _, table) in &answers {
        let unseen: Vec<_> = table
            .keys()
            .filter(|key| !seen[word].contains(*key))
            .collect();
        assert_eq!(unseen, [""; 0], "{word}: explained and never printed");
    }

    let answer = host.crosshost("network inspect ov_net1 --json").ok().json();
    let own = explained(&document, "network");
    networks.extend(own.clone());
    let mut seen = BTreeSet::new();
    compare(&answer["network"], "", &networks, &mut seen);
    let unseen: Vec<_> = own.keys().filter(|key| !seen.contains(*key)).collect();
    assert_eq!(unseen, [""; 0], "explained and never printed");
    let endpoints = explained(&document, "endpoints");
    for endpoint in answer["network"]["endpoints"].as_array().expect("a list") {
        compare(endpoint, "", &endpoints, &mut seen);
    }
    host.cnitool_asking("del", "ov_net1", ("t1", "eth0"), &asked)
        .ok();
    drop(container);
}
