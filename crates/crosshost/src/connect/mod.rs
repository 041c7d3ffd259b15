//! `crosshost network connect` and `disconnect`: a running container joins a further network, or leaves one. No runtime takes part:
//! the plugins are run here, by the network's conflist, and what was made is noted for its removal
//! ([`plugin::connected`]), with which the watcher follows the container.

mod chain;
mod containers;

use std::path::{Path, PathBuf};

use journal::Attachment;
use overlay::{
    maintain::{live_namespace, stale},
    state::{attachment::Record, host::Host},
};
use plugin::connected::{self, Connected};
use serde_json::Value;

use self::chain::{Asked, Chain};
use crate::{
    cli::Connect,
    commands::gc,
    conflists,
    session::{Result, Session},
};

/// A container, as it is found by a name or a path.
struct Target {
    /// With which plugins are called.
    id: String,
    netns: PathBuf,
    netns_id: (u64, u64),
}

/// Held by a command that connects or disconnects.
const LOCK: &str = "connect";

fn failed(error: impl Into<cni::Error>) -> Box<dyn std::error::Error> {
    let error: cni::Error = error.into();
    error.to_string().into()
}

fn records(host: &Host) -> Result<Vec<Record>> {
    plugin::all_readable(&host.records).map_err(failed)
}

/// Attaches a running container to a network.
pub async fn connect(session: &Session, asked: &Connect) -> Result<String> {
    let (network, called) = (asked.network.as_str(), asked.container.as_str());
    let host = Host::open().map_err(failed)?;
    let target = target(&records(&host)?, called)?;
    let conflist = conflist(session, network).await?;
    // Two of these would choose the same interface, and the one that fails would undo what the other has made.
    let _alone = host.lock(LOCK).map_err(failed)?;
    if let Some(there) = on(&records(&host)?, &target, network)?.first() {
        return Err(format!("{there}: is connected already").into());
    }
    let ifname = if let Some(ifname) = &asked.interface {
        ifname.to_string()
    } else {
        let free = live_namespace::free_interface(&target.netns).await;
        let none = "the container has all interfaces from eth0 on; name one: --interface";
        free.map_err(failed)?.ok_or(none)?
    };
    let attachment = Attachment {
        network: network.to_owned(),
        container: target.id,
        ifname,
    };
    let documents = connected::documents();
    let mut noted = Connected {
        attachment: attachment.clone(),
        netns: target.netns,
        netns_id: target.netns_id,
        conflist,
        result: Value::Null,
    };
    // Before anything is made: if this process is killed, `disconnect` and the watcher know what to remove.
    documents.save(&attachment.hash(), &noted)?;
    let chain = Chain {
        conflist: &noted.conflist,
        attachment: &attachment,
        netns: &noted.netns,
    };
    let made = chain.add(&Asked {
        ips: asked.ip.clone(),
        mac: asked.mac,
    });
    match made {
        Ok(result) => noted.result = result,
        Err(error) => {
            documents.remove(&attachment.hash())?;
            return Err(error);
        }
    }
    documents.save(&attachment.hash(), &noted)?;
    let ips = addresses(&noted.result, &attachment.ifname);
    Ok(format!(
        "{} {}\n",
        cni::plain(&attachment.ifname),
        ips.join(" ")
    ))
}

/// The addresses of an interface by a result; the egress interface of an attachment has others.
fn addresses<'r>(result: &'r Value, ifname: &str) -> Vec<&'r str> {
    let its = |ip: &&Value| {
        let index = ip["interface"].as_u64().map(usize::try_from);
        let Some(Ok(index)) = index else { return true };
        result["interfaces"][index]["name"] == ifname
    };
    let ips = result["ips"].as_array().into_iter().flatten();
    let ips = ips.filter(its);
    ips.filter_map(|ip| ip["address"].as_str()).collect()
}

/// Detaches a container from a network, whoever attached it.
pub async fn disconnect(session: &Session, network: &str, called: &str) -> Result<String> {
    let host = Host::open().map_err(failed)?;
    let _alone = host.lock(LOCK).map_err(failed)?;
    let records = records(&host)?;
    let found = match target(&records, called) {
        Ok(target) => on(&records, &target, network)?,
        // The container may be gone.
        Err(_) => of_id(&records, called, network)?,
    };
    if found.is_empty() {
        let network = cni::plain(network);
        return Err(format!("container {called} is not connected to network {network}").into());
    }
    let documents = connected::documents();
    for attachment in found {
        let noted = documents.load_readable(&attachment.hash(), &plugin::report_unreadable)?;
        let record = records.iter().find(|it| it.attachment == attachment);
        let (conflist, netns, result) = match (noted, record) {
            (Some(noted), _) => (noted.conflist, noted.netns, noted.result),
            (None, Some(record)) => {
                let conflist = conflist(session, network).await?;
                (conflist, record.netns.clone(), Value::Null)
            }
            (None, None) => continue,
        };
        let chain = Chain {
            conflist: &conflist,
            attachment: &attachment,
            netns: &netns,
        };
        chain.del(&result)?;
        documents.remove(&attachment.hash())?;
    }
    Ok(String::new())
}

/// Removes the attachments that a command has made and whose containers are gone. One line for each, and failures.
pub async fn sweep() -> Result<(Vec<String>, Vec<String>)> {
    let (mut lines, mut failures) = (Vec::new(), Vec::new());
    let documents = connected::documents();
    if documents.is_empty()? {
        return Ok((lines, failures));
    }
    let host = Host::open().map_err(failed)?;
    for noted in documents.all_readable(&plugin::report_unreadable)? {
        let attachment = &noted.attachment;
        let record = host
            .records
            .load_readable(&attachment.hash(), &plugin::report_unreadable)?;
        let done = match record {
            Some(record) => stale::take_down(&host, &record, gc::release).await,
            // Under another interface plugin.
            None if live_namespace::lives(&noted.netns, noted.netns_id) => continue,
            None => gc::release(attachment).await.map(|()| true),
        };
        match done {
            Ok(false) => continue,
            Ok(true) => lines.push(cni::line(format!("{attachment}: its container is gone"))),
            Err(error) => {
                failures.push(format!("{attachment}: {error}"));
                continue;
            }
        }
        documents.remove(&attachment.hash())?;
    }
    Ok((lines, failures))
}

/// The container that a person calls so: by the path of its namespace, or by a name or id that a runtime or a plugin knows.
fn target(records: &[Record], called: &str) -> Result<Target> {
    if called.contains('/') && Path::new(called).is_absolute() {
        let netns_id = live_namespace::id(Path::new(called)).map_err(failed)?;
        return Ok(in_netns(records, netns_id, PathBuf::from(called), None));
    }
    let known = containers::all();
    let mut found: Vec<Target> = Vec::new();
    let mut add = |netns: &Path, id: &str| {
        if let Ok(netns_id) = live_namespace::id(netns) {
            let id = Some(id.to_owned());
            let target = in_netns(records, netns_id, netns.to_owned(), id);
            // Containers of a pod are one.
            if found.iter().all(|it| it.netns_id != target.netns_id) {
                found.push(target);
            }
        }
    };
    for container in known.iter().filter(|it| it.is_called(called)) {
        add(&container.netns, &container.cni_id);
    }
    for record in records {
        let of = &record.attachment.container;
        let is_live = live_namespace::id(&record.netns).is_ok_and(|it| it == record.netns_id);
        if is_live && (of == called || called.len() >= 3 && of.starts_with(called)) {
            add(&record.netns, of);
        }
    }
    match (found.pop(), found.len()) {
        (Some(target), 0) => Ok(target),
        (None, _) => {
            let why = "no running container of this host is called so; want a name, an id or the path of a namespace";
            Err(format!("container {called}: {why}").into())
        }
        (Some(_), others) => {
            let why = format!(
                "{} containers are called so; want more of an id",
                others + 1
            );
            Err(format!("container {called}: {why}").into())
        }
    }
}

/// The container of a namespace. If it is on a network of ours, its id is that of the attachment, whatever was typed.
fn in_netns(
    records: &[Record],
    netns_id: (u64, u64),
    netns: PathBuf,
    id: Option<String>,
) -> Target {
    let known = records.iter().find(|record| record.netns_id == netns_id);
    let (device, inode) = netns_id;
    let unnamed = || format!("netns-{device}-{inode}");
    Target {
        id: known
            .map(|record| record.attachment.container.clone())
            .or(id)
            .unwrap_or_else(unnamed),
        // The path that the runtime has may outlive the container's first process.
        netns: known.map_or(netns, |record| record.netns.clone()),
        netns_id,
    }
}

/// The attachments of a container to a network.
fn on(records: &[Record], target: &Target, network: &str) -> Result<Vec<Attachment>> {
    let mut found = Vec::new();
    for record in records {
        let its = record.netns_id == target.netns_id && record.attachment.network == network;
        found.extend(its.then(|| record.attachment.clone()));
    }
    for noted in connected::documents().all_readable(&plugin::report_unreadable)? {
        let its = noted.netns_id == target.netns_id && noted.attachment.network == network;
        if its && !found.contains(&noted.attachment) {
            found.push(noted.attachment);
        }
    }
    Ok(found)
}

/// The same by the id alone.
fn of_id(records: &[Record], id: &str, network: &str) -> Result<Vec<Attachment>> {
    let noted = connected::documents().all_readable(&plugin::report_unreadable)?;
    let all = records.iter().map(|record| &record.attachment);
    let all = all.chain(noted.iter().map(|noted| &noted.attachment));
    let mut found: Vec<Attachment> = Vec::new();
    for attachment in all.filter(|it| it.network == network && it.container == id) {
        if !found.contains(attachment) {
            found.push(attachment.clone());
        }
    }
    Ok(found)
}

/// The network's conflist of this host, or else what each host would write for it.
async fn conflist(session: &Session, network: &str) -> Result<Value> {
    if let Some(conflist) = conflists::of_network(session, network) {
        return Ok(conflist);
    }
    let record = session.cluster().network(network).await?;
    let record = record.ok_or_else(|| cluster::Error::NoNetwork(network.to_owned()))?;
    Ok(conflists::written(&record.record)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_addresses_are_those_of_the_interface() {
        let result = json!({
            "interfaces": [{ "name": "ch-egress" }, { "name": "eth1" }, { "name": "gw0" }],
            "ips": [
                { "interface": 1, "address": "10.0.1.2/24" }, { "interface": 2, "address": "172.18.0.2/16" },
                { "interface": 1, "address": "fd00::2/64" },
            ],
        });
        assert_eq!(addresses(&result, "eth1"), ["10.0.1.2/24", "fd00::2/64"]);
        let plain = json!({ "ips": [{ "address": "10.0.1.2/24" }] });
        assert_eq!(addresses(&plain, "eth1"), ["10.0.1.2/24"]);
    }
}
