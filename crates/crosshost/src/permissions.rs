//! Owners and modes of files that crosshost trusts, or that contain a secret.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use cluster::Resolved;
use overlay::maintain::findings::{Check, Findings};

use crate::conflists;

/// The path of the configuration, whether or not the file exists.
fn config_file() -> PathBuf {
    let named = std::env::var_os("CROSSHOST_CONFIG").filter(|it| !it.is_empty());
    named.map_or_else(|| cluster::CONFIG_FILE.into(), PathBuf::from)
}

/// Write permission of group or others.
const WRITABLE: u32 = 0o022;
/// Any permission of others.
const OPEN: u32 = 0o007;

/// Reports files that users other than root can change, and secrets that they can read.
pub fn examine(settings: Option<&Resolved>, findings: &mut Findings) {
    let config = config_file();
    // Whoever can write to a folder can replace a file in it.
    let folder = config.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.map(|it| (it.to_owned(), "has the configuration of all plugins"));
    let mut trusted: Vec<_> = folder.into_iter().collect();
    trusted.extend([
        (config, "configures all commands and plugins"),
        (
            PathBuf::from(journal::ROOT),
            "has the records of this host's containers",
        ),
    ]);
    let conflists = conflists::paths().into_iter();
    trusted.extend(conflists.map(|path| (path, "says which programs runtimes start as root")));
    if let Some(settings) = settings {
        let url = settings.store.url.as_deref().unwrap_or_default();
        if let Some(directory) = url.strip_prefix("dir://") {
            trusted.push((directory.into(), "is the store"));
        }
        let authorities = [&settings.store.ca_file, &settings.store.ca_path];
        let authorities = authorities.into_iter().flatten().cloned();
        trusted.extend(authorities.map(|path| (path, "says which stores are trusted")));
        let secrets = [&settings.store.token_file, &settings.store.key_file];
        for path in secrets.into_iter().flatten() {
            let Some((mode, owner)) = look(path, findings) else {
                continue;
            };
            if owner != 0 {
                trusted.push((path.clone(), "is secret"));
            } else if mode & OPEN != 0 {
                let path = path.display();
                let says = format!(
                    "{path}: others can read or change it (mode {mode:04o}), and it is secret"
                );
                findings.wrong(
                    Check::Permissions,
                    says,
                    &format!("chmod o= {}", ruleset::quoted(&path.to_string())),
                );
            }
        }
    }
    for (path, why) in trusted {
        let Some((mode, owner)) = look(&path, findings) else {
            continue;
        };
        let (shown, quoted) = (path.display(), ruleset::quoted(&path.display().to_string()));
        if owner != 0 {
            let says = format!("{shown}: owned by user {owner}, who can change it, and it {why}");
            findings.wrong(Check::Permissions, says, &format!("chown root: {quoted}"));
        } else if mode & WRITABLE != 0 {
            let says = format!("{shown}: others can change it (mode {mode:04o}), and it {why}");
            findings.wrong(Check::Permissions, says, &format!("chmod go-w {quoted}"));
        }
    }
}

/// Mode and owner; `None` if the file does not exist.
fn look(path: &Path, findings: &mut Findings) -> Option<(u32, u32)> {
    match fs::metadata(path) {
        Ok(found) => Some((found.mode() & 0o7777, found.uid())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            findings.wrong(
                Check::Permissions,
                format!("{}: {error}", path.display()),
                "",
            );
            None
        }
    }
}
