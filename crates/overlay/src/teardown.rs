//! The one teardown, for DEL, GC, a failed ADD and a killed one: everything that an attachment can have, whether it
//! has it or not. Errors are collected; what can go goes.

use std::path::Path;

use cni::Error;
use journal::Attachment;
use netlink::{Netns, NetnsError, Rtnl};

use crate::{
    egress,
    host::Host,
    kernel, local,
    names::{self, EGRESS_NIC},
    record::Record,
    sandbox,
};

/// Removes the attachment's links, its part in sandbox and egress bridge, and these if it was their last user. The
/// caller holds the container's lock. `netns` is where the runtime says the container is, if it says so.
///
/// The record stays: the caller removes it when also the addresses are given back.
pub(crate) async fn links(
    host: &Host,
    attachment: &Attachment,
    record: Option<&Record>,
    netns: Option<&Path>,
) -> Result<(), Error> {
    let mut errors = Vec::new();
    let last = egress::ledger(host)?.is_none_or(|ledger| ledger.is_last(attachment));
    // From the container both pairs go in one batch, for one of the kernel's grace periods.
    match container(host, record, netns) {
        Ok(Some(container)) => errors.extend(inside(&container, attachment, last).await.err()),
        Ok(None) => {}
        Err(error) => errors.push(error),
    }
    // Where the container is gone, or was never reached, the host's ends are left.
    match sandbox::open(&attachment.network) {
        Ok(Some(rtnl)) => {
            let removed = rtnl.remove_link(&names::port(attachment)).await;
            errors.extend(removed.err().map(|error| kernel(&error)));
        }
        Ok(None) => {}
        Err(error) => errors.push(error),
    }
    errors.extend(egress::leave(host, attachment).await.err());
    errors.extend(
        sandbox::leave(host, &attachment.network, &attachment.hash())
            .await
            .err(),
    );
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// The container's namespace, if it is still the one in which the attachment was made and is not the host's own.
fn container(
    host: &Host,
    record: Option<&Record>,
    netns: Option<&Path>,
) -> Result<Option<Netns>, Error> {
    let Some(path) = netns.or(record.map(|record| record.netns.as_path())) else {
        return Ok(None);
    };
    match Netns::open(path) {
        Ok(netns) if netns.same_as(&host.netns) => Ok(None),
        Ok(netns) if record.is_some_and(|record| record.netns_id != netns.id()) => Ok(None),
        Ok(netns) => Ok(Some(netns)),
        Err(NetnsError::Gone { .. }) => Ok(None),
        Err(error) => Err(kernel(&error)),
    }
}

/// Removes our links in the container: all of them with its last attachment, else the attachment's. Our group marks
/// what is ours; a link of the same name that somebody else made stays.
async fn inside(container: &Netns, attachment: &Attachment, last: bool) -> Result<(), Error> {
    let rtnl = Rtnl::open(container).map_err(|error| kernel(&error))?;
    let group = names::group(attachment);
    let links = rtnl.links().await.map_err(|error| kernel(&error))?;
    let ours: Vec<_> = links.iter().filter(|link| link.group == group).collect();
    let mine = |name: &str| name == attachment.ifname || (last && name == EGRESS_NIC);
    let removed = if ours.iter().all(|link| mine(&link.name)) {
        rtnl.remove_group(group).await
    } else {
        match ours.iter().find(|link| link.name == attachment.ifname) {
            Some(link) => rtnl.remove_link(&link.name).await,
            None => Ok(false),
        }
    };
    removed.map(drop).map_err(|error| kernel(&error))
}

/// Removes the record, after everything that it spoke of.
pub(crate) fn forget(host: &Host, attachment: &Attachment) -> Result<(), Error> {
    host.records
        .remove(&attachment.hash())
        .map_err(|error| local(&error))
}
