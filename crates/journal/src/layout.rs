//! The layout of `/run/crosshost`: a number that changes when older versions could no longer work with the documents.
//!
//! `layout.json` has the number, and the build that wrote it. The first ADD on a host writes it before anything else. A host
//! with documents but without this file was used by a version up to commit 86dc1f2, whose layout has the number 1. A version
//! that finds a newer number than its own adds and repairs nothing, because it would rebuild in its own form what containers
//! use. DEL still works.
//!
//! The fields of this one document never change, so that every version can read it.

use std::{io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Error, Found, Journal, Unreadable, file};

/// The layout that this version writes, and the newest that it works with.
pub const NUMBER: u32 = 1;
/// The document's name.
const NAME: &str = "layout";
/// Longest wait for another ADD that writes the number.
const PATIENCE: Duration = Duration::from_secs(20);

/// The layout of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Its number.
    pub layout: u32,
    /// The version that wrote it.
    pub version: String,
    /// The commit of that build.
    pub commit: String,
}

/// The layout below `root`; absent on a host that is new or was used by a version up to 86dc1f2.
///
/// # Errors
///
/// What the file system refuses.
pub fn read(root: &Path) -> Result<Found<Layout>, Error> {
    let path = root.join(format!("{NAME}.json"));
    // Its schema does not matter, because its fields never change.
    match file::read(&path) {
        Ok(bytes) => Ok(match serde_json::from_slice(&bytes) {
            Ok(layout) => Found::Readable(layout),
            Err(error) => Found::Unreadable(Unreadable {
                path,
                why: error.to_string(),
                is_newer: false,
            }),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// Checks that a version that knows the layouts up to [`NUMBER`] may add and repair below `root`. A document that cannot be
/// read stops nothing; `crosshost doctor` reports it.
///
/// # Errors
///
/// [`Error::Newer`], which names both builds.
pub fn admit(root: &Path, build: &str) -> Result<(), Error> {
    is_to_be_written(root, build).map(drop)
}

/// The same check for an ADD, which also writes the number if there is none or an older one.
///
/// # Errors
///
/// [`Error::Newer`], and what the file system refuses.
pub fn begin(root: &Path, version: &str, commit: &str) -> Result<(), Error> {
    if !is_to_be_written(root, &format!("{version} ({commit})"))? {
        return Ok(());
    }
    let layout = Layout {
        layout: NUMBER,
        version: version.to_owned(),
        commit: commit.to_owned(),
    };
    let documents = Journal::new(root, "");
    let _alone = documents.lock(NAME, PATIENCE)?;
    documents.save(NAME, &layout)
}

/// Whether there is no number or an older one. A document that cannot be read is never overwritten.
fn is_to_be_written(root: &Path, build: &str) -> Result<bool, Error> {
    match read(root) {
        Ok(Found::Absent) => Ok(true),
        Ok(Found::Readable(it)) if it.layout > NUMBER => Err(Error::Newer {
            path: root.join(format!("{NAME}.json")),
            layout: it.layout,
            by: format!("{} ({})", it.version, it.commit),
            build: build.to_owned(),
            known: NUMBER,
        }),
        Ok(Found::Readable(it)) => Ok(it.layout < NUMBER),
        Ok(Found::Unreadable(_)) | Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn written(root: &Path) -> String {
        fs::read_to_string(root.join("layout.json")).unwrap()
    }

    #[test]
    fn the_first_add_writes_the_number_and_later_ones_leave_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()).unwrap(), Found::Absent);
        admit(root.path(), "1.0.0 (a)").unwrap();
        assert_eq!(
            read(root.path()).unwrap(),
            Found::Absent,
            "only an ADD writes"
        );
        begin(root.path(), "1.0.0", "aaaa").unwrap();
        begin(root.path(), "1.0.1", "bbbb").unwrap();
        let first = Layout {
            layout: NUMBER,
            version: "1.0.0".into(),
            commit: "aaaa".into(),
        };
        assert_eq!(read(root.path()).unwrap(), Found::Readable(first));
    }

    #[test]
    fn a_newer_layout_refuses_add_and_repair_and_names_both_builds() {
        let root = tempfile::tempdir().unwrap();
        let newer = r#"{"layout":2,"version":"3.1.0","commit":"cafe0001","more":true}"#;
        fs::write(root.path().join("layout.json"), newer).unwrap();
        for refused in [
            admit(root.path(), "1.0.0 (beef0001)"),
            begin(root.path(), "1.0.0", "beef0001"),
        ] {
            let error = refused.unwrap_err().to_string();
            for words in [
                "layout 2",
                "3.1.0 (cafe0001)",
                "1.0.0 (beef0001)",
                "up to 1",
            ] {
                assert!(error.contains(words), "no {words:?} in {error}");
            }
        }
        assert_eq!(written(root.path()), newer);
    }

    #[test]
    fn one_that_cannot_be_read_stops_nothing_and_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "{", "[]", r#"{"layout":"x"}"#] {
            fs::write(root.path().join("layout.json"), text).unwrap();
            assert!(matches!(read(root.path()), Ok(Found::Unreadable(_))));
            admit(root.path(), "1.0.0 (a)").unwrap();
            begin(root.path(), "1.0.0", "a").unwrap();
            assert_eq!(written(root.path()), text);
        }
    }
}
