//! `crosshost install`: puts the plugins into a runtime's folder, and files such as conflists into others, as an image does on the nodes of
//! a cluster. Each file comes by a rename, so that a running verb keeps the old one, and files of the same content stay as they are.
//! The plugins come first: a runtime that sees a conflist starts what it names.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use crate::{
    cli::Install,
    conflists,
    session::{Result, settings},
};

/// The plugins that are files, and the one that is a link to the first. A `portmap` that others copy over ours must not reach the others.
const FILES: [&str; 2] = ["overlay", "portmap"];
const LINK: &str = "ipam-kv";

/// Copies, or takes away.
pub fn install(asked: &Install) -> Result<String> {
    if asked.remove {
        return remove(asked);
    }
    let mut said = String::new();
    if let Some(folder) = &asked.bin_dir {
        fs::create_dir_all(folder).map_err(about(folder))?;
        for name in FILES {
            said += &copy(&source(asked, name)?, &folder.join(name))?;
        }
        said += &link(&folder.join(LINK))?;
    }
    if let Some(folder) = &asked.conf_dir {
        fs::create_dir_all(folder).map_err(about(folder))?;
        for file in &asked.files {
            let name = file
                .file_name()
                .ok_or_else(|| format!("{}: no file", file.display()))?;
            said += &copy(file, &folder.join(name))?;
        }
    }
    Ok(said)
}

/// Takes away the plugins that are ours, and the conflists that this host wrote for networks and nobody changed.
fn remove(asked: &Install) -> Result<String> {
    let folders = match &asked.conf_dir {
        Some(folder) => vec![folder.clone()],
        None => settings()?.network.conflist_dirs,
    };
    let mut said = String::new();
    for folder in folders {
        for path in conflists::remove_ours(&folder)? {
            said += &removed(&path);
        }
    }
    if let Some(folder) = &asked.bin_dir {
        let ours = |name| Ok::<_, Box<dyn std::error::Error>>(fs::read(source(asked, name)?)?);
        let ours = [ours(FILES[0])?, ours(FILES[1])?];
        let link = folder.join(LINK);
        if fs::read_link(&link).is_ok_and(|to| to == Path::new(FILES[0])) {
            fs::remove_file(&link).map_err(about(&link))?;
            said += &removed(&link);
        }
        for (name, ours) in FILES.iter().zip(ours) {
            let path = folder.join(name);
            if fs::read(&path).is_ok_and(|found| found == ours) {
                fs::remove_file(&path).map_err(about(&path))?;
                said += &removed(&path);
            }
        }
    }
    Ok(said)
}

fn removed(path: &Path) -> String {
    format!("{}: removed\n", path.display())
}

/// A plugin of ours: beside this program, or in the folder that was named.
fn source(asked: &Install, name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = asked.from.as_deref().or_else(|| own.parent());
    let file = folder.unwrap_or(Path::new("/")).join(name);
    if !file.is_file() {
        let why = "no such plugin; --from names the folder that has ours";
        return Err(format!("{}: {why}", file.display()).into());
    }
    Ok(file)
}

/// The file's content and mode under another path.
fn copy(from: &Path, to: &Path) -> Result<String> {
    let content = fs::read(from).map_err(about(from))?;
    let mode = fs::metadata(from)
        .map_err(about(from))?
        .permissions()
        .mode()
        & 0o777;
    let is_same = fs::symlink_metadata(to)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o777 == mode);
    if is_same && fs::read(to).is_ok_and(|found| found == content) {
        return Ok(format!("{}: as it was\n", to.display()));
    }
    replace(to, |new| {
        let options = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(new);
        let mut file = options?;
        // Whatever the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(&content)?;
        file.sync_all()
    })
}

fn link(path: &Path) -> Result<String> {
    if fs::read_link(path).is_ok_and(|to| to == Path::new(FILES[0])) {
        return Ok(format!("{}: as it was\n", path.display()));
    }
    replace(path, |new| symlink(FILES[0], new))
}

/// Makes the file under another name, which runtimes do not look at, and renames it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.crosshost-new"));
    // What a killed predecessor left.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(about(&new)(error).into());
        }
        _ => {}
    }
    let done = make(&new).and_then(|()| fs::rename(&new, path));
    if let Err(error) = done {
        let _ = fs::remove_file(&new);
        return Err(about(path)(error).into());
    }
    Ok(format!("{}: installed\n", path.display()))
}

/// An error with the path that it is about.
fn about(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(folder: &Path) -> Install {
        let from = folder.join("from");
        fs::create_dir(&from).unwrap();
        for name in FILES {
            fs::write(from.join(name), format!("our {name}")).unwrap();
            fs::set_permissions(from.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(from.join("10-pods.conflist"), "{}").unwrap();
        Install {
            bin_dir: Some(folder.join("bin")),
            from: Some(from.clone()),
            conf_dir: Some(folder.join("net.d")),
            files: vec![from.join("10-pods.conflist")],
            remove: false,
        }
    }

    #[test]
    fn what_runs_keeps_its_file_and_what_is_there_already_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut asked = asked(folder.path());
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("portmap"), "another").unwrap();
        let running = fs::File::open(bin.join("portmap")).unwrap();
        assert_eq!(install(&asked).unwrap().matches(": installed").count(), 4);
        assert_eq!(io::read_to_string(running).unwrap(), "another");
        assert_eq!(
            fs::read_to_string(bin.join("portmap")).unwrap(),
            "our portmap"
        );
        assert_eq!(
            fs::read_to_string(bin.join("ipam-kv")).unwrap(),
            "our overlay"
        );
        let mode = fs::metadata(bin.join("overlay"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(install(&asked).unwrap().matches(": as it was").count(), 4);
        let left = fs::read_dir(&bin).unwrap().count();
        assert_eq!(left, 3, "nothing but plugins");

        fs::write(bin.join("portmap"), "another").unwrap();
        asked.remove = true;
        assert_eq!(install(&asked).unwrap().matches(": removed").count(), 2);
        assert_eq!(fs::read_to_string(bin.join("portmap")).unwrap(), "another");
        let conflist = folder.path().join("net.d/10-pods.conflist");
        assert!(
            conflist.exists(),
            "not one that this host wrote for a network"
        );
    }

    #[test]
    fn a_folder_without_plugins_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut asked = asked(folder.path());
        asked.from = Some("/nonexistent".into());
        let said = install(&asked).unwrap_err().to_string();
        assert!(
            said.contains("/nonexistent/overlay") && said.contains("--from"),
            "{said}"
        );
    }
}
