//! What the nftables and iptables rules of other programs do to our packets. For `crosshost doctor`: nothing is changed here,
//! and no plugin asks for it.
//!
//! In nftables a packet passes every base chain of a hook, and what one of them drops no other one can save. So a rule of
//! ours would not help, and all that can be done is to name the chain and the command that would let the packet pass.
//!
//! The kernel's answers are read as nft compiled them ([`tables`]), a rule is evaluated for a packet of which only some
//! things are known ([`eval`]), and what stops the packet is said in words with a remedy ([`remedy`]). Which packets are
//! ours is in [`traffic`] and [`ports`].

mod eval;
mod packet;
mod ports;
mod quote;
mod registers;
mod remedy;
mod sets;
mod tables;
#[cfg(test)]
mod tests;
mod traffic;
mod xtables;

pub use packet::Interface;
pub use ports::{PublishedPorts, published};
pub use quote::quoted;
pub use remedy::Obstacle;
pub use traffic::{egress, tunnel};
