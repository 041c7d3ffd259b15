//! DEL: needs only the attachment, can be repeated, and works without namespace, network or store. It makes no request to the store
//! for the addresses: if Consul is unreachable, `ipam-kv` notes the release (`crates/ipam-kv/src/verbs/del.rs`), and a later verb or
//! sync tells the store (`crates/cluster/src/allocator/del.rs`).

use cni::{Call, Command, Delegate};
use plugin::{Error, readable};

use crate::{
    config, host_link,
    maintain::teardown,
    state::{attachment::Stage, host::Host},
};

pub(crate) async fn del(call: &Call) -> Result<(), Error> {
    let ipam = config::ipam(call)?;
    let attachment = plugin::attachment(call)?;
    let host = Host::open()?;
    let _alone = host.lock_for_removal(&attachment)?;
    // What is to be removed has names of its own: a record that cannot be read goes as well.
    let record = readable(&host.records, &attachment.hash())?;
    if record.as_ref().is_some_and(|it| it.stage == Stage::Making) {
        host.end_ipam(&attachment);
    }
    // The IPAM plugin works beside the kernel; it is asked also where nothing else is left.
    let ipam = Delegate::find(call, &ipam);
    let addresses = ipam.clone().map(|ipam| ipam.start(Command::Del));
    let links = teardown::links(&host, &attachment, record.as_ref(), call.netns.as_deref()).await;
    teardown::farewell(&host, call).await;
    let addresses = addresses.and_then(cni::Running::finish);
    links.and(addresses.map_err(Error::from))?;
    let access = config::host_access(call);
    host_link::release(&host, &attachment.network, access, &ipam?).await?;
    teardown::forget(&host, &attachment)
}
