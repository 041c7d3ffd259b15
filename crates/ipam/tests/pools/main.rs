//! What holds for any pool: against a count of every address of small pools, and on pools too large to count.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod codec;
mod free_block;
mod own_blocks;
mod sample;
