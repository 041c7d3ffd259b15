//! A bridge forwards to a new port only when the kernel has noticed that both ends of its cable are up, which it does by itself:
//! mostly within a millisecond, later on a busy machine. A container whose ADD is answered must be reached at once, so the
//! answer waits for that.

use std::time::{Duration, Instant};

use netlink::Rtnl;
use plugin::{Error, code};

use crate::vanished;

/// Far longer than a kernel needs, unless a spanning tree was switched on.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Waits until the port of that name forwards. Code 107 if it does not in time, or is gone.
pub(crate) async fn forwards(rtnl: &Rtnl, port: &str) -> Result<(), Error> {
    let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        let link = rtnl.link(port).await?;
        if link.ok_or_else(|| vanished(port))?.forwards {
            return Ok(());
        }
        if begun.elapsed() >= PATIENCE {
            let why = format!("{port}: its bridge does not forward to it after {PATIENCE:?}");
            return Err(Error::new(code::KERNEL, why));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
