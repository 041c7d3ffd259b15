//! CHECK: the attachment holds exactly the addresses of its result. The ledger is enough; no store is asked.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use cni::{Call, Error};

use crate::{
    code,
    conf::Conf,
    desk::{ledgers, local},
    ledger::Stage,
};

pub(crate) fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = Conf::attachment(call)?;
    let previous = call
        .conf
        .prev_result
        .as_ref()
        .ok_or_else(|| Error::config("prevResult: missing; CHECK needs it"))?;
    let ledger = ledgers(Path::new(journal::ROOT))
        .load(&conf.spec.name)
        .map_err(|error| local(&error))?;
    let held: BTreeSet<IpAddr> = ledger
        .iter()
        .flat_map(|ledger| {
            ledger
                .of(&attachment)
                .into_iter()
                .filter(|a| matches!(ledger.leases[a].stage, Stage::Held(_)))
        })
        .collect();
    let deviation =
        |what: String| Err(Error::new(code::DEVIATION, format!("{attachment}: {what}")));
    if held.is_empty() {
        return deviation("holds no address".to_owned());
    }
    // Later plugins in the chain, and the interface plugin itself, may have added addresses; none of ours may lack.
    let listed: BTreeSet<IpAddr> = previous.ips.iter().map(|ip| ip.address.ip()).collect();
    match held.iter().find(|address| !listed.contains(address)) {
        Some(address) => deviation(format!("holds {address}, which its result does not list")),
        None => Ok(()),
    }
}
