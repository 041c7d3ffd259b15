//! Slips: misspelled keys.
//!
//! A configuration has keys of other plugins, so an unknown key is accepted, as the specification wants. But a key that nearly is
//! one of ours is a slip: with `"egres": "none"` containers would have a way to the outside that they should not have.

use serde_json::Value;

use crate::Error;

/// Keys of other plugins and of operators that are nearly one of ours.
const OTHERS: [&str; 9] = [
    "mode",
    "mac",
    "ingress",
    "note",
    "nodes",
    "cniVersions",
    "isGateway",
    "ipRanges",
    "subnets",
];

/// Refuses keys that are a slip away from one of `ours`, in the objects at `path` of a configuration (`""`, `"ipam.ranges"`), or in
/// each object of a list there. Keys in another case are no slips. Other values are ignored.
/// Code 7: `ipam.ranges[0][0].subnt: unknown key; did you mean subnet?`.
pub fn refuse_slips(conf: &Value, path: &str, ours: &[&str]) -> Result<(), Error> {
    let steps: Vec<_> = path.split('.').filter(|step| !step.is_empty()).collect();
    walk(conf, "", &steps, ours)
}

fn walk(value: &Value, at: &str, steps: &[&str], ours: &[&str]) -> Result<(), Error> {
    let dot = if at.is_empty() { "" } else { "." };
    match (value, steps.split_first()) {
        (Value::Array(items), _) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(n, item)| walk(item, &format!("{at}[{n}]"), steps, ours))
        }
        (Value::Object(object), Some((step, rest))) => {
            let mut found = object
                .iter()
                .filter(|(key, _)| key.eq_ignore_ascii_case(step));
            found.try_for_each(|(key, inner)| walk(inner, &format!("{at}{dot}{key}"), rest, ours))
        }
        (Value::Object(object), None) => {
            let slip = object.keys().find_map(|key| Some((key, meant(key, ours)?)));
            slip.map_or(Ok(()), |(key, meant)| {
                let why = format!("unknown key; did you mean {meant}?");
                Err(Error::config(format!("{at}{dot}{key}: {why}")))
            })
        }
        _ => Ok(()),
    }
}

/// The key of `ours` that is a slip away from an unknown key.
fn meant<'a>(key: &str, ours: &[&'a str]) -> Option<&'a str> {
    let mut known = ours.iter().chain(&OTHERS);
    if known.any(|known| known.eq_ignore_ascii_case(key)) {
        return None;
    }
    ours.iter().copied().find(|ours| is_slip(key, ours))
}

/// Whether a key is one or two slips away from another: a letter too many, a letter too few, a wrong letter, or two letters in
/// the wrong order. In a short word only one slip counts.
fn is_slip(key: &str, of: &str) -> bool {
    const SHORT: usize = 6;
    let most = if of.len() < SHORT { 1 } else { 2 };
    let [key, of] = [key, of].map(|text| text.to_ascii_lowercase().into_bytes());
    key.len().abs_diff(of.len()) <= most && distance(&key, &of) <= most
}

/// The number of slips between two words (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for (i, x) in a.iter().enumerate() {
        let above = &rows[i];
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let changed = above[j] + usize::from(x != y);
            let mut least = changed.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slip_is_refused_with_what_was_meant_and_others_keys_pass() {
        let ours = [
            "egress",
            "ranges",
            "vni",
            "node",
            "mtu",
            "gateway",
            "subnet",
            "cniVersion",
        ];
        for (key, meant) in [
            ("egres", "egress"),
            ("Egerss", "egress"),
            ("egresss", "egress"),
            ("rangs", "ranges"),
            ("range", "ranges"),
            ("vin", "vni"),
            ("nod", "node"),
            ("mtus", "mtu"),
        ] {
            let conf = json!({ "Ipam": [[{ key: 1 }]] });
            let said = refuse_slips(&conf, "ipam", &ours).map_err(|e| (e.code, e.msg));
            let want = format!("Ipam[0][0].{key}: unknown key; did you mean {meant}?");
            assert_eq!(said, Err((7, want)));
        }
        for key in [
            "EGRESS",
            "Mtu",
            "mode",
            "mac",
            "vlan",
            "note",
            "nodes",
            "cniVersions",
            "isGateway",
            "ipRanges",
            "subnets",
            "ipMasq",
            "cni.dev/x",
            "",
            "e",
            "über",
        ] {
            assert_eq!(refuse_slips(&json!({ key: 1 }), "", &ours), Ok(()), "{key}");
        }
        for odd in [json!(["egres"]), json!("egres"), json!(null)] {
            assert_eq!(refuse_slips(&odd, "", &ours), Ok(()), "{odd}");
        }
        let top = refuse_slips(&json!({ "egres": 1 }), "", &ours).unwrap_err();
        assert!(top.msg.starts_with("egres: "), "{}", top.msg);
    }
}
