//! `crosshost gc`: the sweep of this host by hand, for runtimes that call neither DEL nor GC. It takes away what belongs to
//! containers that are gone, on all networks, as their DEL would have done.
//!
//! Of an address that `ipam-kv` gave under another interface plugin nothing here tells whether its container lives: it stays.

use journal::Attachment;
use overlay::{host::Host, orphans};

use crate::{
    command::{Result, Session},
    sync,
    table::Bad,
};

/// What a DEL of the other plugins of the chain would have taken away.
async fn release(attachment: &Attachment) -> std::result::Result<(), cni::Error> {
    portmap::forget(attachment)?;
    ipam_kv::forget(attachment).await
}

/// Sweeps, or lists what it would sweep.
pub async fn sweep(session: &Session, dry: bool) -> Result<String> {
    if !dry {
        sync::admitted()?;
    }
    let failed = |error: cni::Error| error.to_string();
    let host = Host::open().map_err(failed)?;
    let (mut said, mut failures) = (Vec::new(), false);
    for record in orphans::all(&host, &|why| cni::log(&why))
        .await
        .map_err(failed)?
    {
        let done = if dry {
            Ok(true)
        } else {
            orphans::take_down(&host, &record, release).await
        };
        let (attachment, netns) = (&record.attachment, record.netns.display());
        let line = match done {
            Ok(true) => format!("{attachment}: {netns} is gone"),
            Ok(false) => continue,
            Err(error) => {
                failures = true;
                format!("{attachment}: failed: {error}")
            }
        };
        said.push(format!("{}\n", cni::line(line)));
    }
    // The store hears of it, now or with the next sync.
    if !dry && !said.is_empty() {
        let late = sync::once(session, false).await;
        if let Some(late) = late.map_or_else(|error| Some(error.to_string()), |done| done.late()) {
            cni::log(&format!("the store was not told yet: {late}"));
        }
    }
    let said = said.concat();
    if failures {
        return Err(Bad(said).into());
    }
    Ok(said)
}
