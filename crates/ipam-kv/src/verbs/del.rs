//! DEL: needs only the attachment, and can be repeated. First it is noted, which needs no store and no settings; then
//! the store is told, now or by a later verb.

use cluster::{Conflist, DataDir, LocalStore as _, Noted, Resolved};
use cni::Call;
use journal::{Attachment, Lock};
use plugin::Error;

use crate::{
    config::Conf,
    context::{Context, owner},
    local_store::FsLocalStore,
};

pub(crate) async fn del(call: &Call) -> Result<(), Error> {
    let attachment = plugin::attachment(call)?;
    let conflist = Conf::conflist(call);
    // The addresses were noted there when they were given out, whatever the settings are now.
    let data_dir = (conflist.as_ref()).map_or_else(|_| DataDir::default(), Conflist::data_dir);
    let files = FsLocalStore::new(&data_dir);
    let settings = conflist.and_then(|conf| conf.settings(&call.variables()).map_err(Error::from));

    let _alone = note_gone(&files, &attachment).await?;
    // A later verb repeats what fails from here on, so it does not keep a container.
    let told = match settings {
        Ok(settings) => tell_store(settings, &attachment).await,
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        cni::log(&format!("{attachment}: release postponed: {error}"));
    }
    Ok(())
}

/// Notes that an attachment of this host is gone, for a caller that has no configuration of it, after its interface is gone. The next
/// [`sync`](crate::sync()) gives back its addresses.
pub async fn forget(attachment: &Attachment) -> Result<(), Error> {
    for files in FsLocalStore::all()? {
        let held = files.lease(&attachment.network, &owner(attachment));
        if held? != Noted::Nothing {
            note_gone(&files, attachment).await?;
        }
    }
    Ok(())
}

async fn note_gone(files: &FsLocalStore, attachment: &Attachment) -> Result<Lock, Error> {
    let alone = files.lock_attachment(attachment)?;
    cluster::note_gone(files, &attachment.network, &owner(attachment)).await?;
    Ok(alone)
}

async fn tell_store(settings: Resolved, attachment: &Attachment) -> Result<(), Error> {
    let context = Context::new(settings)?;
    let open = context.open();
    let allocator = open.allocator(&attachment.network);
    allocator.release(&owner(attachment)).await?;
    allocator.housekeeping().await.map_err(Error::from)
}
