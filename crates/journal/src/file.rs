//! Files of small documents, by few system calls: a verb reads and writes some thirty of them.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use crate::Error;

/// All bytes of a regular file. [`fs::read`] asks for its size first, and reads once more at its end.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let (mut bytes, mut length) = (vec![0; 8 << 10], 0);
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        // A regular file gives all that it has.
        if length < bytes.len() {
            bytes.truncate(length);
            return Ok(bytes);
        }
        bytes.resize(length * 4, 0);
    }
}

/// Does `work` on a file in `dir`, which is made if it is missing. Documents name containers and addresses: only root may read
/// them.
pub(crate) fn in_dir<T>(
    dir: &Path,
    work: impl Fn() -> io::Result<T>,
) -> Result<io::Result<T>, Error> {
    let done = work();
    if !matches!(&done, Err(error) if error.kind() == ErrorKind::NotFound) {
        return Ok(done);
    }
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|source| Error::Io {
        path: dir.to_owned(),
        source,
    })?;
    Ok(work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_any_size_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for size in [0, 1, 8191, 8192, 8193, 32_768, 1_000_000] {
            let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
            fs::write(&path, &bytes).unwrap();
            assert!(read(&path).unwrap() == bytes, "{size}");
        }
        assert_eq!(
            read(&dir.path().join("none")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn a_folder_that_is_missing_is_made_for_root_alone() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        for _ in 0..2 {
            in_dir(&dir, || fs::write(dir.join("file"), "text"))
                .unwrap()
                .unwrap();
            let mode = fs::metadata(&dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }
}
