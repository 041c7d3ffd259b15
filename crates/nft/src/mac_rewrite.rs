//! Rewrites the destination MAC of frames: table `bridge crosshost`, in a sandbox's namespace.
//!
//! A host that does not yet know of a requested MAC sends to the one that is computed from the address. The bridge on the
//! container's host rewrites such frames before it looks up their port. The table has one rule for each such MAC, and is
//! compared and replaced as a whole.

use std::collections::BTreeMap;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::InetHookNumber;

use crate::channel::Channel;
use crate::error::Error;
use crate::rules::readdress;
use crate::skeleton::{Chain, Skeleton, TABLE};
use crate::{Nft, Status};

/// nft's `dstnat` of the bridge family.
const DSTNAT: i32 = -300;

/// Destination MACs, and those that replace them.
pub type Macs = BTreeMap<[u8; 6], [u8; 6]>;

/// The table of the network namespace in which the calling thread was at [`MacRewrite::open`].
#[derive(Debug)]
pub struct MacRewrite(Nft);

impl MacRewrite {
    /// Opens the socket. Nothing is asked of the kernel yet.
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open_for(NetfilterProtoFamily::Bridge)?;
        Ok(Self(Nft { channel }))
    }

    /// Rewrites exactly these MACs; without any there is no table. Returns whether that was a change.
    pub fn set(&mut self, macs: &Macs) -> Result<bool, Error> {
        if macs.is_empty() {
            return self.0.remove_part(&skeleton(macs));
        }
        self.0.make(&skeleton(macs), &[])
    }

    /// Whether exactly these MACs are rewritten. Changes nothing.
    pub fn is(&mut self, macs: &Macs) -> Result<bool, Error> {
        let wanted = match macs.len() {
            0 => Status::Missing,
            _ => Status::Complete,
        };
        Ok(self.0.compare(&skeleton(macs))? == wanted)
    }
}

fn skeleton(macs: &Macs) -> Skeleton {
    let rules = macs.iter().map(|(from, to)| readdress(*from, *to));
    let hook = ("prerouting", "filter", InetHookNumber::PreRouting, DSTNAT);
    Skeleton {
        table: TABLE,
        sets: vec![],
        chains: vec![Chain::new(hook, rules.collect())],
    }
}
