//! Container runtimes that people use, each with our plugins.

mod cri;
pub(crate) mod lifecycle;
mod nerdctl;
mod nerdctl_ends;
mod nerdctl_ports;
mod networks_by_command;
mod podman;
