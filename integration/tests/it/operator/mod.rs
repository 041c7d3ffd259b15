//! What an operator does: commands, `doctor`, foreign firewalls, upgrades.

mod command_line;
mod doctor_of_settings;
mod doctor_waiting;
mod exit_codes;
mod foreign_firewalls;
mod gc_command;
mod json_answers;
mod lists;
mod network_connect;
mod network_macvlan;
mod network_update;
mod networks_everywhere;
mod upgrade;
mod upgrade_networks;
