//! CHECK: everything that was requested is published, and is in the table. First it restores what is missing on the host as a
//! whole, as each verb does, because a runtime that is told of a deviation destroys the container. Foreign rules and settings
//! are reported by `crosshost doctor`.

use std::path::Path;

use cni::Call;
use journal::{Attachment, Found};
use nft::{
    Status,
    ports::{Entry, Ports, Published, Scope},
};
use plugin::{Error, code, run};

use crate::{
    config::Conf,
    conflict,
    record::{Record, Run},
    route_localnet,
    table::{self, PortTable},
    target,
    verbs::add::{previous, record, refuse_lacking_families},
};

pub(crate) fn check(call: &Call) -> Result<(), Error> {
    let result = &previous(call)?.result;
    let conf = Conf::read(call)?;
    let attachment = plugin::attachment(call)?;
    // As in `overlay`: a newer layout is neither judged nor repaired.
    if let Err(newer) = journal::layout::admit(Path::new(journal::ROOT), cni::build::BUILD) {
        cni::log(&newer.to_string());
        return Ok(());
    }
    let deviates = |what: String| Error::new(code::DEVIATION, format!("{attachment}: {what}"));
    let loaded = table::records().load(&attachment.hash());
    let noted = match loaded? {
        Found::Absent => None,
        Found::Readable(noted) => Some(noted),
        // Its ports are unknown. Those of other containers do not matter here.
        Found::Unreadable(unreadable) => {
            cni::log(&unreadable.to_string());
            return Ok(());
        }
    };
    if conf.mappings.is_empty() {
        return match noted {
            Some(noted) if !noted.runs.is_empty() => Err(deviates(format!(
                "host port {} is published, but was not requested",
                noted.runs[0].at()
            ))),
            _ => Ok(()),
        };
    }
    let (_, ifname) = call.attachment()?;
    let (targets, here) = run(target::find(result, ifname))?;
    refuse_lacking_families(&conf.mappings, &targets)?;
    let Some(noted) = noted.filter(|noted| !noted.leaving) else {
        return Err(deviates("none of its ports is published".to_owned()));
    };
    let wanted = record(attachment.clone(), &conf, &conf.mappings, &targets);
    if let Some(what) = differs(&wanted, &noted) {
        return Err(deviates(what));
    }
    let mut ports = Ports::open()?;
    match PortTable::open().and_then(|table| table.repair(&mut ports, &here)) {
        Ok(false) => {}
        Ok(true) => cni::log(&format!("{attachment}: published ports were put back")),
        // The table is judged as it is.
        Err(error) => cni::log(&format!("{attachment}: {error}")),
    }
    match ports.status()? {
        Status::Complete => {}
        Status::Missing => return Err(deviates("nftables table inet crosshost is gone".into())),
        Status::Damaged => {
            let what = "nftables table inet crosshost is not as it should be";
            return Err(deviates(what.to_owned()));
        }
    }
    let scope = Scope::Keys(conflict::keys(&noted));
    let found = ports.read(&scope)?;
    if let Some(what) = lacks(&noted, &found) {
        return Err(deviates(what));
    }
    if let Some(via) = route_localnet::disabled(&noted).next() {
        let key = route_localnet::key(&via);
        let why = format!("{key} is 0: its ports on 127.0.0.1 do not work");
        return Err(deviates(why));
    }
    Ok(())
}

/// How the record differs from the request.
fn differs(wanted: &Record, noted: &Record) -> Option<String> {
    let same = |wanted: &Run, noted: &Run| {
        let port = if wanted.port == 0 {
            noted.port
        } else {
            wanted.port
        };
        let wanted = Run {
            port,
            ..wanted.clone()
        };
        wanted == *noted
    };
    let missing = wanted
        .runs
        .iter()
        .find(|run| !noted.runs.iter().any(|it| same(run, it)));
    if let Some(run) = missing {
        let (at, to) = (run.at(), run.to);
        return Some(format!(
            "host port {at} does not lead to {to} by {}",
            run.via
        ));
    }
    if noted.runs.len() > wanted.runs.len() {
        return Some("more ports are published than were requested".to_owned());
    }
    let how = |record: &Record| (record.hairpin, record.hidden, record.conditions.clone());
    (how(wanted) != how(noted))
        .then(|| "snat, masqAll or conditions are not those with which it was published".to_owned())
}

/// What the table lacks of the record's elements and conditions, or has differently, or what it has in the chain of conditions that is
/// not ours. The first such difference.
fn lacks(record: &Record, found: &Published) -> Option<String> {
    let me = record.attachment.hash();
    for entry in record.entries() {
        let held = found.elements.get(&entry.key());
        let held = held.filter(|held| held.owners.contains(&me));
        let is_first = held.is_some_and(|held| held.owners.first() == Some(&me));
        match (&entry, held) {
            (Entry::Port { at, to }, Some(held)) if is_first && !held.leads_to(*to) => {
                return Some(format!("host port {at} does not lead to {to}"));
            }
            (_, Some(_)) => {}
            (Entry::Port { at, .. }, None) => {
                return Some(format!("host port {at} is not published"));
            }
            (Entry::Hairpin { to, .. }, None) => {
                return Some(format!("{to} is not masqueraded for its neighbours"));
            }
            (Entry::Hidden { to, .. }, None) => {
                return Some(format!("packets to {to} do not get the host's address"));
            }
        }
    }
    let mut owners = found.conditions.owners();
    if owners.any(|owner| !Attachment::is_hash(owner)) {
        let what =
            "a rule that is not ours is in chain ports-conditions of nftables table inet crosshost";
        return Some(what.to_owned());
    }
    let mut wanted = found.conditions.clone();
    wanted.set(&me, &record.conditionals());
    let same = wanted.is_same_for(&me, &found.conditions);
    (!same).then(|| "its conditions are not in the table".to_owned())
}
