//! Repair: what `crosshost sync` does for published ports, since a program that flushes the ruleset takes them along; and what
//! `crosshost doctor` says of them.

use cni::Error;
use nft::{
    Blocked, Status,
    ports::{Places, Ports, Published},
};

use crate::{
    claim,
    desk::{self, Desk},
    kernel, local, target, way,
};

/// Brings the table to what the records of this host say; whether it was not so. Nothing is asked of the kernel where nothing is
/// published.
pub async fn repair() -> Result<bool, Error> {
    if desk::records().is_empty().map_err(|error| local(&error))? {
        return Ok(false);
    }
    let here = target::local().await?;
    let mut ports = Ports::open().map_err(|error| kernel(&error))?;
    let desk = Desk::open()?;
    desk.mend(&mut ports, &here)
}

/// How many ports are published, and whether the table has them all. Touches nothing.
pub fn examine() -> Result<(usize, bool), Error> {
    let records = desk::records().all().map_err(|error| local(&error))?;
    if records.is_empty() {
        return Ok((0, true));
    }
    let _alone = Desk::open()?;
    let mut ports = Ports::open().map_err(|error| kernel(&error))?;
    let complete = ports.status().map_err(|error| kernel(&error))? == Status::Complete;
    let found = ports.look(&Places::All).map_err(|error| kernel(&error))?;
    let wanted: Published = claim::all(&found, &records);
    let runs = records.iter().flat_map(|record| &record.runs);
    let count = runs.map(|run| usize::from(run.count)).sum();
    Ok((count, complete && wanted == found))
}

/// What rules of others let nothing through to published ports, or may not.
pub fn obstacles() -> Result<Vec<Blocked>, Error> {
    let records = desk::records().all().map_err(|error| local(&error))?;
    way::blocked(&records)
}
