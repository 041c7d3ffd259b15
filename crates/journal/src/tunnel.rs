//! The tunnel address of this host in this boot, as the interface plugin found it. Every program that writes the host's node
//! record puts this address into it, so that other hosts never take it for a host without tunnels.

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

/// The address; `None` if this host has no tunnel yet, or the document cannot be read.
pub fn vtep() -> Option<IpAddr> {
    let found = documents().load_readable(NAME, &|_| ());
    found.ok().flatten().map(|tunnel| tunnel.vtep)
}

/// The document, if it cannot be read, for reports.
pub fn unreadable() -> Result<Vec<Unreadable>, Error> {
    Ok(documents().all()?.unreadable)
}

/// Saves the address for later verbs.
pub fn note(vtep: IpAddr) -> Result<(), Error> {
    if self::vtep() == Some(vtep) {
        return Ok(());
    }
    let _lock = documents().lock(NAME, std::time::Duration::from_secs(5))?;
    documents().save(NAME, &Tunnel { vtep })
}
