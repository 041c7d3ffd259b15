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
mod requested_ports;
mod verbs;
