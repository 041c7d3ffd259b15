//! The host's nftables table, and the rules of other programs that stop our packets.

pub mod desired;
pub mod foreign_rules;
pub mod table;
