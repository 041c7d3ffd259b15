//! Habits that no lint can check. What a lint can say is in `Cargo.toml` (`unsafe_code`, `print_stdout`), `clippy.toml` and `deny.toml`.

use std::path::{Path, PathBuf};

use integration::workspace;

/// So that `unsafe` is forbidden everywhere, and printing is allowed where a reason says so.
#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    let crates = std::fs::read_dir(workspace().join("crates")).expect("a folder");
    let crates = crates.flatten().map(|entry| entry.path());
    let folders = crates.filter(|path| path.is_dir());
    for folder in folders.chain([workspace().join("integration")]) {
        let manifest = folder.join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        assert!(
            text.contains("[lints]\nworkspace = true\n"),
            "{}",
            manifest.display()
        );
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        let reasoned = text
            .lines()
            .take(20)
            .any(|line| line.contains("Long because"));
        let most = if path.ends_with("src/main.rs") {
            40
        } else {
            500
        };
        if lines > most && !reasoned {
            wrong.push(format!(
                "{}: {lines} lines of at most {most}",
                path.display()
            ));
        }
        if !text.starts_with("//!") {
            wrong.push(format!(
                "{}: does not start with what it is for",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_habit_is_a_short_recipe_with_a_line_of_help() {
    let makefile = std::fs::read_to_string(workspace().join("Makefile")).expect("a Makefile");
    let habits = "deps build check test demo bench lint fmt install clean help";
    for habit in habits.split(' ') {
        let start = format!("{habit}:");
        let mut lines = makefile
            .lines()
            .skip_while(|line| !line.starts_with(&start));
        let head = lines.next().unwrap_or_default();
        assert!(
            head.contains(" ## "),
            "make {habit} has no line of help: {head}"
        );
        let recipe = lines.take_while(|line| line.starts_with('\t')).count();
        assert!((1..=3).contains(&recipe), "make {habit} has {recipe} lines");
    }
}

/// What a reader cannot open explains nothing.
#[test]
fn nothing_refers_to_documents_outside_of_the_tree() {
    // Spelled so that this file does not find itself.
    let outside = [
        "DESI\x47N",
        "STY\x4cE.md",
        "hous\x65.md",
        "../share\x64/",
        "ssu\x65 ",
    ];
    let refers = |line: &str| {
        outside.iter().any(|words| {
            line.match_indices(words).any(|(at, _)| {
                let rest = &line[at + words.len()..];
                !words.ends_with(' ') || rest.starts_with(|c: char| c.is_ascii_digit())
            })
        })
    };
    for (path, text) in sources().into_iter().chain(documents()) {
        let at = text.lines().enumerate().find(|(_, line)| refers(line));
        assert!(at.is_none(), "{}: {at:?}", path.display());
    }
}

/// Every Rust file of the workspace, by its path from the workspace's root.
pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![workspace().join("crates"), workspace().join("integration")];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = std::fs::read_to_string(&path).expect("a text");
                let name: &Path = path.strip_prefix(workspace()).expect("below the root");
                found.push((name.to_owned(), text));
            }
        }
    }
    assert!(found.len() > 40, "the sources: {}", found.len());
    found
}

/// Every Markdown file, likewise.
fn documents() -> impl Iterator<Item = (PathBuf, String)> {
    let paths = crate::documents::documents().into_iter();
    paths.map(|path| {
        let text = std::fs::read_to_string(&path).expect("a text");
        let name = path.strip_prefix(workspace()).expect("below the root");
        (name.to_owned(), text)
    })
}
