//! The sweep of what containers left that are gone, for runtimes that never send DEL: what `crosshost gc` removes on this host.
//!
//! An orphan is swept when it was one in two looks: a runtime whose container ends usually sends DEL within a second, and should do
//! that work itself.

use std::time::Duration;

use overlay::state::host::Host;
use tokio::time::Instant;

use super::log::Log;
use crate::commands::gc::Orphan;

/// How often this host's containers are looked at: what one left is gone within two looks, less than a minute.
const LOOK: Duration = Duration::from_secs(20);

/// The orphans of the last look.
pub struct Orphans {
    seen: Vec<Orphan>,
    next: Instant,
}

impl Orphans {
    /// None yet.
    pub fn new() -> Self {
        Self {
            seen: Vec::new(),
            next: Instant::now() + LOOK,
        }
    }

    /// Whether a look is due.
    pub fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    /// Looks, and sweeps what was there in the last look, too. Returns whether that was anything.
    pub async fn sweep(&mut self, log: &mut Log) -> bool {
        self.next = Instant::now() + LOOK;
        match self.look().await {
            Ok(swept) => {
                log.right("containers that are gone");
                swept
            }
            Err(error) => {
                log.wrong("containers that are gone", &error.msg);
                false
            }
        }
    }

    async fn look(&mut self) -> Result<bool, plugin::Error> {
        let host = Host::open()?;
        // `crosshost doctor` tells of records that cannot be read or judged.
        let found = Orphan::all(&host, &drop).await?;
        let (swept, new): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|it| self.seen.contains(it));
        self.seen = new;
        let (mut any, mut failed) = (false, Ok(()));
        for orphan in swept {
            match orphan.take_down(&host).await {
                Ok(true) => {
                    let attachment = orphan.attachment();
                    Log::note(&format!("{attachment}: its container is gone, removed"));
                    any = true;
                }
                Ok(false) => {}
                Err(error) => {
                    failed = Err(error);
                    // It is tried again in the next look.
                    self.seen.push(orphan);
                }
            }
        }
        // What was removed before a failure has to be told to the store, too.
        if any {
            Ok(true)
        } else {
            failed.map(|()| false)
        }
    }
}
