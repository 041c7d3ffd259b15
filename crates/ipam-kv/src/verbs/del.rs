//! DEL: from the attachment alone, as often as anyone likes. First it is noted, which needs no store and no settings; then
//! the store is told, now or by a later verb.

use cluster::{Conflist, Noted, Resolved, Shelf as _};
use cni::Call;
use journal::{Attachment, Lock};
use plugin::Error;

use crate::{
    config::Conf,
    context::{Desk, holder},
    local_store::Files,
};

pub(crate) async fn del(call: &Call) -> Result<(), Error> {
    let attachment = Conf::attachment(call)?;
    let conflist = Conf::conflist(call);
    // Where it was noted when it was given, whatever became of the settings since.
    let realm = conflist.as_ref().ok().and_then(Conflist::realm);
    let files = Files::new(realm.as_deref());
    let settings = conflist.and_then(|conf| conf.settings(&call.variables()).map_err(Error::from));

    let _alone = note_gone(&files, &attachment).await?;
    // What fails from here on is made up for later: no reason to keep a container.
    let told = match settings {
        Ok(settings) => tell_store(settings, &attachment).await,
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        cni::log(&format!("{attachment}: release postponed: {error}"));
    }
    Ok(())
}

/// Notes that an attachment of this host is gone, for who has no configuration of it, once nobody can use what it holds: the next
/// [`sync`](crate::sync()) gives that back.
pub async fn forget(attachment: &Attachment) -> Result<(), Error> {
    for (_, files) in Files::all()? {
        let held = files.holding(&attachment.network, &holder(attachment));
        if held? != Noted::Nothing {
            note_gone(&files, attachment).await?;
        }
    }
    Ok(())
}

async fn note_gone(files: &Files, attachment: &Attachment) -> Result<Lock, Error> {
    let alone = files.lock_attachment(attachment)?;
    cluster::note_gone(files, &attachment.network, &holder(attachment)).await?;
    Ok(alone)
}

async fn tell_store(settings: Resolved, attachment: &Attachment) -> Result<(), Error> {
    let desk = Desk::new(settings)?;
    let open = desk.open();
    let allocator = open.allocator(&attachment.network);
    allocator.release(&holder(attachment)).await?;
    allocator.tend().await.map_err(Error::from)
}
