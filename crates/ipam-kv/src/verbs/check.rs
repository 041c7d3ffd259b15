//! CHECK: the attachment holds exactly the addresses of its result, as far as they are of our pools, here and in the
//! store. With the store away, here.

use std::{collections::BTreeSet, net::IpAddr};

use cluster::{LocalLease, LocalStore, Noted, Stage, Stored};
use cni::Call;
use plugin::{Error, code};

use crate::{
    config::Conf,
    context::{Context, owner},
};

pub(crate) async fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = plugin::attachment(call)?;
    let previous = call.conf.prev_result.as_ref();
    let previous = previous.ok_or_else(|| Error::config("prevResult: missing; CHECK needs it"))?;
    let previous = &previous.result;
    let context = Context::new(conf.settings.clone())?;
    let deviation =
        |what: String| Err(Error::new(code::DEVIATION, format!("{attachment}: {what}")));

    let own = || context.files().lease(&conf.spec.name, &owner(&attachment));
    let mut local_lease = own()?;
    if local_lease == Noted::Nothing {
        // The host may have lost its documents while the container runs.
        let open = context.open();
        open.allocator(&conf.spec.name).ensure_ledger().await?;
        local_lease = own()?;
    }
    let local_lease = match local_lease {
        Noted::Nothing => None,
        Noted::Lease(local_lease) => Some(local_lease),
        // What it holds is its own, whatever that is.
        Noted::Unreadable(why) => {
            cni::log(&format!("{attachment}: {why}"));
            return Ok(());
        }
    };
    let Some(local_lease) =
        local_lease.filter(|h| h.stage == Stage::Given && !h.addresses.is_empty())
    else {
        return deviation("holds no address".to_owned());
    };
    let listed: BTreeSet<IpAddr> = previous.ips.iter().map(|ip| ip.address.ip()).collect();
    let held: BTreeSet<IpAddr> = local_lease
        .addresses
        .iter()
        .map(|held| held.address)
        .collect();
    if let Some(address) = held.difference(&listed).next() {
        return deviation(format!("holds {address}, which its result does not list"));
    }
    // Later plugins in the chain, and the interface plugin itself, may have added addresses; none of our pools.
    let pools = || conf.spec.ranges.iter().flatten();
    let ours = |address: &&IpAddr| pools().any(|range| range.subnet.contains(**address));
    if let Some(address) = listed.difference(&held).find(ours) {
        let why = "of the network's pools, which it does not hold";
        return deviation(format!("its result lists {address}, {why}"));
    }
    match in_the_store(&context, &conf.spec.name, &local_lease).await? {
        Some(what) => deviation(what),
        None => Ok(()),
    }
}

/// What the store says otherwise; nothing if it is away. Of an address that it has not been told of yet, only if another
/// node has it by now.
async fn in_the_store(
    context: &Context,
    network: &str,
    local_lease: &LocalLease,
) -> Result<Option<String>, Error> {
    let addresses: Vec<IpAddr> = local_lease
        .addresses
        .iter()
        .map(|held| held.address)
        .collect();
    let leases = match context
        .open()
        .cluster()
        .leases_on(network, &addresses)
        .await
    {
        Err(error) if error.is_away() => return Ok(None),
        leases => leases?,
    };
    Ok(local_lease.addresses.iter().find_map(|held| {
        let (address, told) = (held.address, held.revision.is_some());
        let lease = match leases.get(&address) {
            None => None,
            Some(Stored::Readable(lease)) => Some(&lease.record),
            Some(Stored::Unreadable(unreadable)) => {
                cni::log(&format!(
                    "lease of {address}: cannot be read: {}",
                    unreadable.why
                ));
                return None;
            }
        };
        match lease {
            None if told => Some(format!(
                "holds {address}, of which the store has no lease; run: crosshost sync"
            )),
            Some(other)
                if !other.same_owner(&local_lease.lease)
                    && (told || other.node != local_lease.lease.node) =>
            {
                let who = format!(
                    "{} of container {} on node {}",
                    other.ifname, other.container, other.node
                );
                Some(format!("holds {address}, which the store has for {who}"))
            }
            _ => None,
        }
    }))
}
