//! GC: what this node holds of this network and nobody lists is given back, but for what a command has connected. Other nodes' leases
//! are never touched.

use cluster::LeaseOwner;
use cni::{Call, ContainerId, IfName};
use plugin::{Error, code_of};

use crate::{config::Conf, context::Context};

pub(crate) async fn gc(call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let context = Context::new(conf.settings.clone())?;
    let open = context.open();
    let allocator = open.allocator(&conf.spec.name);
    let connected = plugin::connected::on(&conf.spec.name)?;
    let listed = |owner: &LeaseOwner| {
        valid.iter().chain(&connected).any(|(container, ifname)| {
            container.as_str() == owner.container && ifname.as_str() == owner.ifname
        })
    };
    let mut failures = allocator.gc(&listed).await?;
    failures.extend(allocator.housekeeping().await.err());
    let Some(first) = failures.first() else {
        return Ok(());
    };
    let all: Vec<_> = failures.iter().map(ToString::to_string).collect();
    Err(Error::new(code_of(first), all.join("; ")))
}
