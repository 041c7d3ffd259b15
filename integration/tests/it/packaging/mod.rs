//! What is shipped: binaries, archive, installed files, and the README's walk-through.

mod archive;
mod binaries;
mod image;
mod install;
mod package;
mod readme;

use std::path::{Path, PathBuf};
use std::process::Command;

use integration::{Programs, workspace};

/// The file that a target of the Makefile makes of the binaries under test, in `folder`; beside it only its checksum may come.
#[track_caller]
fn made(target: &str, folder: &Path, end: &str) -> PathBuf {
    let said = Command::new("make")
        .args(["--no-print-directory", "--old-file=build", target])
        .arg(format!("BIN={}", Programs::product_folder().display()))
        .arg(format!("DIST={}", folder.display()))
        .env("DEB_COMPRESSION", "gzip")
        // Of the make that may run this test.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .current_dir(workspace())
        .output()
        .expect("make");
    let complaint = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success(), "{complaint}");
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut files: Vec<_> = files.map(|file| file.path()).collect();
    files.sort();
    let [file, checksum] = &files[..] else {
        panic!("one file and its checksum: {files:?}")
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    assert!(
        name.starts_with("crosshost") && name.ends_with(end),
        "{name}"
    );
    let checked = Command::new("sha256sum")
        .args(["--check", "--status"])
        .arg(checksum)
        .current_dir(folder)
        .status();
    assert!(
        checked.is_ok_and(|it| it.success()),
        "the checksum of {name}"
    );
    file.clone()
}
