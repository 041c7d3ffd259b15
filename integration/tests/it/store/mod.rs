//! The store: what is asked of it, and what happens while it is away, slow, wrong or put back.

mod access;
mod another_store;
mod away;
mod failing;
mod leader_killed;
mod outage;
mod removed_for_good;
mod requests;
mod restored;
