//! Chooses an ADD's addresses from a ledger, one of each range set, or says what the ledger lacks. This file picks the range and
//! tries the twin; `crates/ipam/src/own_blocks.rs` chooses the address inside the host's blocks.

use std::net::IpAddr;

use ipam::{Choice, Range, RangeSet};

use super::{Allocator, Ledger, Request};
use crate::Error;

/// What has to be acquired before a choice is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// A free address in one of these ranges.
    Capacity(RangeSet),
    /// This very address.
    Address(IpAddr),
    /// The *twin* of the address already chosen: the one with the same host part in the other family ([`ipam::twin`]). Another one
    /// will do.
    Twin(IpAddr),
}

/// What was tried without success; the choice does not ask for it again.
#[derive(Default)]
pub(super) struct Tried {
    /// Acquiring more addresses in these ranges: only resting addresses are left.
    pub(super) sets: Vec<RangeSet>,
    /// Twins.
    pub(super) twins: Vec<IpAddr>,
    /// Publishing: the store is away, so on a network that reclaims only addresses of kept blocks may be chosen.
    pub(super) away: bool,
    /// Creating the network, which the store has lost.
    pub(super) created: bool,
    /// Reading the network's record again, because it does not have a requested address.
    pub(super) renewed: bool,
}

impl Allocator<'_> {
    /// Chooses one address of each range set, or says what has to be acquired first.
    pub(super) fn pick_all(
        &self,
        ledger: &Ledger,
        request: &Request<'_>,
        tried: &Tried,
    ) -> Result<Result<Vec<IpAddr>, Need>, Error> {
        let sets = &ledger.network.record.ranges;
        let asked = assigned(sets, request.requested)?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (set, asked) in sets.iter().zip(asked) {
            if let Some(address) = asked {
                if !ledger.is_ours(address, &self.host.node) {
                    return Ok(Err(Need::Address(address)));
                }
                if ledger.uses(address) {
                    // A local lease or the store tells which attachment holds it.
                    return Ok(Err(Need::Address(address)));
                }
                addresses.push(address);
                continue;
            }
            let first = addresses
                .first()
                .and_then(|a| Some((*a, ledger.network.record.range_of(*a)?)));
            match self.pick(ledger, &narrowed(set, request.narrow), first, tried) {
                Ok(address) => addresses.push(address),
                Err(need) => return Ok(Err(need)),
            }
        }
        Ok(Ok(addresses))
    }

    /// Chooses an address from one set.
    fn pick(
        &self,
        ledger: &Ledger,
        set: &[Range],
        first: Option<(IpAddr, &Range)>,
        tried: &Tried,
    ) -> Result<IpAddr, Need> {
        let (view, now) = (
            ledger.view(
                &self.host.node,
                tried.away && ledger.network.record.reclaim_after.is_some(),
            ),
            self.clock.uptime(),
        );
        let mut cooling = None;
        // In the order of the ranges: a later range is used only when those before it have no address left.
        for (at, range) in set.iter().enumerate() {
            let twin = first
                .filter(|(first, _)| first.is_ipv4() != range.subnet.is_ipv4())
                .and_then(|(first, from)| ipam::twin(first, from, range))
                .filter(|twin| range.offers(*twin));
            if let Some(twin) = twin {
                if view.is_free(range, twin, now, self.cool_down) {
                    return Ok(twin);
                }
                // As far as this host knows, its block has no owner, so it may be claimed. Only for the first range: with a
                // later range, the first may still have addresses.
                let unknown = at == 0 && !ledger.is_ours(twin, &self.host.node);
                if unknown && !tried.twins.contains(&twin) && !tried.away {
                    return Err(Need::Twin(twin));
                }
            }
            match view.choose(range, now, self.cool_down) {
                Choice::Ready(address) => return Ok(address),
                Choice::Cooling(address) => cooling = cooling.or(Some(address)),
                Choice::Full => {}
            }
        }
        match cooling {
            Some(address) if tried.sets.iter().any(|tried| tried == set) => Ok(address),
            _ => Err(Need::Capacity(set.to_vec())),
        }
    }
}

/// Which requested address goes to which set.
fn assigned(sets: &[RangeSet], requested: &[IpAddr]) -> Result<Vec<Option<IpAddr>>, Error> {
    let mut asked = vec![None; sets.len()];
    for address in requested {
        let bad = |why: String| Error::BadAddress {
            address: *address,
            why,
        };
        let serves = |set: &&RangeSet| set.iter().any(|range| range.may_hold(*address));
        let Some(n) = sets.iter().position(|set| serves(&set)) else {
            if let Some(why) = sets.iter().flatten().find_map(|range| range.bars(*address)) {
                return Err(bad(why));
            }
            let pools = sets
                .iter()
                .flatten()
                .map(|r| format!("{}-{} of {}", r.start(), r.end(), r.subnet));
            let pools: Vec<_> = pools.collect();
            return Err(bad(format!(
                "not an address that the network gives ({})",
                pools.join(", ")
            )));
        };
        if let Some(other) = asked[n].filter(|other| other != address) {
            return Err(bad(format!(
                "{other} is requested too, and a container gets only one of each set"
            )));
        }
        asked[n] = Some(*address);
    }
    Ok(asked)
}

/// The ranges of a set, or those to which a caller narrows it; gateway and exclusions are the set's own.
fn narrowed(set: &RangeSet, narrow: &[RangeSet]) -> RangeSet {
    let whole = |range: &Range| set.iter().find(|whole| range.within(whole));
    let inside = |narrow: &&RangeSet| narrow.iter().all(|range| whole(range).is_some());
    let Some(narrow) = narrow.iter().find(inside) else {
        return set.clone();
    };
    let within = |range: &Range| {
        let whole = whole(range)?;
        Some(Range {
            gateway: whole.gateway,
            exclude: whole.exclude.clone(),
            ..range.clone()
        })
    };
    narrow.iter().filter_map(within).collect()
}
