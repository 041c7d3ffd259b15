//! DEL: from the attachment alone, as often as anyone likes. First it is noted, which needs no store, no settings and no
//! network; then the store is told, now or by a later verb.

use cluster::{Cluster, Conflist};
use cni::{Call, Error};
use journal::Attachment;

use crate::{
    conf::{Conf, failed},
    desk::{Desk, give_back_locally, local, lock_attachment, unheard},
    ledger::{Ledger, is_of},
};

pub(crate) async fn del(call: &Call) -> Result<(), Error> {
    let attachment = Conf::attachment(call)?;
    let _alone = lock_attachment(&attachment)?;
    let ledger = give_back_locally(&attachment)?;
    // What fails from here on is made up for later: no reason to keep a container.
    if let Err(error) = tell_store(call, &attachment, ledger.as_ref()).await {
        cni::log(&format!("{attachment}: release postponed: {error}"));
        if ledger.is_none() {
            let noted = unheard().save(&attachment.hash(), &attachment);
            noted.map_err(|error| local(&error))?;
        }
    }
    Ok(())
}

/// Releases in the store what the ledger has as given back; without a ledger, what the store has of the attachment.
async fn tell_store(
    call: &Call,
    attachment: &Attachment,
    ledger: Option<&Ledger>,
) -> Result<(), Error> {
    let given_back = ledger.map(|ledger| {
        let of = ledger.of(attachment);
        ledger
            .unpublished()
            .into_iter()
            .filter(|(address, _)| of.contains(address))
            .collect::<Vec<_>>()
    });
    if given_back.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    let conflist: Conflist = call.conf.decode()?;
    let settings = conflist.settings(&call.variables()).map_err(failed)?;
    let store = settings.open_store().map_err(failed)?;
    let cluster = Cluster::new(&*store, settings.layout.clone());
    let desk = Desk::new(&cluster, &settings, &attachment.network)?;
    match given_back {
        Some(entries) => match desk.settle(entries).await?.into_iter().next() {
            Some(failure) => Err(failed(failure)),
            None => Ok(()),
        },
        // No ADD since the boot, or /run was lost.
        None => desk
            .release_unknown(|lease| is_of(lease, attachment))
            .await
            .map_err(failed),
    }
}
