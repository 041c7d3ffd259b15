//! The evaluator against the real kernel, and rules that the real `nft` and `iptables` made, each test in network namespaces of
//! its own. Needs root.

mod eval;
#[path = "../../../nft/src/tests/kit.rs"]
#[expect(dead_code, reason = "nft's tests need more of it")]
mod kit;
