//! Frames to one MAC that are to reach another: table `bridge crosshost`, in the namespace of a bridge.
//!
//! A host that has not yet heard of a MAC that was asked for sends to the one that follows from the address. The bridge
//! of the one who has it gives such frames their new address before it looks where they go. The table is that of few
//! rules, one for each such MAC, and is compared and replaced as a whole.

use std::collections::BTreeMap;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::InetHookNumber;

use crate::channel::Channel;
use crate::error::Error;
use crate::rules::readdress;
use crate::skeleton::{Chain, Skeleton};
use crate::{Nft, Status};

/// nft's `dstnat` of the bridge family.
const DSTNAT: i32 = -300;

/// What a frame is addressed to, and what it is to be addressed to instead.
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

    /// Translates these and no others from now on; no table, where there are none. Whether it was not so.
    pub fn set(&mut self, macs: &Macs) -> Result<bool, Error> {
        if macs.is_empty() {
            return self.0.remove_part(&skeleton(macs));
        }
        self.0.make(&skeleton(macs))
    }

    /// Whether these are translated, and no others. Touches nothing.
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
        sets: vec![],
        chains: vec![Chain::new(hook, rules.collect())],
    }
}
