//! `make dist`: an archive that another host can use, with the licences of all that is in it, and the same bytes each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use integration::{Programs, workspace};

/// Programs of `bin/` and the packages that they are built of.
const SHIPPED: [(&str, &str); 2] = [("overlay", "crosshost-cni"), ("crosshost", "crosshost")];

/// Packs the binaries under test; the archive's bytes.
fn packed(folder: &Path) -> Vec<u8> {
    let said = Command::new("make")
        .args(["--no-print-directory", "--old-file=build", "dist"])
        .arg(format!("BIN={}", Programs::product_folder().display()))
        .arg(format!("DIST={}", folder.display()))
        // Of the make that may run this test.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .current_dir(workspace())
        .output()
        .expect("make");
    let complaint = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success(), "{complaint}");
    let mut found = std::fs::read_dir(folder).expect("a folder").flatten();
    let archive = found.next().expect("an archive").path();
    assert!(found.next().is_none(), "one archive");
    let name = archive
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    assert!(
        name.starts_with("crosshost-") && name.ends_with("-linux-gnu.tar.gz"),
        "{name}"
    );
    std::fs::read(archive).expect("an archive")
}

/// The files of an archive by their paths below its one folder, with what `tar` says of each.
fn listed(archive: &Path) -> BTreeMap<String, String> {
    let said = Command::new("tar")
        .args(["--numeric-owner", "-tvzf"])
        .arg(archive)
        .output();
    let said = String::from_utf8_lossy(&said.expect("tar").stdout).into_owned();
    let file = |line: &str| {
        let (entry, link) = line.split_once(" -> ").unwrap_or((line, ""));
        let (head, path) = entry.rsplit_once(' ')?;
        let (_, below) = path.split_once('/')?;
        Some((below.to_owned(), format!("{head} -> {link}")))
    };
    said.lines().filter_map(file).collect()
}

fn text(archive: &Path, below: &str) -> Vec<u8> {
    let said = Command::new("tar")
        .args(["-xzOf"])
        .arg(archive)
        .args(["--wildcards", &format!("*/{below}")])
        .output();
    said.expect("tar").stdout
}

/// Name and version of each crate of others that cargo says is in the normal tree of a package.
fn crates(package: &str) -> Vec<String> {
    let said = Command::new("cargo")
        .args([
            "tree",
            "--locked",
            "-e",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "-f",
            "{p}",
            "-p",
            package,
        ])
        .current_dir(workspace())
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let others = said.lines().filter(|line| !line.contains(" (/"));
    let named = others.filter_map(|line| {
        let mut words = line.split(' ');
        Some(format!(
            "{}-{}",
            words.next()?,
            words.next()?.strip_prefix('v')?
        ))
    });
    named.collect()
}

#[test]
fn an_archive_has_the_licence_of_each_crate_that_is_linked_and_the_same_bytes_again() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let [first, second] = folders.each_ref().map(|folder| packed(folder.path()));
    assert!(first == second, "the same commit gives the same archive");
    let archive = folders[0].path().join("archive");
    std::fs::write(&archive, &first).expect("a file");

    let files = listed(&archive);
    for below in [
        "LICENSE",
        "README.md",
        "cni-conf/overlay.conflist",
        "dist/crosshost-sync.service",
        "docs/upgrading.md",
    ] {
        assert!(files.contains_key(below), "{below}: {:?}", files.keys());
    }
    for (program, _) in SHIPPED {
        let entry = &files[&format!("bin/{program}")];
        assert!(entry.starts_with("-rwxr-xr-x 0/0"), "{entry}");
        let is = std::fs::read(Programs::product(program)).expect("a binary");
        assert!(text(&archive, &format!("bin/{program}")) == is, "{program}");
    }
    // Links cost nothing in an archive. In it they stay beside their file.
    for plugin in ["ipam-kv", "portmap"] {
        let entry = &files[&format!("bin/{plugin}")];
        assert!(entry.starts_with("lrwxrwxrwx 0/0"), "{entry}");
        assert!(entry.ends_with("-> overlay"), "{entry}");
    }
    for (path, entry) in &files {
        assert!(entry.contains(" 0/0 "), "{path}: {entry}");
    }
    let mut seen = 0;
    for name in SHIPPED.iter().flat_map(|(_, package)| crates(package)) {
        seen += 1;
        let own = format!("THIRD-PARTY/{name}/");
        let has_text = files
            .keys()
            .any(|path| path.starts_with(&own) && !path.ends_with('/'));
        assert!(has_text, "no licence of {name}");
    }
    assert!(seen > 100, "cargo was read: {seen}");
    let notice = String::from_utf8_lossy(&text(&archive, "THIRD-PARTY/README")).into_owned();
    for words in ["GNU C Library (glibc ", "LGPL-2.1", "make build"] {
        assert!(notice.contains(words), "no {words:?} in {notice}");
    }
    assert!(files.contains_key("THIRD-PARTY/glibc/LGPL-2.1"));
}
