//! What is shipped: binaries, archive, installed files, and the README's walk-through.

mod archive;
mod binaries;
mod install;
mod readme;
