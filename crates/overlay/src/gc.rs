//! GC: what this host has of this network and nobody lists is taken down; then the IPAM plugin does the same.

use cni::{Call, ContainerId, Delegate, Error, IfName};
use journal::Attachment;

use crate::{conf, host::Host, local, teardown};

pub(crate) async fn gc(call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
    let ipam = conf::ipam(call)?;
    let host = Host::open()?;
    let listed = |attachment: &Attachment| {
        let is = |(container, ifname): &(ContainerId, IfName)| {
            container.as_str() == attachment.container && ifname.as_str() == attachment.ifname
        };
        valid.iter().any(is)
    };
    let mut errors = Vec::new();
    for record in host.records.all().map_err(|error| local(&error))? {
        let attachment = &record.attachment;
        if attachment.network != call.conf.name.as_str() || listed(attachment) {
            continue;
        }
        let _alone = host.lock_container(attachment)?;
        match teardown::links(&host, attachment, Some(&record), None).await {
            Ok(()) => errors.extend(teardown::forget(&host, attachment).err()),
            Err(error) => errors.push(error),
        }
    }
    teardown::farewell(&host, call).await;
    errors.extend(Delegate::find(call, &ipam).and_then(|ipam| ipam.gc()).err());
    match errors.first() {
        None => Ok(()),
        Some(first) => {
            let all: Vec<_> = errors.iter().map(|error| error.msg.clone()).collect();
            Err(Error::new(first.code, all.join("; ")))
        }
    }
}
