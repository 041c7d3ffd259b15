//! GC: removes the attachments to this network that the runtime does not list. Then the IPAM plugin does the same.
//!
//! What an ADD is just making is no garbage, though the runtime that lists knows nothing of it yet: another one may share
//! the network. An ADD holds its container's lock, notes what it will make, and then waits while a GC of the network is
//! at work ([`in_peace`]); so a GC either finds the lock held, and spares the attachment here and in the IPAM plugin, or
//! the ADD begins after it.

use cni::{BadName, Call, ContainerId, Delegate, IfName};
use journal::{Attachment, Found};
use plugin::{Error, all_readable};

use crate::{config, host_link, maintain::teardown, state::host::Host};

/// Waits until no GC of the network is at work. The caller has noted what it is about to make.
pub(crate) fn in_peace(host: &Host, network: &str) -> Result<(), Error> {
    host.lock(&name(network)).map(drop)
}

fn name(network: &str) -> String {
    format!("gc-{network}")
}

pub(crate) async fn gc(call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
    let ipam = config::ipam(call)?;
    let host = Host::open()?;
    let listed = |attachment: &Attachment| {
        let is = |(container, ifname): &(ContainerId, IfName)| {
            container.as_str() == attachment.container && ifname.as_str() == attachment.ifname
        };
        valid.iter().any(is)
    };
    let network = call.conf.name.as_str();
    let _peace = host.lock(&name(network))?;
    // No runtime lists these: they go with their containers, or by command.
    let (mut errors, mut at_work) = (Vec::new(), plugin::connected::on(network)?);
    for record in all_readable(&host.records)? {
        let attachment = &record.attachment;
        let spared = listed(attachment) || plugin::connected::has(attachment)?;
        if attachment.network != network || spared {
            continue;
        }
        let Some(_alone) = host.lock_idle_container(attachment)? else {
            at_work.push(key(attachment)?);
            continue;
        };
        let now = host.records.load(&attachment.hash());
        if now? != Found::Readable(record.clone()) {
            // Another verb was quicker, and deleted it or added it anew.
            at_work.push(key(attachment)?);
            continue;
        }
        match teardown::links(&host, attachment, Some(&record), None).await {
            Ok(()) => errors.extend(teardown::forget(&host, attachment).err()),
            Err(error) => errors.push(error),
        }
    }
    teardown::farewell(&host, call).await;
    // The host's own attachment is in no list; it goes by its document alone, with the last one of the others.
    let access = config::host_access(call);
    if access || host_link::may_be(&host, network)? {
        at_work.push(key(&host_link::attachment(network))?);
    }
    match Delegate::find(call, &ipam) {
        Ok(ipam) => {
            let released = host_link::release(&host, network, access, &ipam).await;
            errors.extend(released.err());
            errors.extend(ipam.gc(&at_work).err().map(Error::from));
        }
        Err(error) => errors.push(error.into()),
    }
    match errors.first() {
        None => Ok(()),
        Some(first) => {
            let all: Vec<_> = errors.iter().map(|error| error.msg.clone()).collect();
            Err(Error::new(first.code, all.join("; ")))
        }
    }
}

fn key(attachment: &Attachment) -> Result<(ContainerId, IfName), Error> {
    let odd = |error: BadName| Error::io(format!("journal of {attachment}: {error}"));
    let container = ContainerId::new(&attachment.container).map_err(odd)?;
    let ifname = IfName::new(&attachment.ifname).map_err(odd)?;
    Ok((container, ifname))
}
