//! The tunnel address of this host in this boot, as the interface plugin found it. Every program that writes this host's node
//! record writes it with this address, so that no other host takes this one for a host without tunnels.

use std::{net::IpAddr, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Error, Journal, ROOT, Unreadable};

const NAME: &str = "tunnel";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tunnel {
    vtep: IpAddr,
}

fn documents() -> Journal<Tunnel> {
    Journal::new(Path::new(ROOT), NAME)
}

/// The address; `None` where this host has no tunnel yet, or its document cannot be read.
pub fn vtep() -> Option<IpAddr> {
    let found = documents().load_readable(NAME, &|_| ());
    found.ok().flatten().map(|tunnel| tunnel.vtep)
}

/// The documents of it that cannot be read, for reports.
pub fn unreadable() -> Result<Vec<Unreadable>, Error> {
    Ok(documents().all()?.unreadable)
}

/// Keeps the address for the programs that come later.
pub fn note(vtep: IpAddr) -> Result<(), Error> {
    if self::vtep() == Some(vtep) {
        return Ok(());
    }
    let _lock = documents().lock(NAME, std::time::Duration::from_secs(5))?;
    documents().save(NAME, &Tunnel { vtep })
}
