//! The conflists of this host: those that crosshost writes for the networks of the store, and what is wrong with any of them.
//!
//! A network that `crosshost network create` made is to be found by the runtimes of every host. So each host keeps a conflist of it
//! in the folders that `network.conflistDirs` of its configuration names, and removes it when the network was removed. It touches
//! only files that it wrote and that nobody changed since (`form.rs` marks them).

mod examine;
mod form;
mod plan;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use cluster::Network;
use overlay::{
    maintain::{
        diagnose::SYNC,
        findings::{Check, Findings},
    },
    state::host::Host,
};

pub use examine::{examine, of_network, paths};
pub use form::written;
use plan::{Action, Plan};

use crate::session::{Result, Session};

/// What was done in the folders, and what could not be.
#[derive(Debug, Default)]
pub struct Brought {
    /// One line for each file that was written or removed.
    pub lines: Vec<String>,
    /// What failed.
    pub failures: Vec<String>,
}

/// Brings the folders of this host up to date with the networks of the store. Without folders nothing is asked.
pub async fn bring(session: &Session) -> Result<Brought> {
    let mut brought = Brought::default();
    if session.settings.network.conflist_dirs.is_empty() {
        return Ok(brought);
    }
    // Before the store is read: what another process has written by then is at least as new.
    let _alone = Host::open()
        .and_then(|host| host.lock("conflists"))
        .map_err(|error| error.to_string())?;
    for (folder, plan) in plans(session).await? {
        match plan {
            Ok(plan) => apply(&folder, plan, &mut brought),
            Err(error) => brought.failures.push(error),
        }
    }
    Ok(brought)
}

/// Reports what a sync would do in the folders, and what it would leave.
pub async fn examine_kept(session: &Session, findings: &mut Findings) -> Result<()> {
    let folders = &session.settings.network.conflist_dirs;
    if folders.is_empty() {
        return Ok(());
    }
    let before = findings.0.len();
    for (_, plan) in plans(session).await? {
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                findings.wrong(Check::Conflist, error, "");
                continue;
            }
        };
        for action in plan.actions {
            let says = match action {
                Action::Write(path, _) if path.exists() => {
                    format!("{}: is out of date", path.display())
                }
                Action::Write(path, _) => format!("{}: is missing", path.display()),
                Action::Remove(path) => {
                    format!("{}: its network was removed", path.display())
                }
            };
            findings.wrong(Check::Conflist, says, SYNC);
        }
        for conflict in plan.conflicts {
            findings.wrong(Check::Conflist, conflict, "");
        }
        for remark in plan.remarks {
            findings.note(Check::Conflist, remark, "");
        }
    }
    if findings.0.len() == before {
        let folders: Vec<_> = folders.iter().map(|it| it.display().to_string()).collect();
        let says = format!("{}: the conflists of all networks", folders.join(", "));
        findings.ok(Check::Conflist, says);
    }
    Ok(())
}

/// What is to be done in each folder, or why that cannot be told.
async fn plans(session: &Session) -> Result<Vec<(PathBuf, std::result::Result<Plan, String>)>> {
    let networks = session.cluster().networks().await?;
    let readable = networks.readable();
    let wanted: BTreeMap<String, Network> = readable
        .map(|(name, network)| (name.clone(), network.record.clone()))
        .filter(|(_, network)| form::is_wanted(network))
        .collect();
    let removed = session.cluster().removed().await?;
    let of_folder = |folder: &PathBuf| {
        let plan = match look(folder) {
            Ok(found) => Ok(plan::plan(folder, &found, &wanted, &|name, id| {
                removed.has(name, id)
            })),
            Err(error) => Err(format!("{}: {error}", folder.display())),
        };
        (folder.clone(), plan)
    };
    let folders = session.settings.network.conflist_dirs.iter();
    Ok(folders.map(of_folder).collect())
}

/// The configurations in a folder, by path; none if it does not exist.
fn look(folder: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if examine::is_configuration(&path) && path.is_file() {
            // One that vanished meanwhile, or cannot be read, is somebody else's.
            found.insert(path.clone(), fs::read(&path).unwrap_or_default());
        }
    }
    Ok(found)
}

fn apply(folder: &Path, plan: Plan, brought: &mut Brought) {
    brought.failures.extend(plan.conflicts);
    for action in plan.actions {
        let (path, done, deed) = match action {
            Action::Write(path, text) => {
                let done = replace(folder, &path, &text);
                (path, done, "written")
            }
            Action::Remove(path) => {
                let done = fs::remove_file(&path);
                (path, done, "removed")
            }
        };
        let path = path.display();
        match done {
            Ok(()) => brought.lines.push(cni::line(format!("{path}: {deed}"))),
            Err(error) => brought.failures.push(format!("{path}: {error}")),
        }
    }
}

/// Writes a file in one step: a runtime that reads the folder sees the old or the new one.
fn replace(folder: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // No name of a configuration: runtimes do not read it. There is one for each file, so that the next write replaces it.
    let new = folder.join(format!(
        ".crosshost-{}",
        journal::digest(&[&path.to_string_lossy()])
    ));
    let mut file = fs::File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
