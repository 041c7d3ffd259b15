//! The command line as an operator types it: what each binary says of itself, and that what makes no sense does nothing.
#![allow(clippy::expect_used, reason = "a test: it stops where it broke")]

use std::process::Command;

use integration::{Programs, Running, workspace};

const LIMIT: std::time::Duration = std::time::Duration::from_mins(1);

fn said_by(program: &str, arguments: &[&str]) -> integration::Finished {
    let mut command = Command::new(Programs::product(program));
    command.args(arguments).env_clear();
    Running::start(command, b"").wait(LIMIT).ok()
}

/// The first version among the words, as Nomad's client looks for one in what a plugin prints that is started without
/// arguments (`client/fingerprint/plugins_cni.go`).
fn nomads_version(text: &str) -> Option<[u32; 3]> {
    text.split_whitespace().find_map(|word| {
        let numbers = word.strip_prefix('v').unwrap_or(word).split('.');
        let numbers: Vec<u32> = numbers.map(|it| it.parse().ok()).collect::<Option<_>>()?;
        numbers.try_into().ok()
    })
}

#[test]
fn all_binaries_say_the_same_version_and_commit() {
    let own = said_by("crosshost", &["--version"]).stdout;
    let build = own.trim_end().strip_prefix("crosshost ").expect("its name");
    let (version, commit) = build.split_once(' ').expect("version and commit");
    assert_eq!(version, "1.0.0");
    let commit = commit.trim_matches(['(', ')']);
    let log = Command::new("git")
        .args(["cat-file", "-t", commit])
        .current_dir(workspace())
        .output();
    let known = log.is_ok_and(|said| said.stdout == b"commit\n");
    assert!(commit == "unknown" || known, "{own}");
    for plugin in ["overlay", "ipam-kv", "portmap"] {
        let said = said_by(plugin, &["--version"]).stdout;
        assert_eq!(said, format!("{plugin} {build}\n"));
    }
}

/// Nomad's server places jobs of mode `bridge` only on clients whose `portmap` has 0.4.0 or later.
#[test]
fn nomad_finds_a_version_that_it_takes_for_portmap() {
    for plugin in ["overlay", "ipam-kv", "portmap"] {
        let said = said_by(plugin, &[]);
        assert_eq!(said.stdout, "");
        let version = nomads_version(&said.stderr);
        assert!(version.is_some_and(|it| it >= [0, 4, 0]), "{said}");
        assert_eq!(version, nomads_version("CNI portmap plugin v1.0.0"));
    }
}
