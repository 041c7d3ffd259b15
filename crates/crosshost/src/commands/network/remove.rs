//! `crosshost network rm` and `prune`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use cluster::LocalStore as _;
use ipam_kv::local_store::FsLocalStore;

use super::keep_conflists;
use crate::{
    cli::Prune,
    exit::{ReportFailed, Usage},
    session::{Result, Session},
};

/// Removes networks without endpoints. Each that can be removed is, and the first failure is told last.
pub async fn remove(session: &Session, names: &[String]) -> Result<String> {
    let (mut removed, mut failed) = (Vec::new(), None);
    for name in names {
        match remove_one(session, name).await {
            Ok(()) => removed.push(format!("{}\n", cni::plain(name))),
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    cni::log(&format!("crosshost: {earlier}"));
                }
            }
        }
    }
    keep_conflists(session).await;
    match failed {
        None => Ok(removed.concat()),
        Some(error) if removed.is_empty() => Err(error),
        Some(error) => {
            cni::log(&format!("crosshost: {error}"));
            Err(ReportFailed(removed.concat()).into())
        }
    }
}

async fn remove_one(session: &Session, called: &str) -> Result<()> {
    let (cluster, name) = session.cluster_of(called)?;
    // If this host has no snapshot of the network, a restore that it began has ended.
    let memory = FsLocalStore::new(cluster.data_dir()).memory(name)?;
    if memory.snapshot.network.is_none() {
        let (boot, node) = (journal::clock::boot_id()?, &session.settings.node);
        let snapshot = cluster.snapshot(name).await?;
        let ended = cluster.end_restore(name, &snapshot, node, &boot);
        ended.await?;
    }
    let now = journal::clock::unix();
    Ok(cluster.remove_network(name, now).await?)
}

/// Removes the networks that were created by command and have no endpoints on any host. A network that a conflist describes is left:
/// its next container would create it again.
pub async fn prune(session: &Session, asked: &Prune) -> Result<String> {
    let cluster = session.cluster();
    let networks = cluster.networks().await?;
    let mut unused = Vec::new();
    for (name, network) in networks.readable() {
        let network = &network.record;
        let mut filters = asked.filter.iter();
        let is_asked = filters.all(|filter| filter.admits(network, session.scope()));
        if network.conflist && network.is_ready() && is_asked {
            let leases = cluster.leases(name).await?;
            unused.extend(leases.is_empty().then(|| name.clone()));
        }
    }
    if asked.dry_run || unused.is_empty() {
        return Ok(unused.iter().map(|name| cni::plain(name) + "\n").collect());
    }
    if !asked.force && !is_confirmed(&unused)? {
        return Ok(String::new());
    }
    remove(session, &unused).await
}

/// Asks at the terminal.
fn is_confirmed(names: &[String]) -> Result<bool> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let why = "--force: nobody can be asked here whether to remove; want it, or --dry-run";
        return Err(Usage(why.to_owned()).into());
    }
    let names: Vec<_> = names.iter().map(|name| cni::plain(name)).collect();
    let question = format!(
        "This removes the networks {}. Go on? [y/N] ",
        names.join(", ")
    );
    io::stderr().write_all(question.as_bytes())?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
