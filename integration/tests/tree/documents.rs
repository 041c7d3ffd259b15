//! The documents against the code: what a reader looks up must be there, and nothing that is gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use integration::workspace;

#[test]
fn every_finding_of_doctor_is_explained_and_no_other() {
    let text = read("crates/overlay/src/maintain/findings.rs");
    let ids = between(&text, "fn id(self)", "\n    }\n");
    let ids: BTreeSet<_> = (ids.lines())
        .filter_map(|line| quoted(line, "=> \"", "\""))
        .collect();
    assert!(ids.len() > 20, "the source was read: {ids:?}");
    let text = read("docs/doctor.md");
    let explained: Vec<_> = (text.lines())
        .filter_map(|line| quoted(line, "| `", "` |"))
        .filter(|id| !id.contains('`'))
        .collect();
    assert_eq!(explained.len(), ids.len(), "each once: {explained:?}");
    assert_eq!(explained.into_iter().collect::<BTreeSet<_>>(), ids);
}

/// A key that the code reads and the table of keys lacks would be called unread by doctor, and refused as a slip.
#[test]
fn every_key_that_the_code_reads_is_in_the_table_of_keys() {
    let table = read("crates/cluster/src/keys.rs");
    for (file, structs) in [
        (
            "cluster/src/config/settings.rs",
            &["StoreSettings", "NodeSettings"][..],
        ),
        ("cluster/src/config/conflist.rs", &["Conflist", "Segment"]),
        ("overlay/src/config.rs", &["WireOfHost"]),
        ("ipam/src/schema.rs", &["Schema"]),
        ("ipam/src/range.rs", &["Range"]),
        ("portmap/src/config.rs", &["Raw"]),
    ] {
        let source = read(&format!("crates/{file}"));
        for name in structs {
            let fields = between(&source, &format!("struct {name} {{\n"), "\n}");
            let lines = fields.lines().map(str::trim);
            let code = lines.filter(|line| !line.starts_with(['/', '#']));
            let keys = code.filter_map(|line| line.split_once(": ")?.0.rsplit(' ').next());
            // `segment` stands for the keys of overlay, `runtime_config` and `prev_result` are the specification's.
            let keys: Vec<_> = keys.filter(|key| *key != "segment").map(camel).collect();
            assert!(!keys.is_empty(), "{file}: {name}");
            for key in keys {
                let is_there =
                    table.contains(&format!("\"{key}\"")) || table.contains(&format!(".{key}\""));
                assert!(
                    is_there,
                    "crates/cluster/src/keys.rs has no {key} ({file}, {name})"
                );
            }
        }
    }
}

/// A field's name as a key.
fn camel(field: &str) -> String {
    let mut words = field.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |key, word| {
        key + &word[..1].to_uppercase() + &word[1..]
    })
}

#[test]
fn the_map_has_every_crate_and_every_arrow() {
    let map = read("crates/README.md");
    let crates: Vec<String> = std::fs::read_dir(workspace().join("crates"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    for name in &crates {
        let row = map
            .lines()
            .find(|line| line.starts_with(&format!("| [{name}](")))
            .unwrap_or_else(|| panic!("{name} is not on the map"));
        let uses = row.trim_end_matches([' ', '|']).rsplit("| ").next();
        let uses: BTreeSet<_> = uses.unwrap_or_default().split(", ").collect();
        let code = code_of(&workspace().join("crates").join(name).join("src"));
        for other in crates.iter().filter(|other| *other != name) {
            let word = format!("{}::", other.replace('-', "_"));
            let occurs = code.lines().any(|line| {
                let mut places = line.match_indices(&word);
                places.any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c))
                })
            });
            assert_eq!(
                occurs,
                uses.contains(other.as_str()),
                "{name} uses {other}: {row}"
            );
        }
    }
}

#[test]
fn what_a_document_points_at_is_there() {
    let mut seen = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let links = links.filter(|link| !link.contains("://"));
        // A path of the repository in backquotes.
        let named = text.split('`').skip(1).step_by(2).filter(|code| {
            let roots = ["crates/", "integration/", "docs/", "cni-conf/"];
            roots.iter().any(|root| code.starts_with(root)) && !code.contains([' ', '*', '<'])
        });
        let targets = links
            .map(|link| folder.join(link.split('#').next().unwrap_or_default()))
            .chain(named.map(|code| workspace().join(code)));
        for target in targets {
            seen += 1;
            let there = target.exists();
            assert!(
                there,
                "{}: {} is not there",
                document.display(),
                target.display()
            );
        }
    }
    assert!(seen > 40, "the documents were read: {seen}");
}

/// A test's name has its modules before it, or is too long to be anything else.
#[test]
fn the_tests_that_the_protocol_names_are_there() {
    let mut there = BTreeSet::new();
    for (path, text) in crate::habits::sources() {
        let modules = path.with_extension("");
        let modules = modules
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned());
        let modules = modules
            .skip_while(|part| part != "tests")
            .collect::<Vec<_>>()
            .join("::");
        let functions = text.lines().filter_map(|line| quoted(line, "fn ", "("));
        there.extend(functions.map(|name| format!("{modules}::{name}")));
        there.insert(modules);
    }
    let is_there = |name: &str| there.iter().any(|its| its.ends_with(&format!("::{name}")));
    let mut seen = 0;
    for document in ["docs/architecture.md", "docs/ipam.md"] {
        let text = read(document);
        let code = text.split('`').skip(1).step_by(2);
        let is_name = |word: &&str| {
            word.chars()
                .all(|c| "_:".contains(c) || c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        let names = code
            .filter(is_name)
            .filter(|word| word.contains("::") || word.matches('_').count() > 3);
        for name in names {
            seen += 1;
            assert!(is_there(name), "{document}: there is no test {name}");
        }
    }
    assert!(seen > 40, "the documents were read: {seen}");
}

/// Every Markdown file of the repository.
pub(crate) fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![workspace().to_owned()];
    while let Some(folder) = waiting.pop() {
        for path in std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
        {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                waiting.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// All Rust code below `folder`, without comments and without what is only for tests.
fn code_of(folder: &Path) -> String {
    let mut code = String::new();
    for path in std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
    {
        if path.is_dir() {
            code += &code_of(&path);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default();
            let lines = text
                .lines()
                .map(|line| line.split("//").next().unwrap_or_default());
            code.extend(lines.flat_map(|line| [line, "\n"]));
        }
    }
    code
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let rest = text
        .split_once(start)
        .unwrap_or_else(|| panic!("no {start}"))
        .1;
    rest.split_once(end).map_or(rest, |(inside, _)| inside)
}

fn quoted<'t>(line: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let rest = line.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}
