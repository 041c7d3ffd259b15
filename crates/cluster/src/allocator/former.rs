//! Which addresses an attachment had last, so that a container that starts again gets them again, as long as nobody else needed them.
//!
//! The ledger remembers this when an address is freed. A digest stands for the attachment, because the ledger is read and written by
//! every verb; two attachments with one digest only prefer the same address. Others get such an address as late as any freed one, and
//! it does not rest for the attachment itself, because all hosts would send to the right container. The memory is a preference:
//! whatever loses it, such as an older version that rewrites the ledger, costs another address and nothing else.

use std::net::IpAddr;

use super::{LeaseOwner, Ledger};

/// The most addresses that are remembered.
const MOST: usize = 1024;

impl Ledger {
    /// Notes what `owner` had last.
    pub(super) fn remember(&mut self, owner: &LeaseOwner, addresses: &[IpAddr]) {
        let digest = digest(owner);
        self.former
            .retain(|(address, former)| former.as_str() != digest && !addresses.contains(address));
        let new = addresses.iter().map(|address| (*address, digest.clone()));
        self.former.extend(new);
        let excess = self.former.len().saturating_sub(MOST);
        self.former.drain(..excess);
    }

    /// What `owner` had last.
    pub(super) fn former(&self, owner: &LeaseOwner) -> impl Iterator<Item = IpAddr> {
        let digest = digest(owner);
        let is_its = move |(_, former): &&(IpAddr, String)| *former == digest;
        self.former
            .iter()
            .filter(is_its)
            .map(|(address, _)| *address)
    }
}

/// 16 hexadecimal digits (FNV-1a). Documents have them, so the hash must not change.
fn digest(owner: &LeaseOwner) -> String {
    let bytes = owner
        .container
        .bytes()
        .chain([0])
        .chain(owner.ifname.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Versioned;

    fn owner(number: usize) -> LeaseOwner {
        LeaseOwner {
            container: format!("c{number}"),
            ifname: "eth0".into(),
        }
    }

    fn ledger() -> Ledger {
        let network = serde_json::json!({ "name": "n", "ranges": [] });
        Ledger::new(Versioned {
            record: serde_json::from_value(network).unwrap(),
            revision: 1,
        })
    }

    fn at(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    #[test]
    fn the_last_one_counts_of_an_attachment_and_of_an_address() {
        let mut ledger = ledger();
        let had = |ledger: &Ledger, number| ledger.former(&owner(number)).collect::<Vec<_>>();
        ledger.remember(&owner(1), &[at(1), at(101)]);
        ledger.remember(&owner(2), &[at(2)]);
        assert_eq!(had(&ledger, 1), [at(1), at(101)]);
        ledger.remember(&owner(1), &[at(3)]);
        ledger.remember(&owner(3), &[at(2)]);
        assert_eq!(
            (had(&ledger, 1), had(&ledger, 3)),
            (vec![at(3)], vec![at(2)])
        );
        assert!(had(&ledger, 2).is_empty());
    }

    #[test]
    fn it_forgets_the_oldest() {
        let mut ledger = ledger();
        for number in 0..=1024 {
            ledger.remember(&owner(number), &[at(u32::try_from(number).unwrap())]);
        }
        assert_eq!(ledger.former.len(), MOST);
        assert_eq!(ledger.former(&owner(0)).next(), None);
        assert_eq!(ledger.former(&owner(1)).next(), Some(at(1)));
    }

    #[test]
    fn digests_stay_as_they_are() {
        assert_eq!(digest(&owner(1)), "f53f02b3bfe94942");
    }
}
