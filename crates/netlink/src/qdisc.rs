//! Queueing disciplines: a token bucket ([tc-tbf(8)]) for what a link sends, and a redirection for what it receives.
//!
//! The kernel can shape only what a link sends. So packets that a link receives are redirected to an ifb device (intermediate
//! functional block), which sends them through a bucket and back to the link as if just received. The redirection is a u32
//! filter that matches everything, with the action `mirred`, on the link's `ingress` discipline. If the ifb is gone or down,
//! the link receives nothing: removing a limit must remove the filter, too.
//!
//! Our buckets have a handle of their own, so that other programs' disciplines are left alone.
//!
//! [tc-tbf(8)]: https://man7.org/linux/man-pages/man8/tc-tbf.8.html

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rustix::io::Errno;

use crate::attribute::{find, put};
use crate::error::Refusal;
use crate::message::Message;
use crate::traffic::Traffic;
use crate::{Error, Rtnl};

/// The number of our buckets; tc shows it as `c055:`.
const HANDLE: u32 = 0xc055_0000;
/// `TC_H_ROOT`: for packets that a link sends.
const ROOT: u32 = 0xffff_ffff;
/// `TC_H_INGRESS`: for packets that it receives; and the only handle that an ingress discipline can have.
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// Priority 1 of a filter of all protocols (`ETH_P_ALL`, in network order).
const FIRST_OF_ALL: u32 = 1 << 16 | (0x0003_u16.to_be() as u32);

/// Attributes of a token bucket (uapi `linux/pkt_sched.h`): `struct tc_tbf_qopt`, a rate beyond 32 bits, the burst in bytes.
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: the kernel needs no table of rates.
const ETHERNET: u8 = 1;
/// Nanoseconds in a tick of the kernel (`PSCHED_SHIFT`).
const TICK: u64 = 64;

/// Attributes of a u32 filter and of its action (uapi `linux/pkt_cls.h`, `linux/tc_act/tc_mirred.h`).
const U32_SELECTOR: u16 = 5;
const U32_ACTIONS: u16 = 7;
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
/// `TC_U32_TERMINAL`.
const TERMINAL: u8 = 1;
/// `TC_ACT_STOLEN`: the packet is the action's.
const STOLEN: u32 = 4;
/// `TCA_EGRESS_REDIR`: the device sends the packet.
const REDIRECT: u32 = 1;

/// A token bucket: packets above the rate wait, and are dropped if too many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes a second, including Ethernet headers; not 0.
    pub rate: u64,
    /// Bytes that may pass at once after a pause; a larger packet never passes.
    pub burst: u32,
    /// Bytes that may wait.
    pub limit: u32,
}

/// A token bucket as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shaped {
    /// Whether it has our handle.
    pub ours: bool,
    rate: u64,
    /// The time to fill the burst, in ticks; the kernel shows the lower 32 bits.
    ticks: u32,
    limit: u32,
}

impl Bucket {
    /// Whether the kernel shows this bucket.
    pub fn is(&self, shown: &Shaped) -> bool {
        let nanoseconds = u128::from(self.burst) * 1_000_000_000 / u128::from(self.rate.max(1));
        let ticks = nanoseconds / u128::from(TICK);
        // The kernel calculates with a factor of at least 31 bits.
        let slack = u32::try_from((ticks >> 24) + 2).unwrap_or(u32::MAX);
        #[allow(clippy::cast_possible_truncation, reason = "so does the kernel")]
        let off = shown.ticks.wrapping_sub(ticks as u32);
        let off = off.min(off.wrapping_neg());
        (shown.rate, shown.limit) == (self.rate, self.limit) && off <= slack
    }

    /// `struct tc_tbf_qopt` and the attributes beside it.
    fn options(&self) -> Vec<u8> {
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX);
        let mut parms = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
        parms.extend(rate.to_ne_bytes());
        // No peak rate; the burst and the largest packet in ticks are not used.
        parms.extend([0; 12]);
        parms.extend(self.limit.to_ne_bytes());
        parms.extend([0; 8]);
        let mut options = Vec::new();
        put(&mut options, TBF_PARMS, &parms);
        put(&mut options, TBF_RATE64, &self.rate.to_ne_bytes());
        put(&mut options, TBF_BURST, &self.burst.to_ne_bytes());
        options
    }
}

impl Shaped {
    fn decode(discipline: &Traffic) -> Option<Self> {
        let options = discipline.options()?;
        let parms = find(options, TBF_PARMS)?;
        let word = |at: usize| {
            let bytes = parms.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        let wide = find(options, TBF_RATE64).and_then(|it| it.try_into().ok());
        Some(Self {
            ours: discipline.handle == HANDLE,
            rate: wide.map_or(u64::from(word(8)?), u64::from_ne_bytes),
            limit: word(24)?,
            ticks: word(28)?,
        })
    }
}

impl Rtnl {
    /// The token buckets of all links of the namespace, by link index.
    pub async fn buckets(&self) -> Result<BTreeMap<u32, Shaped>, Error> {
        let bucket = |message| match message {
            Message::Qdisc(it) if it.parent == ROOT && it.kind() == Some("tbf") => {
                Some((it.link, Shaped::decode(&it)?))
            }
            _ => None,
        };
        let found = self.dump(Message::GetQdisc(Traffic::default()), bucket);
        found
            .await
            .map_err(|refusal| refusal.on("list of queueing disciplines"))
    }

    /// Gives the link this bucket in place of any other discipline. Packets that wait in ours stay.
    pub async fn set_bucket(&self, link: u32, bucket: &Bucket) -> Result<(), Error> {
        let wanted = root(link).of_kind("tbf", Some(&bucket.options()));
        let set = self.request(Message::NewQdisc(wanted), NLM_F_CREATE | NLM_F_REPLACE);
        let what = format_args!("token bucket of link {link}: {bucket:?}");
        set.await.map_err(|refusal| refusal.on(what))
    }

    /// Removes our bucket; false if there is none.
    pub async fn remove_bucket(&self, link: u32) -> Result<bool, Error> {
        let removed = self.request(Message::DelQdisc(root(link)), 0).await;
        was_there(removed).map_err(|refusal| refusal.on(format_args!("bucket of link {link}")))
    }

    /// The index of the device to which the link's received packets are redirected, if they are: 0 if that device is gone.
    pub async fn redirection(&self, link: u32) -> Result<Option<u32>, Error> {
        let target = |message| match message {
            Message::Filter(it) if it.info == FIRST_OF_ALL => target(&it),
            _ => None,
        };
        let mut filter = filter(link);
        filter.info = 0;
        let found = self.dump(Message::GetFilter(filter), target);
        let found: Vec<u32> = found
            .await
            .map_err(|refusal| refusal.on(format_args!("filters of link {link}")))?;
        Ok(found.first().copied())
    }

    /// Redirects all packets that the link receives to the device `to`.
    pub async fn redirect(&self, link: u32, to: u32) -> Result<(), Error> {
        let what = format_args!("redirection of what link {link} receives to link {to}");
        let mut told = self.hand_over(link, to).await;
        if told.as_ref().is_err_and(|refusal| refusal.is(Errno::INVAL)) {
            // The link may have a discipline of another kind, such as `clsact`. It is removed whatever its kind.
            let other = Traffic {
                link,
                handle: INGRESS_HANDLE,
                parent: INGRESS,
                ..Traffic::default()
            };
            let removed = self.request(Message::DelQdisc(other), 0).await;
            told = match was_there(removed) {
                Ok(true) => self.hand_over(link, to).await,
                Ok(false) => told,
                Err(refusal) => Err(refusal),
            };
        }
        told.map_err(|refusal| refusal.on(what))
    }

    async fn hand_over(&self, link: u32, to: u32) -> Result<(), Refusal> {
        let requests = vec![
            (Message::NewQdisc(ingress(link)), NLM_F_CREATE),
            (Message::DelFilter(filter(link)), 0),
            (
                Message::NewFilter(filter(link).of_kind("u32", Some(&everything_to(to)))),
                NLM_F_CREATE,
            ),
        ];
        let [made, cleared, filtered] = self
            .request_all(requests)
            .await?
            .try_into()
            .map_err(|_| Refusal::new(Errno::BADMSG, "not as many answers as requests"))?;
        made?;
        was_there(cleared)?;
        filtered
    }

    /// Removes the redirection; false if there is none.
    pub async fn remove_redirection(&self, link: u32) -> Result<bool, Error> {
        let removed = self.request(Message::DelQdisc(ingress(link)), 0).await;
        let what = format_args!("ingress discipline of link {link}");
        was_there(removed).map_err(|refusal| refusal.on(what))
    }
}

/// Whether something was removed. The kernel's error for a missing discipline, or one with another handle, is ENOENT or
/// EINVAL.
fn was_there(removed: Result<(), Refusal>) -> Result<bool, Refusal> {
    match removed {
        Ok(()) => Ok(true),
        Err(refusal) if refusal.is(Errno::NOENT) || refusal.is(Errno::INVAL) => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

fn root(link: u32) -> Traffic {
    Traffic {
        link,
        handle: HANDLE,
        parent: ROOT,
        ..Traffic::default()
    }
}

fn ingress(link: u32) -> Traffic {
    let discipline = Traffic {
        link,
        handle: INGRESS_HANDLE,
        parent: INGRESS,
        ..Traffic::default()
    };
    discipline.of_kind("ingress", None)
}

fn filter(link: u32) -> Traffic {
    Traffic {
        link,
        parent: INGRESS_HANDLE,
        info: FIRST_OF_ALL,
        ..Traffic::default()
    }
}

/// The attributes of a u32 filter that redirects all packets to the device.
fn everything_to(device: u32) -> Vec<u8> {
    // `struct tc_u32_sel` with one key that matches everything.
    let mut selector = vec![0; 32];
    (selector[0], selector[2]) = (TERMINAL, 1);
    let parms = [0, 0, STOLEN, 0, 0, REDIRECT, device];
    let parms: Vec<u8> = parms.into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut mirred = Vec::new();
    put(&mut mirred, MIRRED_PARMS, &parms);
    let mut action = Vec::new();
    put(&mut action, ACTION_KIND, b"mirred\0");
    put(&mut action, ACTION_OPTIONS, &mirred);
    let mut actions = Vec::new();
    put(&mut actions, 1, &action);
    let mut options = Vec::new();
    put(&mut options, U32_SELECTOR, &selector);
    put(&mut options, U32_ACTIONS, &actions);
    options
}

/// The device to which a filter's first action redirects, if it does.
fn target(filter: &Traffic) -> Option<u32> {
    let actions = find(filter.options()?, U32_ACTIONS)?;
    let action = find(actions, 1)?;
    if find(action, ACTION_KIND)? != b"mirred\0" {
        return None;
    }
    let parms = find(find(action, ACTION_OPTIONS)?, MIRRED_PARMS)?;
    let words: Vec<u32> = parms
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_ne_bytes(*word))
        .collect();
    match words[..] {
        [_, _, STOLEN, _, _, REDIRECT, device] => Some(device),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rate: u64, ticks: u32, limit: u32) -> Shaped {
        Shaped {
            ours: true,
            rate,
            ticks,
            limit,
        }
    }

    #[test]
    fn a_bucket_is_known_again_by_what_the_kernel_shows() {
        let bucket = Bucket {
            rate: 1_000_000,
            burst: 100_000,
            limit: 200_000,
        };
        // 100 ms are 1,562,500 ticks of 64 ns.
        assert!(bucket.is(&shown(1_000_000, 1_562_499, 200_000)));
        assert!(!bucket.is(&shown(1_000_000, 1_600_000, 200_000)));
        assert!(!bucket.is(&shown(1_000_001, 1_562_500, 200_000)));
        assert!(!bucket.is(&shown(1_000_000, 1_562_500, 200_001)));
    }

    #[test]
    fn a_burst_of_more_ticks_than_32_bits_is_known_by_the_lower_ones() {
        let bucket = Bucket {
            rate: 1000,
            burst: 1_000_000,
            limit: 1,
        };
        let ticks = 1_000_000_000_000_u64 / TICK;
        #[allow(clippy::cast_possible_truncation, reason = "the test's point")]
        let lower = ticks as u32;
        assert!(bucket.is(&shown(1000, lower, 1)));
        assert!(!bucket.is(&shown(1000, lower.wrapping_add(1 << 20), 1)));
    }

    #[test]
    fn a_rate_beyond_32_bits_is_written_whole() {
        let bucket = Bucket {
            rate: 5_000_000_000,
            burst: 1,
            limit: 2,
        };
        let options = bucket.options();
        let wide = find(&options, TBF_RATE64).unwrap();
        assert_eq!(wide, 5_000_000_000_u64.to_ne_bytes());
        let parms = find(&options, TBF_PARMS).unwrap();
        assert_eq!((parms.len(), &parms[8..12]), (36, &[0xff; 4][..]));
        let discipline = root(3).of_kind("tbf", Some(&options));
        let read = Shaped::decode(&discipline).unwrap();
        assert_eq!((read.ours, read.rate, read.limit), (true, 5_000_000_000, 2));
    }

    #[test]
    fn a_filters_target_is_read_as_it_was_written() {
        let written = filter(3).of_kind("u32", Some(&everything_to(9)));
        assert_eq!(target(&written), Some(9));
        assert_eq!(target(&filter(3)), None);
        for at in 0..written.attributes.len() {
            let mut broken = written.clone();
            broken.attributes[at] ^= 0xff;
            let _ = target(&broken);
            broken.attributes.truncate(at);
            let _ = target(&broken);
        }
    }
}
