//! What the scenarios of published ports share: networks with `portmap` in their chain, containers that serve, and who asks.

use std::io::Write;
use std::net::SocketAddr;

use integration::{Backend, Container, Finished, Host, Lab, Namespace, Net, Server, tcp_get};
use serde_json::{Value, json};

/// The interface plugins under which a port is published.
pub const UNDER: [&str; 3] = ["overlay", "bridge", "ptp"];

/// A network of both versions of IP under an interface plugin, with `portmap`; `number` tells its subnets from others'.
pub fn network(under: &str, name: &str, number: u8) -> Value {
    let ranges = json!([
        [{ "subnet": format!("10.{number}.0.0/24") }],
        [{ "subnet": format!("fd00:{number}::/64") }],
    ]);
    let routes = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
    let mut plugin = json!({
        "type": under,
        "capabilities": { "ips": true },
        "ipam": { "type": "ipam-kv", "ranges": ranges },
    });
    if under != "overlay" {
        plugin["ipam"]["routes"] = routes;
    }
    if under == "bridge" {
        plugin["bridge"] = format!("br{number}").into();
        plugin["isGateway"] = true.into();
        // Where br_netfilter sees the bridge's frames, as it does here, a container meets itself at its own port.
        plugin["hairpinMode"] = true.into();
    }
    // Debian's plugins know no newer version.
    json!({
        "cniVersion": "1.0.0",
        "name": name,
        "plugins": [plugin, { "type": "portmap", "capabilities": { "portMappings": true } }],
    })
}

/// Two hosts, of which the first has a network `br` under the reference's bridge.
pub fn lab() -> Lab {
    let lab = Lab::new(2, Backend::Dir);
    lab.host(1).install(&network("bridge", "br", 1));
    lab
}

/// ADD of a container that is there to the network `br`, as `eth0`.
pub fn add(host: &Host, name: &str, asked: &Value) -> Finished {
    host.cnitool_asking("add", "br", (name, "eth0"), &port_mappings(asked))
}

/// With these keys in the configuration of `portmap`.
pub fn with(mut network: Value, keys: &Value) -> Value {
    for (key, value) in keys.as_object().expect("keys") {
        network["plugins"][1][key] = value.clone();
    }
    network
}

/// What a runtime sends for these ports.
pub fn port_mappings(ports: &Value) -> Value {
    json!({ "portMappings": ports })
}

/// One port of TCP.
pub fn port(host: u16, container: u16) -> Value {
    json!({ "hostPort": host, "containerPort": container, "protocol": "tcp" })
}

/// A container with published ports.
pub struct Published<'host> {
    /// Its namespace.
    pub container: Container<'host>,
    /// The network.
    pub network: String,
    /// What was asked for.
    pub asked: Value,
    /// The result of ADD.
    pub result: Value,
}

impl<'host> Published<'host> {
    /// A new container on the network as `eth0`.
    #[track_caller]
    pub fn new(host: &'host Host, name: &str, network: &str, ports: &Value) -> Self {
        Self::of(host.container(name), network, "eth0", ports)
    }

    /// A container on one more network.
    #[track_caller]
    pub fn of(container: Container<'host>, network: &str, ifname: &str, ports: &Value) -> Self {
        let asked = port_mappings(ports);
        let attached = (container.name(), ifname);
        let host = container.host();
        let added = host.cnitool_asking("add", network, attached, &asked);
        Self {
            result: added.ok().json(),
            network: network.to_owned(),
            asked,
            container,
        }
    }

    /// CHECK and DEL of `eth0`.
    #[track_caller]
    pub fn again(&self, verb: &str) -> Finished {
        let attached = (self.container.name(), "eth0");
        let host = self.container.host();
        host.cnitool_asking(verb, &self.network, attached, &self.asked)
    }

    /// A call of `portmap` alone for these ports of the container, as that of another id.
    #[track_caller]
    pub fn alone(&self, verb: &str, id: &str, ports: &Value) -> Finished {
        let conf = json!({
            "cniVersion": "1.0.0",
            "name": self.network,
            "type": "portmap",
            "prevResult": self.result,
            "runtimeConfig": port_mappings(ports),
        });
        let netns = format!("/run/netns/{}", self.container.name());
        let call = self.container.host().call("portmap", verb).id(id);
        call.netns(&netns).conf(&conf).run()
    }

    /// Serves there: who connects hears its name and then the address that it is seen by.
    #[track_caller]
    pub fn serves(&self, port: u16) -> Server {
        serve(self.container.net(), self.container.name(), port)
    }
}

/// A server on all addresses of a namespace.
#[track_caller]
pub fn serve(net: Net, name: &str, port: u16) -> Server {
    let name = name.to_owned();
    Server::start(net, at("::", port), move |mut connection| {
        if let Ok(peer) = connection.peer_addr() {
            let _ = write!(connection, "{name} {}", peer.ip().to_canonical());
        }
    })
}

/// An address and a port.
#[track_caller]
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// What a client in this namespace hears at a port; what it met instead if nothing.
pub fn fetch(net: &Net, address: &str, port: u16) -> String {
    match tcp_get(net, at(address, port)) {
        Ok(words) => words,
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// The same of a host or of what stands beside it.
pub fn fetch_at(namespace: &Namespace, address: &str, port: u16) -> String {
    fetch(&namespace.net(), address, port)
}

/// A chain of nft's own with these rules.
pub fn chain(hook: &str, rules: &str) -> String {
    format!(
        "nft add table inet f
         nft 'add chain inet f c {{ type filter hook {hook}; }}'
         nft 'add rule inet f c {rules}'"
    )
}

/// Nothing of others in the tables, as a rule of these tests leaves it.
pub const UNDONE: &str = "nft delete table inet f 2>/dev/null || true
    for table in filter raw mangle security; do nft delete table ip $table 2>/dev/null || true; done
    for link in docker0 cali0; do ip link delete $link 2>/dev/null || true; done";

/// All rules of a host.
#[track_caller]
pub fn rules(host: &Host) -> String {
    host.run("nft list ruleset").ok().stdout
}
