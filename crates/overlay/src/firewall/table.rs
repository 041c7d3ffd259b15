//! What this host's one nftables table should have. Applies it, and compares it with the kernel.
//!
//! The table serves the whole host. Its users come and go independently: networks whose tunnels are guarded, and subnets that are
//! masqueraded. A document lists what all of them need. A verb that changes the document applies it under the same lock. It also
//! notes the kernel's count of ruleset changes at which the table was last seen whole; while the count stays the same, a verb need
//! not look at the table. The table is removed with its last user.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use cluster::NetworkSnapshot;
use ipnetwork::IpNetwork;
use journal::Found;
use nft::Nft;
use plugin::{Error, readable};

use super::desired::{Described, FORM, Seen, Table};
use crate::{
    follow::follower,
    names::{EGRESS_BRIDGE, SEGMENT_LINKS},
    segment::sandbox::{self, Sandbox},
    state::host::Host,
};

/// The document's name, and its lock's.
const NAME: &str = "table";

const CONFIG: nft::Config<'_> = nft::Config {
    egress_bridge: EGRESS_BRIDGE,
    segment_links: SEGMENT_LINKS,
};

/// The first of this owner's subnets that is not masqueraded. Changes nothing.
pub fn exposed(
    host: &Host,
    owner: &str,
    subnets: BTreeSet<IpNetwork>,
) -> Result<Option<IpNetwork>, Error> {
    let _lock = host.lock(NAME)?;
    let mut nft = Nft::open()?;
    let masqueraded = nft.egress()?;
    let is_masqueraded = |subnet: &IpNetwork| masqueraded.contains(&(*subnet, owner.to_owned()));
    Ok(subnets.into_iter().find(|subnet| !is_masqueraded(subnet)))
}

/// Lets only the nodes of this snapshot send to the tunnels of this host, whose node is `node`, and with the network's VNI only those
/// that have addresses of the network; whether the table was different.
pub fn guard(
    host: &Host,
    (network, node): (&str, &str),
    sandbox: &Sandbox,
    snapshot: &NetworkSnapshot,
) -> Result<bool, Error> {
    let _lock = host.lock(NAME)?;
    let document = Document::load(host)?;
    let others = if document.is_lost {
        others(host, (network, node), sandbox.end.ip())?
    } else {
        Vec::new()
    };
    let guarded = apply(host, document, |table| {
        for (other, described) in others {
            table.guard(&other, described);
        }
        let end = (sandbox.end, sandbox.any_source_port);
        table.guard(network, Described::new(end, node, snapshot));
    });
    guarded.map(|(_, changed)| changed)
}

/// The tunnels of all networks but one on this host, whose tunnels end at `vtep`, by their snapshots.
fn others(
    host: &Host,
    (network, node): (&str, &str),
    vtep: IpAddr,
) -> Result<Vec<(String, Described)>, Error> {
    let mut others = Vec::new();
    for other in sandbox::networks()?.into_iter().filter(|it| it != network) {
        let Some(snapshot) = follower::copy(host, &other)? else {
            continue;
        };
        let port = snapshot
            .network
            .as_ref()
            .and_then(|it| it.record.vxlan_port);
        let end = SocketAddr::new(vtep, port.unwrap_or(cluster::VXLAN_PORT));
        // From any port, until a verb of that network says otherwise.
        let described = Described::new((end, true), node, &snapshot);
        others.push((other, described));
    }
    Ok(others)
}

/// Masquerades these subnets, and no others of this owner; whether the table was different.
pub fn masquerade(host: &Host, owner: &str, subnets: BTreeSet<IpNetwork>) -> Result<bool, Error> {
    let add = |table: &mut Table| drop(table.hidden.insert(owner.to_owned(), subnets));
    change(host, add).map(|(_, changed)| changed)
}

/// Masquerades nothing of this owner any more. Drop the returned socket last: closing it blocks until the kernel has freed what was
/// removed.
pub fn stop_masquerading(host: &Host, owner: &str) -> Result<Nft, Error> {
    let removed = change(host, |table| drop(table.hidden.remove(owner)));
    removed.map(|(nft, _)| nft)
}

/// Stops guarding the network's tunnel, which is gone. Drop the returned socket last, as that of [`stop_masquerading`].
pub fn forget_tunnel(host: &Host, network: &str) -> Result<Nft, Error> {
    let forgotten = change(host, |table| {
        table.forget_tunnel(network);
    });
    forgotten.map(|(nft, _)| nft)
}

/// Notes the networks that a conflist lets this one meet; whether the table was different.
pub fn meet(host: &Host, network: &str, reaches: &BTreeSet<String>) -> Result<bool, Error> {
    let met = change(host, |table| table.meet(network, reaches));
    met.map(|(_, changed)| changed)
}

/// The networks that this one may meet on this host.
pub fn reaches(host: &Host, network: &str) -> Result<BTreeSet<String>, Error> {
    Ok(document(host)?.unwrap_or_default().reaches(network))
}

/// Makes the table as the document says; whether something was wrong.
pub fn repair(host: &Host) -> Result<bool, Error> {
    let _lock = host.lock(NAME)?;
    let document = Document::load(host)?;
    if document.table.is_none() {
        let mut nft = Nft::open()?;
        // A version up to 1.0.0 removes the chains that it knows, and leaves the others.
        let is_remnant = !document.is_lost
            && nft.status(&CONFIG)? == nft::Status::Damaged
            && nft.egress()?.is_empty();
        return Ok(is_remnant && nft.remove_table(&CONFIG)?);
    }
    apply(host, document, |_| ()).map(|(_, changed)| changed)
}

/// How the table differs from the document, if it does. Changes nothing.
pub fn deviation(host: &Host) -> Result<Option<String>, Error> {
    let _lock = host.lock(NAME)?;
    let Some(table) = document(host)? else {
        return Ok(None);
    };
    let seen = Nft::open().and_then(|mut nft| look(&table, &mut nft))?;
    Ok(table.deviation(&seen))
}

/// The document. One that cannot be read counts as absent: [`guard`] finds out what uses the table.
fn document(host: &Host) -> Result<Option<Table>, Error> {
    readable(&host.firewall, NAME)
}

/// The document as it was loaded, under its lock.
struct Document {
    table: Option<Table>,
    /// Whether there is one that cannot be read.
    is_lost: bool,
}

impl Document {
    fn load(host: &Host) -> Result<Self, Error> {
        let (table, is_lost) = match host.firewall.load(NAME)? {
            Found::Readable(table) => (Some(table), false),
            Found::Absent => (None, false),
            // Names it on standard error.
            Found::Unreadable(_) => (document(host)?, true),
        };
        Ok(Self { table, is_lost })
    }
}

/// Changes the document and applies it; whether the kernel had something else. Returns the open socket.
fn change(host: &Host, change: impl FnOnce(&mut Table)) -> Result<(Nft, bool), Error> {
    let _lock = host.lock(NAME)?;
    apply(host, Document::load(host)?, change)
}

/// The same for a caller that holds the lock and has loaded the document.
fn apply(
    host: &Host,
    document: Document,
    change: impl FnOnce(&mut Table),
) -> Result<(Nft, bool), Error> {
    let before = document.table;
    let mut after = before.clone().unwrap_or_default();
    let mut nft = Nft::open()?;
    if document.is_lost {
        // What is masqueraded stays so until its owner says otherwise.
        for (subnet, owner) in nft.egress()? {
            after.hidden.entry(owner).or_default().insert(subnet);
        }
    }
    change(&mut after);
    if after.is_unused() {
        let removed = nft.remove_table(&CONFIG)?;
        host.firewall.remove(NAME)?;
        return Ok((nft, removed));
    }
    let count = nft.generation()?;
    if before.as_ref() == Some(&after) && after.rules == Some(count) && after.form == FORM {
        return Ok((nft, false));
    }
    let save = |table: &Table| host.firewall.save(NAME, table).map_err(Error::from);
    if before.as_ref() != Some(&after) {
        after.rules = None;
        save(&after)?;
    }
    // Others may change their own rules meanwhile: that is no damage to ours.
    let was_whole =
        before.as_ref() == Some(&after) && after.deviation(&look(&after, &mut nft)?).is_none();
    if !was_whole {
        install(&after, &mut nft)?;
    }
    // Unchanged all the while, so whole at this count. Else the next verb looks again.
    let unchanged = nft.generation()? == count;
    after.rules = unchanged.then_some(count);
    after.form = FORM;
    save(&after)?;
    Ok((nft, !was_whole && !unchanged))
}

/// Makes the kernel's table this one.
fn install(table: &Table, nft: &mut Nft) -> Result<(), nft::Error> {
    nft.ensure_permitting(&CONFIG, &table.permitted())?;
    let wanted = table.masqueraded();
    for (subnet, owner) in nft.egress()? {
        if !wanted.contains(&(subnet, owner.clone())) {
            nft.remove_egress_of(subnet, &owner)?;
        }
    }
    for (subnet, owner) in wanted {
        nft.add_egress(subnet, &owner)?;
    }
    Ok(())
}

/// What the kernel has of it.
fn look(table: &Table, nft: &mut Nft) -> Result<Seen, nft::Error> {
    Ok(Seen {
        is_complete: nft.status(&CONFIG)? == nft::Status::Complete,
        masqueraded: nft.egress()?.into_iter().collect(),
        permits: nft.permits(&table.permitted())?,
    })
}
