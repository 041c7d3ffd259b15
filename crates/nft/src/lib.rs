//! The one nftables table of ours, `inet crosshost`, spoken to over nfnetlink.
//!
//! Setting an element costs some microseconds here and two milliseconds through the `nft` program, which also may be
//! missing, built without JSON, or older than what wrote the rules. So the product never runs `nft`; the tests do, as the
//! oracle: `skeleton.nft` is the human form of the table, and the kernel must not be able to tell the two apart.

use ipnetwork::IpNetwork;

/// What the rules depend on. All processes of a host must agree on it: each `ensure` turns the rules to its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config<'a> {
    /// The host's NAT bridge. Traffic that leaves through it stays among containers and keeps its source address.
    pub egress_bridge: &'a str,
}

/// How the kernel's table compares with what [`Nft::ensure`] would make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is no table `inet crosshost`.
    Missing,
    /// The table is there, but a set, a chain or a rule is missing, strange, or too much.
    Damaged,
    /// All there.
    Complete,
}

/// Why the kernel's table is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("{what}: {text}")]
    Refused {
        /// The object and what was tried.
        what: String,
        /// Positive errno.
        errno: i32,
        /// The kernel's ext-ack sentence and the errno's name.
        text: String,
    },
}

/// An nfnetlink socket, in the network namespace in which the calling thread was at [`Nft::open`].
#[derive(Debug)]
pub struct Nft {}

impl Nft {
    /// Opens the socket. Nothing is asked of the kernel yet.
    pub fn open() -> Result<Self, Error> {
        todo!()
    }

    /// Makes the table complete, whatever it was before; elements of sets stay. Safe against other processes doing the same.
    pub fn ensure(&mut self, config: &Config<'_>) -> Result<(), Error> {
        let _ = config;
        todo!()
    }

    /// Compares without touching.
    pub fn status(&mut self, config: &Config<'_>) -> Result<Status, Error> {
        let _ = config;
        todo!()
    }

    /// Masquerades what comes from `network` (host bits are ignored) and leaves otherwise than by the egress bridge.
    /// `owner` is shown by `nft` as the element's comment. Idempotent: the first owner stays. The table must be there.
    pub fn add_egress(&mut self, network: IpNetwork, owner: &str) -> Result<(), Error> {
        let _ = (network, owner);
        todo!()
    }

    /// Undoes [`Nft::add_egress`] whoever the owner is; true if there was something to undo. No table is nothing to undo.
    pub fn remove_egress(&mut self, network: IpNetwork) -> Result<bool, Error> {
        let _ = network;
        todo!()
    }

    /// Undoes [`Nft::add_egress`] only if `owner` holds the network: compare and delete, without a gap between the two.
    pub fn remove_egress_of(&mut self, network: IpNetwork, owner: &str) -> Result<bool, Error> {
        let _ = (network, owner);
        todo!()
    }

    /// All masqueraded networks with their owners, IPv4 first, ascending. Empty if the table is missing.
    pub fn egress(&mut self) -> Result<Vec<(IpNetwork, String)>, Error> {
        todo!()
    }

    /// Removes the whole table; true if there was one.
    pub fn remove_table(&mut self) -> Result<bool, Error> {
        todo!()
    }
}
