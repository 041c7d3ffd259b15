//! GC: what this node holds of this network and nobody lists is given back. Other nodes' leases are never touched.

use cluster::Holder;
use cni::{Call, ContainerId, IfName};
use plugin::Error;

use crate::{config::Conf, context::Desk};

pub(crate) async fn gc(call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let desk = Desk::new(conf.settings.clone())?;
    let open = desk.open();
    let allocator = open.allocator(&conf.spec.name);
    let listed = |holder: &Holder| {
        valid.iter().any(|(container, ifname)| {
            container.as_str() == holder.container && ifname.as_str() == holder.ifname
        })
    };
    let mut failures = allocator.gc(&listed).await?;
    failures.extend(allocator.tend().await.err());
    let Some(first) = failures.first() else {
        return Ok(());
    };
    let all: Vec<_> = failures.iter().map(ToString::to_string).collect();
    Err(Error::new(first.code(), all.join("; ")))
}
