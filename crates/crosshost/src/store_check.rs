//! The store with which the containers of this host were made. A host has one store, but a runtime and a shell can have
//! different settings, for example in their environment: then a command speaks to another store than the one that has the
//! addresses of the containers.

use std::collections::BTreeMap;

use cluster::{LocalStore as _, Resolved, StoreRef};
use ipam_kv::local_store::FsLocalStore;
use overlay::maintain::findings::{Check, Findings};

use crate::session::Result;

/// The networks with containers on this host, with their data directories and the stores with which they were made.
fn in_use() -> Result<BTreeMap<(String, Option<String>), StoreRef>> {
    let failed = |error: plugin::Error| error.to_string();
    let mut made_with = BTreeMap::new();
    for (network, store) in overlay::maintain::diagnose::places().map_err(failed)? {
        made_with.insert((network, None), store);
    }
    for (data_dir, files) in FsLocalStore::all()? {
        for (network, store) in files.stores()? {
            made_with.insert((network.record.name, data_dir.clone()), store);
        }
    }
    Ok(made_with)
}

/// The settings of a command where no setting names a store: those of the store with which this host's containers were made.
pub fn with_store_in_use(settings: Resolved) -> Result<Resolved> {
    let made_with = in_use()?.into_iter();
    let mut usual = made_with.filter(|((_, data_dir), _)| data_dir.is_none());
    match usual.next() {
        Some(((network, _), there)) if !there.is_called_as(&settings.store_ref()) => {
            let refused = || there.refuse(&network, &settings.store_ref());
            Ok(settings.at(&there).ok_or_else(refused)?)
        }
        _ => Ok(settings),
    }
}

/// Compares the stores of the containers with the store of these settings.
pub fn examine(settings: &Resolved, findings: &mut Findings) -> Result<()> {
    for ((network, data_dir), there) in in_use()? {
        let here = settings.clone().apart(data_dir.as_deref())?.store_ref();
        if there.is_called_as(&here) {
            continue;
        }
        let called = cluster::full_name(&network, data_dir.as_deref());
        let says = format!(
            "network {called}: its containers here were made with the store {there}, this command uses {here}: \
             the runtime and this shell have different settings; set store.url in {}, which both read",
            cluster::CONFIG_FILE,
        );
        findings.wrong(Check::StoreOfContainers, says, "");
    }
    Ok(())
}
