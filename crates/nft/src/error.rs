//! Errors. Each names the object and the operation, because it reaches an operator who may never have heard of netlink. The
//! errno stays in it for callers that branch.

use std::fmt;
use std::io;

pub(crate) const ENOENT: i32 = 2;
const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const EOPNOTSUPP: i32 = 95;
/// nfnetlink's answer to a batch with a stale generation id. Not in errno(3), as no system call returns it.
pub(crate) const ERESTART: i32 = 85;

/// Why a table could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("{what}: {reason}")]
    Refused {
        /// The object and what was tried.
        what: String,
        /// The kernel's answer.
        reason: Reason,
    },
    /// The network shares addresses with another one in the set, which an interval set cannot hold.
    #[error("{what}: overlaps with {other} of {owner:?}")]
    Overlap {
        /// The network and what was tried.
        what: String,
        /// The one that is there.
        other: String,
        /// Its owner; empty if it was added by hand.
        owner: String,
    },
    /// Other programs changed the host's rules between each read and change, up to the limit of retries.
    #[error("{what}: other programs keep changing the rules of this host")]
    Busy {
        /// The object and what was tried.
        what: String,
    },
    /// The kernel was built without nftables for bridges.
    #[error(
        "{what}: this host's kernel has no nftables of family bridge (CONFIG_NF_TABLES_BRIDGE)"
    )]
    NoBridgeFamily {
        /// The table and what was tried.
        what: String,
    },
    /// The netlink socket itself failed.
    #[error("{what}: netfilter socket: {source}")]
    Socket {
        /// What was tried.
        what: String,
        /// The system call's error.
        source: io::Error,
    },
    /// The kernel's answer does not match what is known of nfnetlink.
    #[error("{what}: answer not understood: {why}")]
    Strange {
        /// What was tried.
        what: String,
        /// What was not understood.
        why: String,
    },
    /// A name that the kernel or `nft` could not hold.
    #[error("{what} {name:?}: {why}")]
    Unfit {
        /// What the name is for.
        what: &'static str,
        /// The name.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
}

impl Error {
    /// Whether the object that was to be changed has just been removed, as by a flush of all rules.
    pub fn is_gone(&self) -> bool {
        self.errno() == Some(ENOENT)
    }

    /// Whether another try may succeed: other programs change rules, or the kernel is at work on the object (EBUSY, EAGAIN,
    /// EINTR).
    pub fn is_busy(&self) -> bool {
        const BUSY: [i32; 3] = [EINTR, EAGAIN, EBUSY];
        match self {
            Self::Busy { .. } => true,
            Self::Socket { source, .. } => {
                source.raw_os_error().is_some_and(|it| BUSY.contains(&it))
            }
            _ => self.errno().is_some_and(|it| BUSY.contains(&it)),
        }
    }

    /// Positive errno if the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { reason, .. } => Some(reason.errno),
            _ => None,
        }
    }
}

/// The kernel's answer: its own sentence (ext-ack) if it had one, and the errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Positive.
    pub errno: i32,
    /// Of `NLMSGERR_ATTR_MSG`.
    pub text: Option<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            write!(f, "{text}: ")?;
        }
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))
    }
}
