//! ADD: finds the container's addresses, writes the record, publishes it, and answers; or undoes that.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
};

use cni::{Call, Previous, Tell, Version};
use journal::{Attachment, clock};
use nft::ports::{Ports, Scope};
use plugin::{Error, code, run};
use serde_json::{Value, json};

use crate::{
    config::Conf,
    conntrack,
    ingress::{self, Ingress},
    mapping::{HostIp, Mapping, ports},
    port_alloc::{self, PortAllocator},
    record::{Record, Run},
    route_localnet,
    stale::Life,
    table::PortTable,
    target::{self, Target},
};

pub(crate) fn add(call: &Call, tell: Tell<'_>) -> Result<(), Error> {
    let previous = previous(call)?;
    let conf = Conf::read(call)?;
    if conf.mappings.is_empty() {
        return Ok(tell(previous)?);
    }
    let attachment = plugin::attachment(call)?;
    let (_, ifname) = call.attachment()?;
    let (targets, local) = run(target::find(&previous.result, ifname))?;
    refuse_lacking_families(&conf.mappings, &targets)?;
    if call.conf.version < Version::V0_3_0 {
        refuse_unknown_ways(call.conf.version, &attachment, &targets)?;
    }

    let mut ports = Ports::open()?;
    let table = PortTable::open()?;
    cni::caller_listens()?;
    let (version, commit) = (cni::build::VERSION, cni::build::COMMIT);
    journal::layout::begin(Path::new(journal::ROOT), version, commit)?;
    // The table exists only while there are records. The first record is written before the table is made, so that a refusal
    // leaves no table.
    let mut is_first = table.is_empty()?;
    if !is_first {
        let was_made = ports.ensure()?;
        // A port is chosen by what the maps have, so they must be complete.
        let chooses = conf.mappings.iter().any(|it| it.port == 0);
        let scope = Scope::Keys(BTreeSet::new());
        let is_incomplete = chooses && !ports.read(&scope)?.is_complete;
        if was_made || is_incomplete {
            table.repair(&mut ports, &local)?;
        }
    }
    let mut earlier = table.record(&attachment)?;
    // Left by a killed DEL.
    if let Some(left) = earlier.take_if(|earlier| earlier.leaving) {
        table.withdraw(&mut ports, &left)?;
        is_first = table.is_empty()?;
    }
    let asked = earlier.as_ref().map(|it| reuse_ports(&conf.mappings, it));
    let asked = asked.as_ref().unwrap_or(&conf.mappings);
    let chosen = PortAllocator::new(&mut ports, &local).choose(asked)?;
    let mut record = record(attachment, &conf, &chosen, &targets);
    record.life = run(Life::of(call, &previous.result))?;
    warn(&record, &local);
    let listened = port_alloc::refuse_listened(&record, conf.listeners);
    // A program may hold the port for the container that has it; then the error names that container. And if this ADD is
    // refused, an earlier one of this attachment keeps its ports.
    if listened.is_err() || earlier.is_some() {
        table.refuse_conflicts(&mut ports, &record, &local)?;
    }
    listened?;

    table.save(&record)?;
    let begun = if is_first {
        table.note_completeness(&mut ports)
    } else {
        Ok(())
    };
    let done = begun
        .and_then(|()| table.publish(&mut ports, earlier.as_ref(), &record, &local))
        .and_then(|()| route_localnet::enable(&record))
        .and_then(|_| {
            if let Some(earlier) = &earlier {
                conntrack::forget_answered(earlier);
            }
            conntrack::forget_clients(std::slice::from_ref(&record), &local);
            if chosen == conf.mappings {
                Ok(tell(previous)?)
            } else {
                Ok(tell(
                    &previous.clone().with("portMappings", &report(&chosen)),
                )?)
            }
        });
    if let Err(error) = done {
        // The ports of an earlier ADD keep working.
        let undone = match &earlier {
            Some(earlier) => table.restore(&mut ports, earlier, &record, &local),
            None => table.withdraw(&mut ports, &record),
        };
        if let Err(undo) = undone {
            cni::log(&format!("{}: undo: {undo}", record.attachment));
        }
        return Err(error);
    }
    Ok(())
}

/// The previous plugin's result. Code 7 if there is none.
pub(crate) fn previous(call: &Call) -> Result<&Previous, Error> {
    call.conf.prev_result.as_ref().ok_or_else(|| {
        Error::config("prevResult: missing: portmap must be called as a chained plugin, behind one that makes an interface")
    })
}

/// The mappings, with the ports that an earlier ADD of the attachment chose as far as no other mapping asks for them: these
/// ports may have been announced.
fn reuse_ports(mappings: &[Mapping], earlier: &Record) -> Vec<Mapping> {
    let mut kept = mappings.to_vec();
    for index in 0..kept.len() {
        let mapping = &kept[index];
        let is_for = |run: &&Run| {
            let v6 = run.to.is_ipv6();
            let same = (run.protocol, run.to.port(), run.count)
                == (mapping.protocol, mapping.container_port, mapping.count);
            same && mapping.is_of(v6) && mapping.at(v6).address == run.address
        };
        let is_asked = |run: &&Run| {
            let mut others = kept.iter().filter(|it| it.protocol == run.protocol);
            others.any(|it| it.port != 0 && ports(it.port, it.count).contains(&run.port))
        };
        let mut runs = earlier.runs.iter().filter(is_for);
        if mapping.port == 0
            && let Some(run) = runs.find(|run| !is_asked(run))
        {
            kept[index].port = run.port;
        }
    }
    kept
}

/// A port for one version of IP needs a container address of that version.
pub(crate) fn refuse_lacking_families(
    mappings: &[Mapping],
    targets: &[Option<Target>; 2],
) -> Result<(), Error> {
    for mapping in mappings {
        let met = [false, true].map(|v6| mapping.is_of(v6) && targets[usize::from(v6)].is_some());
        if !met.contains(&true) {
            let version = match mapping.host {
                HostIp::Any => "IP",
                _ if mapping.is_of(true) => "IPv6",
                _ => "IPv4",
            };
            return Err(Error::new(
                code::FAMILY,
                format!("port {mapping}: the container has no {version} address"),
            ));
        }
    }
    Ok(())
}

/// Before 0.3.0 a result has one address for each version of IP and no interfaces. For a container of `overlay` that is its
/// address on the segment, which the host cannot reach: packets sent there by way of a gateway reach whatever host has that
/// address beyond it. Code 7.
fn refuse_unknown_ways(
    version: Version,
    attachment: &Attachment,
    targets: &[Option<Target>; 2],
) -> Result<(), Error> {
    let is_of_overlay = || !ingress::is_absent_from_overlay(attachment);
    for target in targets.iter().flatten() {
        let Target { address, via, .. } = target;
        let is_elsewhere = match target.gateway {
            Some(_) => true,
            None => !ingress::is_ours(via) && is_of_overlay(),
        };
        if is_elsewhere {
            return Err(Error::config(format!(
                "cniVersion: {version}: results of it do not say at which address this host reaches the container, and {address}, \
                 by {via}, is not it; want 0.3.0 or later"
            )));
        }
    }
    Ok(())
}

/// The record to publish, once the ports are chosen.
pub(crate) fn record(
    attachment: Attachment,
    conf: &Conf,
    mappings: &[Mapping],
    targets: &[Option<Target>; 2],
) -> Record {
    let mut runs = Vec::new();
    for mapping in mappings {
        for target in targets.iter().flatten() {
            if mapping.is_of(target.address.is_ipv6()) {
                runs.push(Run {
                    protocol: mapping.protocol,
                    address: mapping.at(target.address.is_ipv6()).address,
                    port: mapping.port,
                    to: SocketAddr::new(target.address, mapping.container_port),
                    count: mapping.count,
                    via: target.via.clone(),
                });
            }
        }
    }
    Record {
        attachment,
        since: clock::moment(),
        leaving: false,
        runs,
        hairpin: conf.snat,
        hidden: conf.masq_all,
        conditions: conf.words.clone(),
        life: None,
    }
}

/// Warns of what does not stop an ADD, but explains why no packets come in.
fn warn(record: &Record, local: &[IpAddr]) {
    for address in record.runs.iter().filter_map(|run| run.address) {
        let why = if address == IpAddr::V6(Ipv6Addr::LOCALHOST) {
            "leads to no container: Linux sends nothing from it out of the host"
        } else if !is_local(address, local) {
            "is not an address of this host yet: nothing comes to it"
        } else {
            continue;
        };
        cni::log(&format!("{}: hostIP: {address} {why}", record.attachment));
    }
    if ingress::may_not_forward(record)
        && let Ok(ingress) = run(Ingress::read())
    {
        for off in ingress.forwarding_off(record) {
            cni::log(&format!("{}: {}", record.attachment, off.why));
        }
    }
}

fn is_local(address: IpAddr, local: &[IpAddr]) -> bool {
    address.is_loopback() || local.contains(&address)
}

/// The chosen ports, in the form in which they were requested.
fn report(chosen: &[Mapping]) -> Value {
    let told = chosen.iter().map(|mapping| {
        let mut object = json!({
            "hostPort": mapping.port,
            "containerPort": mapping.container_port,
            "protocol": mapping.protocol.as_str(),
        });
        if mapping.count > 1 {
            let end = |first| *ports(first, mapping.count).end();
            object["hostPortEnd"] = json!(end(mapping.port));
            object["containerPortEnd"] = json!(end(mapping.container_port));
        }
        match mapping.host {
            HostIp::Any => {}
            HostIp::Every { v6: false } => object["hostIP"] = json!("0.0.0.0"),
            HostIp::Every { v6: true } => object["hostIP"] = json!("::"),
            HostIp::One(address) => object["hostIP"] = json!(address),
        }
        object
    });
    told.collect()
}
