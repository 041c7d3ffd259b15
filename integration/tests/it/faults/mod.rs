//! What goes wrong on a host: kills, full disks, bad input, lost state, calls that race.

mod bad_input;
mod churn;
mod concurrent_runtimes;
mod disk_full;
mod gc_beside_adds;
mod killed_anywhere;
mod killed_at_each_call;
mod late_add;
mod reboot;
mod removal_without_settings;
mod repairs;
pub(crate) mod unchanged;
mod unreadable;
