//! DEL: from the attachment alone, as often as anyone likes, also with the store away.

use cluster::Cluster;
use cni::{Call, Error};

use crate::{
    conf::{Conf, failed},
    desk::Desk,
    ledger::is_of,
};

pub(crate) async fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = Conf::attachment(call)?;
    let store = conf.settings.open_store().map_err(failed)?;
    let cluster = Cluster::new(&*store, conf.settings.layout.clone());
    let desk = Desk::new(&cluster, &conf.settings, &attachment.network)?;

    let _alone = desk.lock_attachment(&attachment)?;
    let failures = match desk.ledger()? {
        Some(ledger) => desk.give_back(&ledger.of(&attachment)).await?,
        // No ADD since the boot, or /run was lost: the store may know a lease.
        None => desk
            .release_unknown(|lease| is_of(lease, &attachment))
            .await
            .err()
            .into_iter()
            .collect(),
    };
    // Noted in the ledger, these are made up for later: they are no reason to keep a container.
    for failure in failures {
        cni::log(&format!("{attachment}: release postponed: {failure}"));
    }
    Ok(())
}
