//! Services of Kubernetes, with the conflist for it and the rules that kube-proxy 1.34 would make for them in its iptables and in its
//! nftables mode: what a cluster needs passes, and what nothing led to a pod does not.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
};

use integration::{
    Attachment, Backend, Host, LIMIT, Lab, Namespace, Net, Server, conflist, tcp_get, until,
    workspace,
};
use serde_json::{Value, json};

const NETWORK: &str = "pods";
const PODS: &str = "10.244.0.0/16";
const SERVICES: &str = "10.96.0.0/12";
/// Where a pod listens, and the port of its host that leads there.
const PORT: u16 = 80;
const HOST_PORT: u16 = 8080;

/// A service with its pods.
struct Service {
    name: &'static str,
    address: &'static str,
    node_port: u16,
    pods: Vec<IpAddr>,
}

/// One pod on the first host, one on the second, and a service of both.
fn services(near: IpAddr, far: IpAddr) -> [Service; 3] {
    let service = |name, address, node_port, pods| Service {
        name,
        address,
        node_port,
        pods,
    };
    [
        service("near", "10.96.0.10", 30010, vec![near]),
        service("far", "10.96.0.20", 30020, vec![far]),
        service("both", "10.96.0.30", 30030, vec![near, far]),
    ]
}

/// The rules of the iptables mode, for `iptables-nft-restore`.
fn iptables(services: &[Service], _: &Host) -> String {
    let (mut chains, mut rules) = (vec![], vec![]);
    for service in services {
        let (name, address, node_port) = (service.name, service.address, service.node_port);
        let name_upper = name.to_uppercase();
        let of = format!("-m comment --comment \"default/{name}:http\"");
        chains.push(format!(
            ":KUBE-SVC-{name_upper} - [0:0]\n:KUBE-EXT-{name_upper} - [0:0]\n"
        ));
        rules.push(format!(
            "-A KUBE-SERVICES -d {address}/32 -p tcp {of} -m tcp --dport 80 -j KUBE-SVC-{name_upper}
-A KUBE-NODEPORTS -d 127.0.0.0/8 -p tcp {of} -m tcp --dport {node_port} -j KUBE-EXT-{name_upper}
-A KUBE-NODEPORTS -p tcp {of} -m tcp --dport {node_port} -j KUBE-EXT-{name_upper}
-A KUBE-EXT-{name_upper} {of} -j KUBE-MARK-MASQ
-A KUBE-EXT-{name_upper} -j KUBE-SVC-{name_upper}
-A KUBE-SVC-{name_upper} ! -s {PODS} -d {address}/32 -p tcp {of} -m tcp --dport 80 -j KUBE-MARK-MASQ\n"
        ));
        for (number, pod) in service.pods.iter().enumerate() {
            // Of two, the first by a throw of dice and the second otherwise.
            let chosen = if number + 1 < service.pods.len() {
                "-m statistic --mode random --probability 0.5000000000 "
            } else {
                ""
            };
            let end = format!("KUBE-SEP-{name_upper}{number}");
            chains.push(format!(":{end} - [0:0]\n"));
            rules.push(format!(
                "-A KUBE-SVC-{name_upper} {of} {chosen}-j {end}
-A {end} -s {pod}/32 {of} -j KUBE-MARK-MASQ
-A {end} -p tcp {of} -m tcp -j DNAT --to-destination {pod}:{PORT}\n"
            ));
        }
    }
    let (chains, rules) = (chains.concat(), rules.concat());
    format!(
        "*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
{chains}-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
{rules}-A KUBE-SERVICES -m comment --comment \"must be last\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"
    )
}

/// The table of the nftables mode.
fn nftables(services: &[Service], host: &Host) -> String {
    let mut chains: Vec<String> = vec![];
    let (mut addresses, mut by_address, mut by_port) = (vec![], vec![], vec![]);
    for service in services {
        let (name, address, node_port) = (service.name, service.address, service.node_port);
        addresses.push(address.to_owned());
        by_address.push(format!("{address} . tcp . 80 : goto service-{name}"));
        by_port.push(format!("tcp . {node_port} : goto external-{name}"));
        let ends = (0..service.pods.len())
            .map(|number| format!("{number} : goto endpoint-{name}-{number}"));
        let ends: Vec<_> = ends.collect();
        for (number, pod) in service.pods.iter().enumerate() {
            chains.push(format!(
                "chain endpoint-{name}-{number} {{
                    ip saddr {pod} jump mark-for-masquerade
                    meta l4proto tcp dnat to {pod}:{PORT}
                }}\n"
            ));
        }
        chains.push(format!(
            "chain service-{name} {{
                ip daddr {address} ip saddr != {PODS} jump mark-for-masquerade
                numgen random mod {} vmap {{ {} }}
            }}
            chain external-{name} {{
                jump mark-for-masquerade
                goto service-{name}
            }}\n",
            service.pods.len(),
            ends.join(", ")
        ));
    }
    let chains = chains.concat();
    format!(
        "table ip kube-proxy {{
            set cluster-ips {{ type ipv4_addr; elements = {{ {addresses} }}; }}
            set nodeport-ips {{ type ipv4_addr; elements = {{ {node} }}; }}
            chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}
            {chains}
            map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {by_address} }}; }}
            map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{ {by_port} }}; }}
            map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
            map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
            map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
            chain services {{
                ip daddr . meta l4proto . th dport vmap @service-ips
                ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
            }}
            chain masquerading {{
                meta mark & 0x4000 == 0 return
                meta mark set meta mark ^ 0x4000
                masquerade fully-random
            }}
            chain cluster-ips-check {{
                ip daddr @cluster-ips reject
                ip daddr {SERVICES} drop
            }}
            chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
            chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
            chain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
            chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}
            chain filter-output-pre-dnat {{ type filter hook output priority -110; ct state new jump firewall-check; }}
            chain filter-forward {{
                type filter hook forward priority 0
                ct state new jump service-endpoints-check
                ct state new jump cluster-ips-check
            }}
            chain filter-input {{
                type filter hook input priority 0
                ct state new jump nodeport-endpoints-check
                ct state new jump service-endpoints-check
            }}
            chain filter-output {{
                type filter hook output priority 0
                ct state new jump service-endpoints-check
                ct state new jump cluster-ips-check
            }}
            chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
            chain nat-output {{ type nat hook output priority -100; jump services; }}
            chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}
        }}\n",
        addresses = addresses.join(", "),
        node = host.vtep(),
        by_address = by_address.join(", "),
        by_port = by_port.join(", "),
    )
}

/// What a runtime asks for a pod with a port of its host.
fn ports() -> Value {
    let port = json!({ "hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp" });
    json!({ "portMappings": [port] })
}

/// A pod that tells callers its name.
struct Pod<'lab> {
    attached: Attachment<'lab>,
    _server: Server,
}

impl<'lab> Pod<'lab> {
    fn new(host: &'lab Host, name: &'static str) -> Self {
        let container = host.container(name);
        let given = host.cnitool_asking("add", NETWORK, (name, "eth0"), &ports());
        let result = given.ok().json();
        let address = result["ips"][0]["address"].as_str().expect("an address");
        let (address, _) = address.split_once('/').expect("a CIDR");
        let attached = Attachment {
            address: address.parse().expect("an address"),
            container,
            network: NETWORK.to_owned(),
            ifname: "eth0".to_owned(),
            result,
        };
        let at = SocketAddr::from(([0; 4], PORT));
        let server = Server::start(attached.container.net(), at, move |mut caller| {
            let _ = write!(caller, "{name}");
        });
        Pod {
            attached,
            _server: server,
        }
    }

    fn net(&self) -> Net {
        self.attached.container.net()
    }
}

/// What answers at an address; nothing within some seconds is no answer.
fn answer(net: &Net, address: &str) -> Option<String> {
    tcp_get(net, address.parse().expect("address and port")).ok()
}

fn pods() -> Value {
    let file = workspace().join("cni-conf/kubernetes.conflist");
    let file = std::fs::read_to_string(file).expect("the conflist");
    serde_json::from_str(&file).expect("JSON")
}

/// A machine on the underlay that sends what is for pods and services to the first host.
fn neighbour(lab: &Lab) -> Namespace {
    let machine = Namespace::new("neighbour", Some(lab.router()));
    lab.router().script(&format!(
        "ip link add neighbour master underlay up type veth peer name ens3 netns {}",
        machine.pid()
    ));
    let by = lab.host(1).vtep();
    machine.script(&format!(
        "ip address add 192.168.1.66/24 dev ens3; ip link set ens3 up
         ip route add {PODS} via {by}"
    ));
    machine
}

/// The cluster of a test: two hosts, a pod on each, one more that calls them, and a container of another network.
struct Cluster<'lab> {
    lab: &'lab Lab,
    pods: [Pod<'lab>; 2],
    caller: Attachment<'lab>,
    foreign: Attachment<'lab>,
}

impl<'lab> Cluster<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        lab.install(&conflist("other", "10.0.6.0/24"));
        let (one, two) = (lab.host(1), lab.host(2));
        Cluster {
            lab,
            pods: [Pod::new(one, "near"), Pod::new(two, "far")],
            caller: Attachment::new(one, "caller", NETWORK),
            foreign: Attachment::new(one, "foreign", "other"),
        }
    }

    fn load(&self, rules: impl Fn(&[Service], &Host) -> String, load: &str) {
        let [near, far] = &self.pods;
        let services = services(near.attached.address, far.attached.address);
        for host in self.lab.hosts() {
            host.write("/run/kube-proxy.rules", rules(&services, host));
            host.script(&format!("{load} /run/kube-proxy.rules"));
            // As kube-proxy sets it in its iptables mode.
            host.script("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet");
        }
    }

    /// Each of these is answered by the pod that is named.
    fn answers(&self) {
        let [near, far] = &self.pods;
        let [by_near, by_far] = [near, far].map(Pod::net);
        let [one, two] = [1, 2].map(|number| self.lab.host(number));
        let [on_one, on_two] = [one, two].map(|host| host.namespace().net());
        let (caller, foreign) = (self.caller.container.net(), self.foreign.container.net());
        let outside = self.lab.outside().net();
        let [near_pod, far_pod] = [near, far].map(|pod| format!("{}:80", pod.attached.address));
        let [near_ip, far_ip] = ["10.96.0.10:80", "10.96.0.20:80"].map(str::to_owned);
        let at = |host: &Host, port: u16| format!("{}:{port}", host.vtep());
        let [near_port, far_port] = [30010, 30020].map(|port| at(one, port));
        let [near_there, far_there] = [30010, 30020].map(|port| at(two, port));
        let own = at(one, HOST_PORT);
        for (what, net, address, pod) in [
            ("a pod on this host", &caller, &near_pod, "near"),
            ("a pod on another", &caller, &far_pod, "far"),
            ("a host, its pod", &on_one, &near_pod, "near"),
            ("a host, another's pod", &on_one, &far_pod, "far"),
            ("ClusterIP", &caller, &near_ip, "near"),
            ("ClusterIP, a pod there", &caller, &far_ip, "far"),
            ("ClusterIP, from there", &by_far, &near_ip, "near"),
            ("ClusterIP, from a host", &on_two, &near_ip, "near"),
            ("ClusterIP, to itself", &by_near, &near_ip, "near"),
            ("NodePort", &outside, &near_port, "near"),
            ("NodePort, a pod there", &outside, &far_port, "far"),
            ("NodePort of the other", &outside, &near_there, "near"),
            ("NodePort, from a pod", &caller, &far_there, "far"),
            ("NodePort, to itself", &by_near, &near_port, "near"),
            ("NodePort, another network", &foreign, &far_port, "far"),
            ("hostPort", &outside, &own, "near"),
            ("hostPort, a pod there", &by_far, &own, "near"),
            ("hostPort, a pod here", &caller, &own, "near"),
            ("hostPort, to itself", &by_near, &own, "near"),
        ] {
            until(LIMIT, what, || answer(net, address).as_deref() == Some(pod));
        }
        // A service of both is answered by both.
        for pod in ["near", "far"] {
            let found = || answer(&caller, "10.96.0.30:80");
            until(LIMIT, pod, || found().as_deref() == Some(pod));
        }
    }

    /// What nothing leads to a pod does not get there.
    fn holds(&self) {
        let neighbour = neighbour(self.lab);
        for pod in &self.pods {
            let at = format!("{}:{PORT}", pod.attached.address);
            assert_eq!(answer(&neighbour.net(), &at), None, "from the underlay");
            let foreign = self.foreign.container.net();
            assert_eq!(answer(&foreign, &at), None, "from another network");
        }
    }
}

fn a_cluster_works(rules: impl Fn(&[Service], &Host) -> String, load: &str) {
    let lab = Lab::with_network(2, Backend::Dir, &pods());
    let cluster = Cluster::new(&lab);
    cluster.load(rules, load);
    cluster.answers();
    cluster.holds();
    cluster.caller.check().ok();
    let pod = ("near", "eth0");
    let checked = lab.host(1).cnitool_asking("check", NETWORK, pod, &ports());
    checked.ok();
}

#[test]
fn a_cluster_works_with_services_by_iptables() {
    a_cluster_works(iptables, "iptables-nft-restore --noflush");
}

#[test]
fn a_cluster_works_with_services_by_nftables() {
    a_cluster_works(nftables, "nft -f");
}
