//! `crosshost sync --watch`: what it learns, what it repairs, what it costs.

mod adds;
mod one_broken_network;
mod orphans;
mod repairs;
mod resident;
mod store_connection;
