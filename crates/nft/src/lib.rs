//! Our nftables tables over nfnetlink: `inet crosshost` on a host, and the small `bridge crosshost` of a sandbox
//! ([`MacRewrite`]).
//!
//! Setting an element takes some microseconds here and two milliseconds through the `nft` program, which may also be missing,
//! built without JSON, or older than the program that wrote the rules. So the product never runs `nft`. The tests use it as
//! the oracle: `skeleton.nft` is the human form of the table, and nft must print both alike.
//!
//! Any number of processes change the table at once without a lock. A change that depends on what was read (a repair, the
//! removal of an element by its owner) carries the generation id that was read before; if another program was faster, the
//! kernel refuses it, and it is read and decided again. The id counts every commit in the network namespace, also those of
//! kube-proxy or firewalld. So a retry waits for a random time, and there is a limit. Other programs' tables are only read,
//! for the crate `ruleset` ([`Nft::read`]).

mod answer;
mod channel;
mod element;
mod error;
pub mod expr;
mod family;
pub mod guard;
mod mac_rewrite;
mod nonmembers;
pub mod ports;
mod release;
mod repair;
mod rules;
mod segments;
mod skeleton;
#[cfg(test)]
mod tests;
mod tunnel;
mod tuple;
mod typeof_key;

use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink_packet_netfilter::nftables::NfTablesMessage;

use channel::Change;
pub use channel::{Answer, Channel};
use element::Interval;
pub use element::elements;
pub use error::{Error, Reason};
use expr::IFNAME_BYTES;
use family::{IPV4, IPV6};
pub use mac_rewrite::{MacRewrite, Macs};
pub use nonmembers::Nonmember;
use repair::Comparison;
pub use rules::TUNNEL_SOURCE_PORTS;
pub use segments::Segment;
pub use skeleton::TABLE;
use skeleton::{Skeleton, on_table, table};
pub use tunnel::Permitted;

/// Longest time for all retries of a call. One read and change takes some 100 us, so this is thousands of tries.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often rules are read again that changed meanwhile.
const LOOKS: u32 = 10;
/// Longest wait before a retry.
const LONGEST_PAUSE: Duration = Duration::from_millis(4);

/// What the rules depend on. All processes of a host must use the same values, as each `ensure` turns the rules to its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config<'a> {
    /// The host's NAT bridge. Traffic that leaves through it stays among containers and keeps its source address.
    pub egress_bridge: &'a str,
    /// How the names begin of the host's links to segments: of those by which it is the gateway, and of others. Only what may be is
    /// forwarded to these and the bridge.
    pub segment_links: [&'a str; 2],
}

impl Config<'_> {
    fn skeleton(&self) -> Result<Skeleton, Error> {
        let unfit = |why| Error::Unfit {
            what: "egress bridge",
            name: self.egress_bridge.to_owned(),
            why,
        };
        match self.egress_bridge.len() {
            0 => Err(unfit("empty")),
            IFNAME_BYTES.. => Err(unfit("longer than 15 bytes")),
            _ => Ok(Skeleton::new(self.egress_bridge, &self.segment_links)),
        }
    }
}

/// How the kernel's table compares with what [`Nft::ensure`] would make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is no table `inet crosshost`.
    Missing,
    /// The table is there, but a set, a chain or a rule is missing, wrong or superfluous.
    Damaged,
    /// All there.
    Complete,
}

/// An nfnetlink socket, in the network namespace in which the calling thread was at [`Nft::open`].
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
}

impl Nft {
    /// Opens the socket. Nothing is asked of the kernel yet.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            channel: Channel::open()?,
        })
    }

    /// Makes the table complete, whatever it was before. Elements stay, except in a set that has to be made again because its
    /// type was wrong. Safe against other processes that do the same.
    pub fn ensure(&mut self, config: &Config<'_>) -> Result<(), Error> {
        self.make(&config.skeleton()?, &[]).map(drop)
    }

    /// The same, and lets pass what is permitted ([`Nft::permit`]) in the same step: a table that is made anew refuses nothing that
    /// may pass.
    pub fn ensure_permitting(
        &mut self,
        config: &Config<'_>,
        permitted: &Permitted,
    ) -> Result<(), Error> {
        let keys = tunnel::of(permitted);
        self.make(&config.skeleton()?, &keys).map(drop)
    }

    /// The number of commits to rules of this namespace. While it stays the same, so does everything that was read.
    pub fn generation(&mut self) -> Result<u32, Error> {
        self.channel.generation().map(|generation| generation.0)
    }

    /// Compares the table with what it should be. Changes nothing.
    pub fn status(&mut self, config: &Config<'_>) -> Result<Status, Error> {
        self.compare(&config.skeleton()?)
    }

    /// Masquerades packets from `network` (host bits are ignored) that leave by another interface than the egress bridge.
    /// `nft` shows `owner` as the element's comment: at most 127 bytes, no quotes. Idempotent: the first owner stays. An
    /// error if the table is missing, or if `network` overlaps another one.
    pub fn add_egress(&mut self, network: IpNetwork, owner: &str) -> Result<(), Error> {
        let wanted = Interval::of(network);
        let addition = || wanted.addition(owner);
        self.decide(|channel| {
            let there = Interval::all(channel, wanted.family())?;
            match there.iter().find(|(other, _)| other.overlaps(&wanted)) {
                None => Ok((vec![addition()?], ())),
                Some((other, _)) if *other == wanted => Ok((vec![], ())),
                Some((other, owner)) => Err(Error::Overlap {
                    what: wanted.deed("add"),
                    other: other.to_string(),
                    owner: owner.clone(),
                }),
            }
        })
    }

    /// Undoes [`Nft::add_egress`], whatever the owner; true if there was something to undo. A missing table is no error.
    pub fn remove_egress(&mut self, network: IpNetwork) -> Result<bool, Error> {
        self.remove(network, |_| true)
    }

    /// Undoes [`Nft::add_egress`] only if `owner` holds the network, atomically.
    pub fn remove_egress_of(&mut self, network: IpNetwork, owner: &str) -> Result<bool, Error> {
        self.remove(network, |holder| holder == owner)
    }

    fn remove(&mut self, network: IpNetwork, may: impl Fn(&str) -> bool) -> Result<bool, Error> {
        let unwanted = Interval::of(network);
        self.decide(|channel| {
            let there = Interval::all(channel, unwanted.family())?;
            let ours = there
                .iter()
                .any(|(other, owner)| *other == unwanted && may(owner));
            let removal = ours.then(|| unwanted.removal());
            Ok((removal.into_iter().collect(), ours))
        })
    }

    /// All masqueraded networks with their owners, IPv4 first, ascending. Empty if the table is missing. A range that was
    /// added by hand and is no network is left out.
    pub fn egress(&mut self) -> Result<Vec<(IpNetwork, String)>, Error> {
        let intervals = self.decide(|channel| {
            let mut intervals = Interval::all(channel, &IPV4)?;
            intervals.extend(Interval::all(channel, &IPV6)?);
            Ok((vec![], intervals))
        })?;
        let networks = intervals.into_iter();
        Ok(networks
            .filter_map(|(interval, owner)| Some((interval.network()?, owner)))
            .collect())
    }

    /// Lets only these hosts send to our tunnels, without connection tracking, and drops all other packets to these; lets no
    /// program of this host, and nothing that it forwards, send to the tunnels of others; forwards to containers what may be
    /// forwarded to them. The sets become exactly these, atomically. An error if the table is missing and there is something to let
    /// pass.
    pub fn permit(&mut self, permitted: &Permitted) -> Result<(), Error> {
        let wanted = tunnel::of(permitted);
        self.decide(|channel| Ok((tunnel::changes(&wanted, channel)?, ())))
    }

    /// Whether the sets are exactly these. Changes nothing.
    pub fn permits(&mut self, permitted: &Permitted) -> Result<bool, Error> {
        let wanted = tunnel::of(permitted);
        self.decide(|channel| {
            let changes = tunnel::changes(&wanted, channel)?;
            Ok((vec![], changes.is_empty()))
        })
    }

    /// What `look` reads of any tables of this namespace, as of one moment. If other programs change rules faster than they
    /// can be read, it is what one attempt read.
    pub fn read<T>(
        &mut self,
        mut look: impl FnMut(&mut Channel) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for _ in 0..LOOKS {
            let (generation, found) =
                self.patiently(|channel| Ok((channel.generation()?, look(channel)?)))?;
            if self.channel.generation()? == generation {
                return Ok(found);
            }
        }
        self.patiently(look)
    }

    /// Removes what [`Nft::ensure`] makes, and the table if it is empty then; true if there was something.
    pub fn remove_table(&mut self, config: &Config<'_>) -> Result<bool, Error> {
        self.remove_part(&config.skeleton()?)
    }

    /// Makes a part of the table complete, with these keys in its sets; returns whether it was incomplete.
    fn make(&mut self, part: &Skeleton, keys: &[tunnel::Keys]) -> Result<bool, Error> {
        let mut was_asleep = false;
        loop {
            let (changed, is_asleep) = self.decide(|channel| {
                let found = part.find(channel)?;
                let comparison = Comparison::new(part, &found);
                let mut repairs = comparison.repairs();
                let changed = !repairs.is_empty();
                if !comparison.is_asleep() {
                    for keys in keys {
                        let is_new = comparison.makes_set(keys.set());
                        repairs.extend(keys.changes(channel, is_new)?);
                    }
                }
                Ok((repairs, (changed, comparison.is_asleep())))
            })?;
            if !is_asleep {
                return Ok(changed || was_asleep);
            }
            was_asleep = true;
        }
    }

    /// Compares a part of the table. Changes nothing.
    fn compare(&mut self, part: &Skeleton) -> Result<Status, Error> {
        self.decide(|channel| {
            let found = part.find(channel)?;
            Ok((vec![], Comparison::new(part, &found).status()))
        })
    }

    /// The table goes with its last part, as published ports have chains and sets of their own in it.
    fn remove_part(&mut self, part: &Skeleton) -> Result<bool, Error> {
        self.decide(|channel| {
            let found = part.find(channel)?;
            let removals = if found.table.is_none() {
                vec![]
            } else if part.is_all_of_the_table(channel)? {
                vec![Change {
                    what: on_table("remove", part.table),
                    flags: 0,
                    message: NfTablesMessage::DeleteTable(table(part.table, vec![])),
                }]
            } else {
                Comparison::new(part, &found).removals()
            };
            let there = !removals.is_empty();
            Ok((removals, there))
        })
    }

    /// Reads, decides on changes, and commits them if no rule has changed since; else starts again.
    fn decide<T>(
        &mut self,
        mut look: impl FnMut(&mut Channel) -> Result<(Vec<Change>, T), Error>,
    ) -> Result<T, Error> {
        self.patiently(|channel| {
            let generation = channel.generation()?;
            let (changes, verdict) = look(channel)?;
            channel.commit(generation, changes)?;
            Ok(verdict)
        })
    }

    /// Retries while other programs are faster. The pauses are random, and their limit doubles, so that two processes do not
    /// meet again.
    fn patiently<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Channel) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            match attempt(&mut self.channel) {
                Err(Error::Busy { .. }) if start.elapsed() < PATIENCE => {
                    // A fresh hasher is seeded at random: jitter without another dependency.
                    let dice = u32::try_from(RandomState::new().hash_one(()) % 1000).unwrap_or(0);
                    thread::sleep(pause * dice / 1000);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }
}
