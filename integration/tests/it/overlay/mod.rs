//! `overlay`: segments over hosts, ways out of them, and what a container sees of both.

mod add_again;
mod attachments_at_once;
mod bandwidth;
mod chained_plugins;
mod check;
mod container_state;
mod egress;
mod egress_subnets;
mod families;
mod first_add;
mod full_bridge;
mod gateway;
mod host_access;
pub(crate) mod host_on_segment;
mod host_state;
mod mount_namespaces;
mod no_underlay;
mod passed_through;
mod path_mtu;
mod port_ready;
mod removal;
mod requested_mac;
mod results;
mod status;
mod three_hosts_one_network;
mod tunnel_guard;
mod two_networks_apart;
