//! `crosshost doctor`: what is right and what is wrong on this host, each in a line with its cause and the command that repairs it.
//! It changes nothing. `overlay` checks this host's kernel; this file checks the store, and what other hosts wait for.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use cluster::{Cluster, LocalStore as _, Node, Records, Resolved, Stage, Stored};
use ipam_kv::local_store::FsLocalStore;
use ipnetwork::IpNetwork;
use journal::{Found, clock};
use overlay::{
    follow::watcher_lease,
    maintain::{
        diagnose::SYNC,
        findings::{Check, Finding, Findings, State},
        repair::Known,
    },
};
use portmap::Examined;
use serde_json::json;

use crate::{
    cli::Output,
    conflists,
    exit::ReportFailed,
    output::json,
    permissions,
    session::{self, Result, Session},
    store_access, store_check,
};

/// Checks everything. A check that fails is a finding like others, and does not stop the checks that do not depend on it.
pub async fn examine(output: Output) -> Result<String> {
    let mut findings = Findings::default();
    let settings = match session::settings() {
        Ok(settings) => Some(settings),
        Err(error) => {
            let says = format!(
                "settings: {error}; the store, the underlay and the networks are not checked"
            );
            findings.wrong(Check::Settings, says, "");
            None
        }
    };
    permissions::examine(settings.as_ref(), &mut findings);
    if let Some(settings) = &settings {
        let here = settings.store_ref();
        if let Err(error) = examine_store(settings, &mut findings).await {
            findings.wrong(Check::Store, format!("store {here}: {error}"), "");
        }
        examine_scope(settings, &mut findings);
        if let Err(error) = store_check::examine(settings, &mut findings) {
            findings.wrong(Check::StoreOfContainers, error.to_string(), "");
        }
    }
    if let Err(error) = examine_watcher(&mut findings) {
        findings.wrong(Check::Watcher, error.to_string(), "");
    }
    examine_layout(&mut findings);
    conflists::examine(&mut findings);
    let looked = overlay::maintain::diagnose::examine(settings.as_ref(), &mut findings).await;
    findings.failed(Check::Host, looked);
    let looked = examine_ports(&mut findings).await;
    findings.failed(Check::PublishedPorts, looked);
    if let Err(error) = examine_releases(&mut findings) {
        findings.wrong(Check::Releases, error.to_string(), "");
    }
    let text = if output.json {
        json(
            "findings",
            findings
                .0
                .iter()
                .map(|it| json!({"id": it.check.id(), "state": word(it.state), "says": it.says, "mend": it.mend}))
                .collect(),
        )
    } else {
        findings.0.iter().map(line).collect()
    };
    if findings.0.iter().any(|it| it.state == State::Wrong) {
        return Err(ReportFailed(text).into());
    }
    Ok(text)
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Note => "note",
        State::Wrong => "wrong",
    }
}

fn line(it: &Finding) -> String {
    let mend = if it.mend.is_empty() {
        String::new()
    } else {
        format!("; run: {}", cni::plain(&it.mend))
    };
    format!(
        "{:5}  {}{mend}\n",
        word(it.state),
        cni::line(it.says.clone())
    )
}

/// Checks that this version knows the layout of `/run/crosshost`.
fn examine_layout(findings: &mut Findings) {
    let root = Path::new(journal::ROOT);
    let mut wrong = |why: String| findings.wrong(Check::Layout, why, "");
    if let Err(newer) = journal::layout::admit(root, cni::build::BUILD) {
        return wrong(newer.to_string());
    }
    match journal::layout::read(root) {
        Err(error) => wrong(error.to_string()),
        Ok(Found::Unreadable(document)) => wrong(document.to_string()),
        Ok(Found::Absent) => {}
        Ok(Found::Readable(it)) => {
            let (root, number, version, commit) = (journal::ROOT, it.layout, it.version, it.commit);
            let says = format!("{root}: layout {number}, by crosshost {version} ({commit})");
            findings.ok(Check::Layout, says);
        }
    }
}

/// Notes a `dir` store, which no other host shares. Two hosts that each have one give out the same addresses, and neither can
/// know it.
fn examine_scope(settings: &Resolved, findings: &mut Findings) {
    if !settings.is_local() {
        return;
    }
    let says = format!(
        "store {}: a directory of this host, as if no store were configured: no network reaches another host; \
         set store.url in {}, the same on each host",
        settings.store_ref(),
        cluster::CONFIG_FILE,
    );
    findings.note(Check::StoreScope, says, "");
}

/// Checks that the store answers, accepts our token and has the current record of this host, and that no host waits for another.
async fn examine_store(settings: &Resolved, findings: &mut Findings) -> Result<()> {
    let session = &Session::with(settings.clone())?;
    let (cluster, node) = (session.cluster(), &settings.node);
    let nodes = cluster.nodes().await?;
    cluster.may_write(node).await?;
    findings.ok(
        Check::Store,
        format!(
            "store {}: lets this host read and write",
            session.settings.store_ref()
        ),
    );
    let here = session.settings.store_ref();
    if let Err(error) = store_access::examine(settings, &cluster, &nodes, findings).await {
        findings.wrong(Check::StoreAccess, format!("store {here}: {error}"), "");
    }
    if let Err(error) = conflists::examine_kept(session, findings).await {
        findings.wrong(Check::Conflist, error.to_string(), "");
    }
    examine_tunnel_addresses(&nodes, findings);
    examine_broadcast_addresses(&nodes, findings).await?;
    match nodes.get(node) {
        // Reported with the other records.
        Some(Stored::Unreadable(_)) => {}
        None => findings.wrong(
            Check::Node,
            format!("node {node}: not registered in the store"),
            SYNC,
        ),
        Some(Stored::Readable(own)) if own.record.boot_id != clock::boot_id()? => {
            let says = format!(
                "node {node}: registered with another boot id: by an earlier boot, or by another host of that name"
            );
            findings.wrong(Check::Node, says, SYNC);
        }
        Some(_) => findings.ok(Check::Node, format!("node {node}: registered in the store")),
    }
    let sandboxes = overlay::segment::sandbox::networks().map_err(|error| error.to_string())?;
    for cluster in session.clusters().await? {
        // Records that cannot be read come first. A failure of one check does not stop the others.
        for looked in [
            examine_records(session, &cluster, findings).await,
            examine_vnis(&cluster, findings).await,
            examine_leftovers(&cluster, findings).await,
            examine_networks(&cluster, &sandboxes, findings).await,
        ] {
            if let Err(error) = looked {
                let here = session.settings.store_ref();
                findings.wrong(Check::Store, format!("store {here}: {error}"), "");
            }
        }
    }
    Ok(())
}

/// Checks that this version can read every key.
async fn examine_records(
    session: &Session,
    cluster: &Cluster<'_>,
    findings: &mut Findings,
) -> Result<()> {
    let nodes = format!("{}/", cluster.layout().nodes()?.as_str());
    for unusable in cluster.unusable_keys().await? {
        let says = format!("record {}: {}", unusable.key, unusable.why);
        // A record of a newer version needs an upgrade of this host.
        let whose = unusable.key.strip_prefix(&nodes);
        let is_name = |it: &&str| {
            let mut all = it.chars();
            !unusable.is_folder && all.all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        };
        let mend = match whose.filter(is_name) {
            _ if unusable.is_newer => String::new(),
            // To delete it would cut off a host without a watcher, and only that host writes it again.
            Some(name) if name == session.settings.node => SYNC.to_owned(),
            Some(name) => {
                format!(
                    "{SYNC}  # on {name}; or crosshost node rm {name} --force if that host is gone"
                )
            }
            None => deletion(session, &unusable),
        };
        findings.wrong(Check::Records, says, &mend);
    }
    Ok(())
}

/// Checks that no two networks have the same VNI, and that the store has each VNI under `vnis/`.
async fn examine_vnis(cluster: &Cluster<'_>, findings: &mut Findings) -> Result<()> {
    for unclaimed in cluster.unclaimed_vnis().await? {
        let cluster::UnclaimedVni {
            network,
            vni,
            other,
        } = unclaimed;
        let called = cluster.full_name(&network);
        match other {
            None => {
                let says = format!(
                    "network {called}: the store has no record that VNI {vni} is taken by it"
                );
                let mend = format!("{SYNC}  # on a host of network {}", cni::plain(&called));
                findings.wrong(Check::Records, says, &mend);
            }
            Some(other) => {
                let other = cluster.full_name(&other);
                let says = format!(
                    "network {called}: network {other} has VNI {vni}, too; remove one of them and create it again"
                );
                findings.wrong(Check::Records, says, "");
            }
        }
    }
    Ok(())
}

/// Checks that nothing is left of networks that are gone.
async fn examine_leftovers(cluster: &Cluster<'_>, findings: &mut Findings) -> Result<()> {
    for (name, leftovers) in cluster.leftovers().await? {
        let called = cluster.full_name(&name);
        if let Some(first) = leftovers.keys.first() {
            let (count, gc) = (leftovers.keys.len(), "crosshost gc");
            let says = format!(
                "network {called}: the store has no record of it, and {count} keys are left of it, such as {first}"
            );
            findings.note(Check::RemovedNetwork, says, gc);
        }
        if !leftovers.nodes.is_empty() {
            let nodes: Vec<_> = leftovers.nodes.iter().map(String::as_str).collect();
            let nodes = nodes.join(", ");
            let says = format!(
                "network {called}: the store has lost its record, but has leases of containers on {nodes}"
            );
            // The node of a lease that cannot be read is unknown: words stand for its name.
            let is_known = leftovers.nodes.iter().all(|node| !node.contains(' '));
            let mend = format!("{SYNC}  # on {}", cni::plain(&nodes));
            let mend = if is_known { mend } else { String::new() };
            findings.wrong(Check::RemovedNetwork, says, &mend);
        }
    }
    Ok(())
}

/// Checks that nothing of a network waits for a host, and that this host forwards by what the store has.
async fn examine_networks(
    cluster: &Cluster<'_>,
    sandboxes: &[String],
    findings: &mut Findings,
) -> Result<()> {
    for (_, network) in cluster.networks().await?.readable() {
        let (name, called) = (
            &network.record.name,
            cluster.full_name(&network.record.name),
        );
        if let Some(restoring) = &network.record.restoring {
            let node = &restoring.node;
            let says = format!(
                "network {called}: the store had lost it, and node {node} writes it again; if a sync there does not end that, `network rm` there does"
            );
            let mend = format!("{SYNC}  # on {}", cni::plain(node));
            findings.note(Check::Handover, says, &mend);
        }
        for (what, nodes) in cluster.stuck(name).await? {
            let nodes = nodes.join(", ");
            let says = format!("network {called}: {what}: waits for {nodes}");
            let mend = format!("{SYNC}  # on {}", cni::plain(&nodes));
            findings.note(Check::Handover, says, &mend);
        }
        if cluster.data_dir().is_default() && sandboxes.contains(name) {
            let snapshot = cluster.snapshot(name).await?;
            let known = Known::load(Some(name)).map_err(|error| error.to_string())?;
            if known.is_behind(name, &snapshot) {
                let says = format!(
                    "network {name}: this host forwards by older blocks than the store has"
                );
                findings.note(Check::News, says, SYNC);
            }
        }
    }
    Ok(())
}

/// Checks that the watcher runs, and that the store answers it.
fn examine_watcher(findings: &mut Findings) -> Result<()> {
    if !watcher_lease::is_alive()? {
        let says =
            "watcher: does not run; this host reads changes of other hosts with its next verb";
        let mend = "systemctl start crosshost-sync";
        findings.note(Check::Watcher, says.to_owned(), mend);
        return Ok(());
    }
    let silence = watcher_lease::last_heard()?.and_then(watcher_lease::Heard::silence);
    match silence {
        None => findings.ok(Check::Watcher, "watcher: runs".to_owned()),
        Some(seconds) => {
            let says =
                format!("watcher: runs, but has heard nothing from the store for {seconds} s");
            findings.wrong(Check::Watcher, says, "systemctl reload crosshost-sync");
        }
    }
    Ok(())
}

/// The command that deletes a key of the store, or a folder of keys. A host that needs the key writes it again. Empty if the name
/// cannot be quoted.
fn deletion(session: &Session, unusable: &cluster::UnusableKey) -> String {
    let key = &unusable.key;
    if key.contains(|c: char| c == '\'' || c.is_control()) {
        return String::new();
    }
    let url = session.settings.store_ref().store.url.unwrap_or_default();
    match (url.strip_prefix("dir://"), unusable.is_folder) {
        (Some(folder), false) => format!("rm '{folder}/{key}='"),
        (Some(folder), true) => format!("rm -r '{folder}/{key}'"),
        (None, false) => format!("consul kv delete '{key}'"),
        (None, true) => format!("consul kv delete -recurse '{key}'"),
    }
}

/// Checks that no two hosts have the same tunnel address: packets to the one would reach the other.
fn examine_tunnel_addresses(nodes: &Records<String, Node>, findings: &mut Findings) {
    let mut names: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    for (name, node) in nodes.readable() {
        if let Some(vtep) = node.record.vtep {
            names.entry(vtep).or_default().push(name);
        }
    }
    for (vtep, names) in names.iter().filter(|(_, names)| names.len() > 1) {
        let names = names.join(" and ");
        let says = format!("tunnel address {vtep}: registered by nodes {names}");
        let mend = "crosshost sync  # on the host that does not have it; or crosshost node rm of a node that is gone";
        findings.wrong(Check::Node, says, mend);
    }
}

/// Checks that no tunnel leads to all machines of a segment of this host.
async fn examine_broadcast_addresses(
    nodes: &Records<String, Node>,
    findings: &mut Findings,
) -> Result<()> {
    let host = overlay::state::host::Host::open().map_err(|error| error.to_string())?;
    let own = host.rtnl.addresses(None).await;
    let own = own.map_err(|error| error.to_string())?;
    let all = own.iter().filter_map(|(_, address)| match address {
        IpNetwork::V4(v4) if v4.prefix() < 31 => Some(IpAddr::V4(v4.broadcast())),
        _ => None,
    });
    let all: Vec<_> = all.collect();
    for (name, node) in nodes.readable() {
        if let Some(vtep) = node.record.vtep.filter(|vtep| all.contains(vtep)) {
            let says = format!(
                "tunnel address {vtep} of node {name}: is the broadcast address of a segment of this host"
            );
            let mend = format!("{SYNC}  # on {}", cni::plain(name));
            findings.wrong(Check::Node, says, &mend);
        }
    }
    Ok(())
}

/// Checks that published ports are in the kernel's table, and that no rule of others stops their packets.
async fn examine_ports(findings: &mut Findings) -> std::result::Result<(), plugin::Error> {
    let Examined {
        published,
        is_whole,
        shut,
        lost,
        unreadable,
    } = portmap::examine()?;
    for unreadable in &unreadable {
        findings.held(&unreadable.to_string());
    }
    for whose in lost {
        let says = format!(
            "published ports: {whose} has ports whose record on this host is lost; its DEL or a GC of its network removes them"
        );
        findings.note(Check::PortRecord, says, "");
    }
    if published == 0 {
        return Ok(());
    }
    for via in shut {
        let says =
            format!("published ports: not reachable at 127.0.0.1 by {via}: route_localnet is 0");
        findings.wrong(Check::RouteLocalnet, says, SYNC);
    }
    if is_whole {
        findings.ok(
            Check::PublishedPorts,
            format!("published ports: {published}, as they should be"),
        );
    } else {
        let says = format!("published ports: not all of {published} are in the kernel's table");
        findings.wrong(Check::PublishedPorts, says, SYNC);
    }
    findings.blocked(portmap::obstacles().await);
    Ok(())
}

/// Checks that the store was told of all addresses that were released.
fn examine_releases(findings: &mut Findings) -> Result<()> {
    for files in FsLocalStore::all()? {
        for unreadable in files.lost()? {
            findings.lost(&unreadable);
        }
        for network in files.networks()? {
            let untold = |local_lease: &cluster::LocalLease| {
                local_lease.stage == Stage::Gone || !local_lease.given_back.is_empty()
            };
            let local_leases = files.leases(&network)?;
            for unreadable in &local_leases.unreadable {
                findings.held(unreadable);
            }
            let releases = local_leases.readable.iter().filter(|it| untold(it)).count();
            if releases > 0 {
                let network = files.data_dir().full_name(&network);
                let says = format!(
                    "network {network}: {releases} released addresses that the store was not told of yet"
                );
                findings.wrong(Check::Releases, says, SYNC);
            }
        }
    }
    Ok(())
}
