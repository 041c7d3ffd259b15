//! The tree itself: layering, habits that no lint can check, and documents against the code. Needs no root and no binaries.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests: each stops where it broke"
)]

mod documents;
mod habits;
mod layering;
