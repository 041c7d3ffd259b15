//! GC: what this node holds of this network and nobody lists is given back. Other nodes' leases are never touched.

use cluster::{Cluster, Lease};
use cni::{Call, ContainerId, Error, IfName};

use crate::{
    conf::{Conf, failed},
    desk::Desk,
};

pub(crate) async fn gc(call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let store = conf.settings.open_store().map_err(failed)?;
    let cluster = Cluster::new(&*store, conf.settings.layout.clone());
    let desk = Desk::new(&cluster, &conf.settings, &conf.spec.name)?;

    let listed = |lease: &Lease| {
        valid.iter().any(|(container, ifname)| {
            container.as_str() == lease.container && ifname.as_str() == lease.ifname
        })
    };
    let mut failures = Vec::new();
    if let Some(ledger) = desk.ledger()? {
        let doomed = ledger.matching(|entry| !listed(&entry.lease));
        failures = desk.give_back(&doomed).await?;
    }
    failures.extend(desk.release_unknown(|lease| !listed(lease)).await.err());
    let Some(first) = failures.first() else {
        return Ok(());
    };
    let all: Vec<_> = failures.iter().map(ToString::to_string).collect();
    Err(Error::new(first.code(), all.join("; ")))
}
