//! The evaluator against the real kernel, and rules that the real `nft` and `iptables` made, each test in network namespaces of
//! its own. Needs root.

mod eval;
mod kit;
