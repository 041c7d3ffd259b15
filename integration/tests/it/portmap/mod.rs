//! `portmap`: published ports, beside the reference plugins and the firewalls of others.

mod check;
mod clients;
mod firewalls;
mod flows;
mod killed;
mod listeners;
pub(crate) mod published;
mod reach;
mod reference_plugins;
pub(crate) mod requested_ports;
pub(crate) mod reserved;
mod verbs;
