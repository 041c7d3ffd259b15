//! The store that has the addresses of this host's containers. A runtime and a shell may have different settings, for example by
//! their environment. Then a command would ask another store than the plugins do.

use std::collections::BTreeMap;

use cluster::{LocalStore as _, Resolved, StoreRef};
use ipam_kv::local_store::FsLocalStore;
use overlay::maintain::findings::{Check, Findings};

use crate::{conflists, session::Result};

/// Compares that store with the one of these settings.
pub fn examine(settings: &Resolved, findings: &mut Findings) -> Result<()> {
    let failed = |error: plugin::Error| error.to_string();
    let mut made_with: BTreeMap<(String, Option<String>), StoreRef> = BTreeMap::new();
    for (network, place) in overlay::maintain::diagnose::places().map_err(failed)? {
        made_with.insert((network, None), place);
    }
    for (realm, files) in FsLocalStore::all()? {
        for network in files.networks()? {
            let ledger = files.ledger(&network)?;
            if let Some(place) = ledger.and_then(|ledger| ledger.store_ref)
                && !files.leases(&network)?.is_nothing()
            {
                made_with.insert((network, realm.clone()), place);
            }
        }
    }
    let configured = conflists::stores();
    for ((network, realm), there) in made_with {
        let here = settings.clone().apart(realm.as_deref())?.store_ref();
        if there.is_called_as(&here)
            || configured.contains(&(network.clone(), there.store.url.clone()))
        {
            continue;
        }
        let called = cluster::full_name(&network, realm.as_deref());
        let says = format!(
            "network {called}: its containers here were made with the store {there}, this command uses {here}: \
             the runtime and this shell have different settings; set store.url in {}, which both read",
            cluster::CONFIG_FILE,
        );
        findings.wrong(Check::StoreOfContainers, says, "");
    }
    Ok(())
}
