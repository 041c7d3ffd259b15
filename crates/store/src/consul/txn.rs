//! The JSON of Consul's transaction endpoint, `PUT /v1/txn`, which all reads and writes use except lists of keys. One transaction reads several prefixes
//! at the same moment, and the answer to a write has the new revisions, for which the plain key endpoint would need a second read. A transaction of reads alone does not go through the cluster's log (source:
//! `agent/txn_endpoint.go`; seen in both tested versions: the raft index stays).
//!
//! Consul keeps the revision if a write changes nothing. So `Flags`, a number beside each value, is a new random one for each
//! transaction: every write changes something, and a writer can recognise its own.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::{Key, Op, Outcome};

#[derive(Serialize)]
struct Item<'a> {
    #[serde(rename = "KV")]
    kv: Step<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Step<'a> {
    verb: &'static str,
    key: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u64>,
}

/// A key with its value, as Consul writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) flags: u64,
    pub(super) modify_index: u64,
}

impl Pair {
    pub(super) fn value(&self) -> Result<Vec<u8>, String> {
        let value = STANDARD.decode(self.value.as_deref().unwrap_or_default());
        value.map_err(|error| format!("the value of {}: {error}", self.key))
    }
}

#[derive(Deserialize)]
struct Done {
    #[serde(rename = "Results")]
    results: Vec<Written>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "KV")]
    kv: Pair,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Undone {
    errors: Vec<Objection>,
}

/// Why Consul did not do an operation.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Objection {
    pub(super) op_index: usize,
    pub(super) what: String,
}

impl Objection {
    /// Whether the token lacks a right, rather than that a condition failed.
    pub(super) fn is_denial(&self) -> bool {
        self.what.contains("ermission denied")
    }
}

/// A transaction that reads everything at or below `prefixes`. It also returns keys such as `a/bc` for `a/b`, because a Consul prefix is
/// plain text; the caller drops them.
pub(super) fn read(prefixes: &[Key]) -> Vec<u8> {
    document(prefixes.iter().map(|key| Step {
        verb: "get-tree",
        key: key.as_str().into(),
        ..Step::default()
    }))
}

/// A transaction that writes `ops`, each written key marked with `flags`.
pub(super) fn write(ops: &[Op], flags: u64) -> Vec<u8> {
    document(ops.iter().map(|op| {
        let (verb, index) = match op {
            Op::Create { .. } => ("cas", 0),
            Op::Swap { revision, .. } => ("cas", *revision),
            Op::Delete { revision, .. } => ("delete-cas", *revision),
            Op::Check { revision, .. } => ("check-index", *revision),
        };
        Step {
            verb,
            key: op.key().as_str().into(),
            value: op.value().map(|value| STANDARD.encode(value)),
            index: Some(index),
            flags: op.value().map(|_| flags),
        }
    }))
}

/// A transaction that always fails, and whose errors tell whether `prefixes` may be read. It has two operations for each: about the
/// key itself, and about keys below it. Consul silently leaves out of a read what the token may not see, but denies a check.
pub(super) fn probe(prefixes: &[Key]) -> Vec<u8> {
    let keys = prefixes
        .iter()
        .flat_map(|key| [key.as_str().into(), format!("{key}/").into()]);
    document(keys.map(|key| Step {
        verb: "check-index",
        key,
        index: Some(1),
        ..Step::default()
    }))
}

fn document<'a>(steps: impl Iterator<Item = Step<'a>>) -> Vec<u8> {
    let items: Vec<_> = steps.map(|kv| Item { kv }).collect();
    // Writing plain structs to memory cannot fail.
    serde_json::to_vec(&items).unwrap_or_default()
}

/// The pairs of a transaction's answer.
pub(super) fn pairs(body: &[u8]) -> Result<Vec<Pair>, String> {
    let done: Done = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(done.results.into_iter().map(|result| result.kv).collect())
}

/// The answer to a transaction of `ops` that succeeded. Consul answers all operations except deletes, in order.
pub(super) fn outcome(ops: &[Op], body: &[u8]) -> Result<Outcome, String> {
    let mut pairs = pairs(body)?.into_iter();
    let mut revisions = Vec::new();
    for op in ops {
        let revision = match op {
            Op::Delete { .. } => 0,
            _ => match pairs.next() {
                Some(pair) if pair.key == op.key().as_str() => pair.modify_index,
                _ => return Err(format!("no result for {}", op.key())),
            },
        };
        revisions.push(if op.value().is_some() { revision } else { 0 });
    }
    Ok(Outcome::Done(revisions))
}

/// The answer to a transaction that failed, sorted by operation.
pub(super) fn objections(body: &[u8]) -> Result<Vec<Objection>, String> {
    let mut undone: Undone = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    undone.errors.sort_by_key(|objection| objection.op_index);
    Ok(undone.errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).expect("good")
    }

    fn text(document: Vec<u8>) -> String {
        String::from_utf8(document).expect("JSON")
    }

    #[test]
    fn operations_are_consuls_verbs() {
        let (value, revision) = (b"1".to_vec(), 7);
        let ops = [
            Op::Create {
                key: key("a"),
                value: value.clone(),
            },
            Op::Swap {
                key: key("b"),
                value,
                revision,
            },
            Op::Delete {
                key: key("c"),
                revision,
            },
            Op::Check {
                key: key("d"),
                revision,
            },
        ];
        assert_eq!(
            text(write(&ops, 5)),
            concat!(
                r#"[{"KV":{"Verb":"cas","Key":"a","Value":"MQ==","Index":0,"Flags":5}},"#,
                r#"{"KV":{"Verb":"cas","Key":"b","Value":"MQ==","Index":7,"Flags":5}},"#,
                r#"{"KV":{"Verb":"delete-cas","Key":"c","Index":7}},"#,
                r#"{"KV":{"Verb":"check-index","Key":"d","Index":7}}]"#
            )
        );
        assert_eq!(
            text(read(&[key("a/b")])),
            r#"[{"KV":{"Verb":"get-tree","Key":"a/b"}}]"#
        );
    }

    /// As Consul 1.8.7 answers: no value, nothing for the delete, the check with the revision that it has.
    #[test]
    fn results_are_matched_with_their_operations() {
        let body = r#"{"Results":[{"KV":{"LockIndex":0,"Key":"d","Flags":0,"Value":null,"CreateIndex":3,"ModifyIndex":7}},
            {"KV":{"LockIndex":0,"Key":"a","Flags":5,"Value":null,"CreateIndex":9,"ModifyIndex":9}}],"Errors":null}"#;
        let ops = [
            Op::Delete {
                key: key("c"),
                revision: 7,
            },
            Op::Check {
                key: key("d"),
                revision: 7,
            },
            Op::Create {
                key: key("a"),
                value: Vec::new(),
            },
        ];
        assert_eq!(
            outcome(&ops, body.as_bytes()),
            Ok(Outcome::Done(vec![0, 0, 9]))
        );
    }
}
