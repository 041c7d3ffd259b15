//! What is to be done in a folder of conflists. Pure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use cluster::Network;

use super::form::{self, Owner};

/// A change of one file.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this text there, over what is there.
    Write(PathBuf, Vec<u8>),
    /// Remove the file.
    Remove(PathBuf),
}

/// The changes of a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the networks' names.
    pub actions: Vec<Action>,
    /// Networks that get no file, and why.
    pub conflicts: Vec<String>,
    /// What stays as it is, for a person to know.
    pub remarks: Vec<String>,
}

/// What brings the files that were `found` in a folder to the networks that are `wanted`, by name. `is_removed` says of a network's
/// name and id whether an operator removed it: what the store has merely lost keeps its file, because a host restores it.
pub fn plan(
    folder: &Path,
    found: &BTreeMap<PathBuf, Vec<u8>>,
    wanted: &BTreeMap<String, Network>,
    is_removed: &dyn Fn(&str, &str) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    let known: Vec<_> = found
        .iter()
        .map(|(path, text)| (path, text, form::owner(text)))
        .collect();
    for (name, network) in wanted {
        let of_it = |named: &Option<String>| named.as_deref() == Some(name);
        let mut others = known
            .iter()
            .filter(|(_, _, (named, owner))| of_it(named) && !matches!(owner, Owner::Ours(_)));
        if let Some((path, _, (_, owner))) = others.next() {
            let path = path.display();
            if *owner == Owner::Changed {
                let why = "was changed, so it stays as it is; remove it to get a new one";
                plan.conflicts.push(format!("{path}: {why}"));
            } else {
                // A network's own conflist, by hand, is what its author wants.
                let what = format!("the conflist of network {name}, not written by crosshost");
                plan.remarks.push(format!("{path}: {what}"));
            }
            continue;
        }
        // Somebody may have given it another name, for example one that comes first.
        let ours = |(_, _, (named, owner)): &&(_, _, (_, Owner))| {
            of_it(named) && matches!(owner, Owner::Ours(_))
        };
        let path = known.iter().find(ours).map_or_else(
            || folder.join(format!("{name}.conflist")),
            |(path, _, _)| (*path).clone(),
        );
        if path.file_name().is_none_or(|name| name.len() > 255) {
            let why = "no conflist is written: its name is too long for a file";
            plan.conflicts.push(format!("network {name}: {why}"));
            continue;
        }
        let text = form::text(network);
        match known.iter().find(|(there, _, _)| **there == path) {
            Some((_, there, _)) if **there == text => {}
            Some((_, _, (_, Owner::Ours(_)))) | None => {
                plan.actions.push(Action::Write(path, text));
            }
            Some(_) => {
                let path = path.display();
                let why = format!("is not the conflist of network {name}, and in its place");
                plan.conflicts.push(format!("{path}: {why}"));
            }
        }
    }
    for (path, _, (name, owner)) in &known {
        let (Some(name), Owner::Ours(id)) = (name, owner) else {
            continue;
        };
        if wanted.contains_key(name) {
            continue;
        }
        if is_removed(name, id) {
            plan.actions.push(Action::Remove((*path).clone()));
        } else {
            let path = path.display();
            let why = format!("the store has no network {name} that was created by command");
            plan.remarks.push(format!("{path}: {why}"));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network(name: &str, id: &str) -> Network {
        let record = json!({
            "name": name, "id": id, "vni": 4097, "conflist": true,
            "ranges": [[{"subnet": "10.0.0.0/24"}]],
        });
        serde_json::from_value(record).unwrap()
    }

    /// What is done in `/d` for network `n` with id `1` if these files are there, and if networks with the ids `0` and `9` were
    /// removed.
    fn planned(wanted: bool, found: &[(&str, &[u8])]) -> (Vec<String>, Vec<String>, Vec<String>) {
        let found = found.iter();
        let found = found.map(|(name, text)| (Path::new("/d").join(name), text.to_vec()));
        let wanted = wanted.then(|| ("n".to_owned(), network("n", "1")));
        let plan = plan(
            Path::new("/d"),
            &found.collect(),
            &wanted.into_iter().collect(),
            &|_, id| id == "0" || id == "9",
        );
        let spell = |action: Action| match action {
            Action::Write(path, text) => {
                assert_eq!(form::owner(&text).1, Owner::Ours("1".to_owned()));
                format!("write {}", path.display())
            }
            Action::Remove(path) => format!("remove {}", path.display()),
        };
        (
            plan.actions.into_iter().map(spell).collect(),
            plan.conflicts,
            plan.remarks,
        )
    }

    #[test]
    fn each_state_of_a_folder_has_its_changes() {
        let ours = form::text(&network("n", "1"));
        let before = form::text(&network("n", "0"));
        let gone = form::text(&network("m", "9"));
        let lost = form::text(&network("m", "2"));
        let changed = String::from_utf8(ours.clone()).unwrap();
        let changed = changed.replace("overlay", "other").into_bytes();
        let theirs = br#"{"name": "n", "plugins": []}"#;
        let another = br#"{"name": "x", "plugins": []}"#;
        let write = "write /d/n.conflist";
        for (what, wanted, found, actions, conflict) in [
            ("nothing is there", true, vec![], vec![write], None),
            (
                "it is there",
                true,
                vec![("n.conflist", &ours[..])],
                vec![],
                None,
            ),
            (
                "one of an earlier network of this name",
                true,
                vec![("n.conflist", &before[..])],
                vec![write],
                None,
            ),
            (
                "it is there under another name",
                true,
                vec![("10-n.conflist", &ours[..])],
                vec![],
                None,
            ),
            (
                "an earlier one under another name",
                true,
                vec![("10-n.conflist", &before[..])],
                vec!["write /d/10-n.conflist"],
                None,
            ),
            (
                "one by hand, of any name",
                true,
                vec![("10-mine.conflist", &theirs[..])],
                vec![],
                None,
            ),
            (
                "ours, changed",
                true,
                vec![("n.conflist", &changed[..])],
                vec![],
                Some("/d/n.conflist: was changed"),
            ),
            (
                "another's in its place",
                true,
                vec![("n.conflist", &another[..])],
                vec![],
                Some("/d/n.conflist: is not the conflist of network n"),
            ),
            (
                "no JSON in its place",
                true,
                vec![("n.conflist", b"{")],
                vec![],
                Some("/d/n.conflist"),
            ),
            (
                "that of a removed network",
                true,
                vec![("m.conflist", &gone[..]), ("n.conflist", &ours[..])],
                vec!["remove /d/m.conflist"],
                None,
            ),
            (
                "that of a network that the store has lost",
                false,
                vec![("m.conflist", &lost[..])],
                vec![],
                None,
            ),
            (
                "a changed one, and one by hand, of removed networks",
                false,
                vec![("n.conflist", &changed[..]), ("o.conflist", &theirs[..])],
                vec![],
                None,
            ),
        ] {
            let (planned, conflicts, _) = planned(wanted, &found);
            assert_eq!(planned, actions, "{what}");
            assert_eq!(conflicts.len(), usize::from(conflict.is_some()), "{what}");
            for (told, wanted) in conflicts.iter().zip(conflict) {
                assert!(told.starts_with(wanted), "{what}: {told}");
            }
        }
    }
    #[test]
    fn what_stays_as_it_is_is_told() {
        let lost = form::text(&network("m", "2"));
        let theirs = br#"{"name": "n", "plugins": []}"#;
        let found = [("10-mine.conflist", &theirs[..]), ("m.conflist", &lost[..])];
        let (actions, conflicts, remarks) = planned(true, &found);
        assert_eq!((actions.len(), conflicts.len()), (0, 0));
        let wanted = [
            "/d/10-mine.conflist: the conflist of network n, not written by crosshost",
            "/d/m.conflist: the store has no network m that was created by command",
        ];
        assert_eq!(remarks, wanted);
    }
}
