//! What the scenarios of hosts that are on a segment themselves have in common: networks, servers that tell who calls, and
//! the host's links.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use integration::{Attachment, Backend, Host, Lab, Net, Server, conflist, position_of};
use serde_json::Value;

/// Where the servers listen.
const PORT: u16 = 10250;
/// What a network may have.
pub(crate) const V4: &str = "10.0.0.0/24";
pub(crate) const V6: &str = "fd00:1::/64";
pub(crate) const DUAL: &str = "10.0.0.0/24 fd00:1::/64";

/// The conflist of the network `n` with these keys of `overlay`.
pub(crate) fn network(subnets: &str, keys: &Value) -> Value {
    let mut conf = conflist("n", subnets);
    for (key, value) in keys.as_object().expect("keys") {
        conf["plugins"][0][key] = value.clone();
    }
    conf
}

/// What a runtime hands to `overlay` of it.
pub(crate) fn netconf(conflist: &Value) -> Value {
    let mut conf = conflist["plugins"][0].clone();
    conf["cniVersion"] = "1.1.0".into();
    conf["name"] = conflist["name"].clone();
    conf
}

/// Hosts that know each other and have the network.
pub(crate) fn lab(hosts: u8, conflist: &Value) -> Lab {
    let lab = Lab::new(hosts, Backend::Dir);
    // Forwarding stays on, as it does for IPv4.
    for host in lab.hosts() {
        let forward = "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        host.script(forward);
        host.sync();
        host.install(conflist);
    }
    lab
}

/// All addresses of the container on the network.
pub(crate) fn addresses(attached: &Attachment<'_>) -> Vec<IpAddr> {
    let eth0 = position_of(&attached.result, "eth0");
    let ips = attached.result["ips"].as_array().expect("addresses");
    ips.iter()
        .filter(|ip| ip["interface"] == eth0)
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect()
}

/// Servers on each of the container's addresses that tell callers their address.
pub(crate) fn serve(attached: &Attachment<'_>) -> Vec<Server> {
    let serve = |address| {
        Server::start(
            attached.container.net(),
            SocketAddr::new(address, PORT),
            |mut it| {
                if let Ok(peer) = it.peer_addr() {
                    let _ = write!(it, "{}", peer.ip());
                }
            },
        )
    };
    // A server stops by a call of itself.
    attached.container.run("ip link set lo up").ok();
    addresses(attached).into_iter().map(serve).collect()
}

/// As whom the server at `address` sees a caller of `net`, if it can be reached; a kubelet's probe is such a call.
pub(crate) fn seen_as(net: &Net, address: IpAddr) -> Option<IpAddr> {
    let patience = Duration::from_secs(2);
    net.run(|| {
        let server = SocketAddr::new(address, PORT);
        let mut connection = TcpStream::connect_timeout(&server, patience).ok()?;
        connection.set_read_timeout(Some(patience)).ok()?;
        let mut said = String::new();
        connection.read_to_string(&mut said).ok()?;
        said.parse().ok()
    })
}

/// The name of the host's link that begins with this prefix.
pub(crate) fn link(host: &Host, prefix: &str) -> String {
    let links = host.run("ip -br link").ok().stdout;
    let mut names = links
        .lines()
        .filter_map(|line| line.split(['@', ' ']).next());
    let found = names.find(|name| name.starts_with(prefix));
    found
        .unwrap_or_else(|| panic!("no {prefix} in {links}"))
        .to_owned()
}

/// The addresses that a link of the host has, IPv4 first, but for the link-local ones.
pub(crate) fn on_link(host: &Host, prefix: &str) -> Vec<IpAddr> {
    let name = link(host, prefix);
    let shown = ["ip", "-json", "address", "show", "dev", &name];
    let shown = host.run(&shown).ok().json();
    let all = shown[0]["addr_info"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let own = all
        .iter()
        .filter_map(|one| one["local"].as_str()?.parse().ok());
    let mut own: Vec<IpAddr> = own
        .filter(|it: &IpAddr| !it.to_string().starts_with("fe80:"))
        .collect();
    own.sort();
    own
}
