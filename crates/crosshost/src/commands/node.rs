//! `crosshost node`: ls, rm.

use std::{collections::BTreeMap, str::FromStr};

use cluster::{Cluster, Error, Node, Stored};
use journal::clock;
use serde_json::json;

use crate::{
    cli::{self, Listing},
    exit::Refused,
    output::{json, lines, table},
    session::{Result, Session},
};

/// A host whose last contact is younger than this, in seconds, is removed only with `--force`.
const YOUNG: u64 = 600;

/// A condition on hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Part of the name.
    Name(String),
    /// Registered by this version.
    Version(String),
}

impl cli::Filter for Filter {
    const HELP: &'static str =
        "Only hosts with name=PART of it or version=VERSION; may be repeated, and all must hold";
    const QUIET: &'static str = "Print the names alone";
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some(("name", part)) => Ok(Self::Name(part.to_owned())),
            Some(("version", version)) => Ok(Self::Version(version.to_owned())),
            _ => Err("want name= or version=".to_owned()),
        }
    }
}

impl Filter {
    /// Whether a host fulfils it. Of a record that cannot be read only the name is known.
    fn admits(&self, name: &str, node: Option<&Node>) -> bool {
        match self {
            Self::Name(part) => name.contains(part),
            Self::Version(wanted) => node.is_some_and(|node| node.version.as_ref() == Some(wanted)),
        }
    }
}

/// All hosts.
pub async fn list(session: &Session, listing: &Listing<Filter>) -> Result<String> {
    // A host whose networks all have data directories may be registered only there.
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    let mut skipped: BTreeMap<String, String> = BTreeMap::new();
    for cluster in session.clusters().await? {
        let known = cluster.nodes().await?;
        let unreadable = known
            .unreadable()
            .map(|(name, it)| (name.clone(), it.why.clone()));
        skipped.extend(unreadable);
        for (_, node) in known.readable() {
            let node = node.record.clone();
            nodes
                .entry(node.name.clone())
                .and_modify(|known| known.last_contact = known.last_contact.max(node.last_contact))
                .or_insert(node);
        }
    }
    let vtep = |node: &Node| {
        node.vtep
            .map_or_else(|| "-".to_owned(), |vtep| vtep.to_string())
    };
    let admits = |name: &str, node: Option<&Node>| {
        let mut filters = listing.filter.iter();
        filters.all(|filter| filter.admits(name, node))
    };
    nodes.retain(|name, node| admits(name, Some(node)));
    skipped.retain(|name, _| admits(name, None));
    if listing.quiet {
        return Ok(lines(nodes.keys().chain(skipped.keys())));
    }
    if listing.output.json {
        let described = |node: &Node| {
            json!({
                "name": node.name, "vtep": node.vtep, "bootID": node.boot_id, "machineID": node.machine_id,
                "lastContact": node.last_contact, "version": node.version, "commit": node.commit,
            })
        };
        let unreadable = skipped
            .iter()
            .map(|(name, why)| json!({"name": name, "unreadable": why}));
        let all = nodes.values().map(described).chain(unreadable);
        return Ok(json("nodes", all.collect()));
    }
    let now = clock::unix();
    let rows: Vec<_> = nodes
        .values()
        .map(|node| {
            [
                node.name.clone(),
                vtep(node),
                node.boot_id.clone(),
                build(node),
                ago(now.saturating_sub(node.last_contact)),
            ]
        })
        .chain(
            skipped
                .keys()
                .map(|name| [name, "(unreadable)", "-", "-", "-"].map(str::to_owned)),
        )
        .collect();
    Ok(table(
        ["NAME", "VTEP", "BOOT ID", "VERSION", "LAST CONTACT"],
        &rows,
    ))
}

/// The build that registered a node: `1.0.0 (a1b2c3d4)`; `-` if it wrote none.
fn build(node: &Node) -> String {
    match (&node.version, &node.commit) {
        (Some(version), Some(commit)) => format!("{version} ({commit})"),
        (Some(version), None) => version.clone(),
        (None, _) => "-".to_owned(),
    }
}

/// Seconds since a host's last contact, if they are so few that it may be running. A watcher does not write contacts regularly, so a
/// longer silence tells nothing. A host whose record cannot be read may be running.
async fn heard_of(clusters: &[Cluster<'_>], name: &str) -> Result<Option<u64>> {
    let mut last = None;
    for cluster in clusters {
        let nodes = cluster.nodes().await?;
        last = last.max(nodes.get(name).map(|node| match node {
            Stored::Readable(node) => node.record.last_contact,
            Stored::Unreadable(_) => clock::unix(),
        }));
    }
    let silent = last.map(|contact| clock::unix().saturating_sub(contact));
    Ok(silent.filter(|seconds| *seconds < YOUNG))
}

/// A span of time in a suitable unit.
pub fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86400),
    }
}

/// Removes a host that will not come back; one that still has endpoints only with `--force`. It goes from all data directories or
/// from none, and last from the default one, so that the command can be repeated until then.
pub async fn remove(session: &Session, name: &str, force: bool) -> Result<String> {
    let mut clusters = session.clusters().await?;
    clusters.reverse();
    let mut leases = Vec::new();
    for cluster in clusters.iter().filter(|_| !force) {
        let held = cluster.endpoints_of(name).await?.into_iter();
        leases.extend(held.map(|(network, ip, lease)| (cluster.full_name(&network), ip, lease)));
    }
    if !leases.is_empty() {
        let name = name.to_owned();
        return Err(Error::NodeInUse { name, leases }.into());
    }
    if !force && let Some(seconds) = heard_of(&clusters, name).await? {
        let why = "it lives, and registers anew with its next verb or sync; to remove it for good, end its containers and \
                   its watcher (systemctl stop crosshost-sync) first; --force removes it all the same";
        let says = format!("node {name}: heard of {}: {why}", ago(seconds));
        return Err(Refused(says).into());
    }
    let mut known = false;
    for cluster in &clusters {
        match cluster.remove_node(name, force).await {
            Ok(()) => known = true,
            Err(Error::NoNode(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !known {
        return Err(Error::NoNode(name.to_owned()).into());
    }
    Ok(format!("{name}\n"))
}
