//! What makes the cases of `host_local_oracle.rs`, and the rules by which an answer of ours may differ.

pub(crate) mod case;
mod random;
pub(crate) mod rules;
pub(crate) mod subnet;
