//! The store with which the containers of this host were made. A host has one store, but a runtime and a shell can have
//! different settings, for example in their environment: then a command speaks to another store than the one that has the
//! addresses of the containers.

use std::collections::BTreeMap;

use cluster::{DataDir, LocalStore as _, Resolved, StoreRef};
use ipam_kv::{Pool, local_store::FsLocalStore};
use overlay::maintain::findings::{Check, Findings};

use crate::session::Result;

/// Where this host has containers, and the stores with which they were made.
fn in_use() -> Result<BTreeMap<Pool, StoreRef>> {
    let failed = |error: plugin::Error| error.to_string();
    let mut made_with = BTreeMap::new();
    for (network, store) in overlay::maintain::diagnose::stores_in_use().map_err(failed)? {
        let data_dir = DataDir::default();
        made_with.insert(Pool { data_dir, network }, store);
    }
    for files in FsLocalStore::all()? {
        for (network, store) in files.stores()? {
            let (data_dir, network) = (files.data_dir().clone(), network.record.name);
            made_with.insert(Pool { data_dir, network }, store);
        }
    }
    Ok(made_with)
}

/// The settings of a command where no setting names a store: those of the store with which this host's containers were made.
pub fn with_store_in_use(settings: Resolved) -> Result<Resolved> {
    let mut made_with = in_use()?.into_iter();
    match made_with.find(|(pool, _)| pool.data_dir.is_default()) {
        Some((pool, there)) if !there.has_same_name(&settings.store_ref()) => {
            let refused = || there.refuse(&pool.network, &settings.store_ref());
            Ok(settings.at(&there).ok_or_else(refused)?)
        }
        _ => Ok(settings),
    }
}

/// Compares the stores of the containers with the store of these settings.
pub fn examine(settings: &Resolved, findings: &mut Findings) -> Result<()> {
    for (pool, there) in in_use()? {
        let here = settings.within(&pool.data_dir)?.store_ref();
        if there.has_same_name(&here) {
            continue;
        }
        let says = format!(
            "network {pool}: its containers here were made with the store {there}, this command uses {here}: \
             the runtime and this shell have different settings; set store.url in {}, which both read",
            cluster::CONFIG_FILE,
        );
        findings.wrong(Check::StoreOfContainers, says, "");
    }
    Ok(())
}
