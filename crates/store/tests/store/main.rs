//! Tests of all backends from outside: one suite that all of them pass, and what each must bear beyond it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "these are tests, also where clippy sees plain functions"
)]

mod access;
mod agent;
mod backends;
mod conformance;
mod dir_crash;
mod fake;
mod garbage;
mod lost_answers;
mod names;
mod tls;
