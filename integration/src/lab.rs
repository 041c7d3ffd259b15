//! The world of one test: hosts on an underlay segment, a router, an outside beyond it, and a store.
//!
//! ```text
//!   docker01 .11   docker02 .12   docker03 .13      consul .5
//!      ens3|          ens3|          ens3|          ens3|
//!   ---------------- underlay 192.168.1.0/24, MTU 1500 ----------------
//!                          | .1  router
//!                          | 203.0.113.1
//!                       outside 203.0.113.9: a TCP server that tells callers their address
//! ```
//!
//! All of them have an address of IPv6 beside: `2001:db8:192:168:1::11` for 192.168.1.11, and so on.
//! The router knows the underlay and the outside only: a packet that leaves a host with a container's
//! own address gets no answer. All of the world's files are in one tmpfs, mounted over `/dev/shm` (which
//! exists everywhere and holds no sources), so a `dir` store there is one file system for all hosts.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;

use serde_json::Value;

use crate::consul::{Consul, Release};
use crate::footprint::{Footprint, files_below};
use crate::host::Host;
use crate::namespace::{Namespace, Net};
use crate::server::Server;

/// Where the server beyond the underlay listens; it answers with the caller's address as it sees it.
pub const OUTSIDE: &str = "203.0.113.9:80";
/// The same over IPv6.
pub const OUTSIDE6: &str = "[2001:db8:203:0:113::9]:80";

/// The store that the hosts share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Files in a folder that all hosts see.
    Dir,
    /// A current Consul.
    Consul,
    /// The oldest Consul that we support, 1.8.7.
    OldestConsul,
    /// A current Consul that refuses everything without a token.
    GuardedConsul,
}

/// A private world; all of it is gone when this value is dropped or the test process ends.
pub struct Lab {
    backend: Backend,
    hosts: Vec<Host>,
    consul: Option<Consul>,
    outside: Namespace,
    _answering: [Server; 2],
    world: Namespace,
}

impl Lab {
    /// A world with `hosts` hosts, named docker01, docker02 and so on, whose `/etc/crosshost/config.json`
    /// names the store and the host's own name and VTEP.
    #[track_caller]
    pub fn new(hosts: u8, backend: Backend) -> Lab {
        let world = Namespace::new("router", None);
        // Namespaces that other tests hold by mounts in this moment would go while the laboratory counts what is on its hosts.
        world.script(
            "while read -r device mount kind rest; do
                 [ $kind != nsfs ] || umount -l $mount || true
             done </proc/self/mounts
             mount -t tmpfs lab /dev/shm
             ip link set lo up
             echo 1 > /proc/sys/net/ipv4/ip_forward
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             ip link add underlay type bridge
             ip address add 192.168.1.1/24 dev underlay
             ip address add 2001:db8:192:168:1::1/80 dev underlay nodad
             ip link set underlay up",
        );
        let outside = Namespace::new("outside", Some(&world));
        world.script(&format!(
            "ip link add outside type veth peer name ens3 netns {}
             ip address add 203.0.113.1/24 dev outside
             ip address add 2001:db8:203:0:113::1/80 dev outside nodad
             ip link set outside up",
            outside.pid()
        ));
        settle(&outside, "203.0.113.9", "203.0.113.1");
        let answering = [OUTSIDE, OUTSIDE6].map(|address| {
            Server::start(outside.net(), at(address), |mut connection| {
                if let Ok(peer) = connection.peer_addr() {
                    let _ = write!(connection, "{}", peer.ip());
                }
            })
        });

        let release = match backend {
            Backend::Dir => None,
            Backend::Consul => Some(Release::Current),
            Backend::GuardedConsul => Some(Release::Guarded),
            Backend::OldestConsul => Some(Release::Oldest),
        };
        let consul = release.map(|release| {
            let namespace = Namespace::new("consul", Some(&world));
            plug(&world, &namespace, "192.168.1.5");
            Consul::start(namespace, release)
        });
        let mut lab = Lab {
            backend,
            hosts: Vec::new(),
            consul,
            outside,
            _answering: answering,
            world,
        };
        for number in 1..=hosts {
            lab.add_host(number);
        }
        lab
    }

    /// Adds host number `number`, as if a machine were bought while the others run.
    #[track_caller]
    pub fn add_host(&mut self, number: u8) -> &Host {
        let name = format!("docker{number:02}");
        let vtep = format!("192.168.1.{}", 10 + number);
        let namespace = Namespace::new(&name, Some(&self.world));
        plug(&self.world, &namespace, &vtep);
        let host = Host::furnish(namespace, &vtep);
        host.configure(&self.store_url());
        self.hosts.push(host);
        &self.hosts[self.hosts.len() - 1]
    }

    /// The same after a `crosshost sync` on each host, so that the hosts have records in the store and know each other.
    #[track_caller]
    pub fn registered(hosts: u8, backend: Backend) -> Lab {
        let lab = Lab::new(hosts, backend);
        lab.sync();
        lab
    }

    /// The same with this conflist on each host.
    #[track_caller]
    pub fn with_network(hosts: u8, backend: Backend, conflist: &Value) -> Lab {
        let lab = Lab::registered(hosts, backend);
        lab.install(conflist);
        lab
    }

    /// `crosshost sync` on each host.
    #[track_caller]
    pub fn sync(&self) {
        for host in &self.hosts {
            host.sync();
        }
    }

    /// Installs a conflist on each host.
    #[track_caller]
    pub fn install(&self, conflist: &Value) {
        for host in &self.hosts {
            host.install(conflist);
        }
    }

    /// The kind of store that the hosts share.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// All hosts, docker01 first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Host number `number`, from 1.
    #[track_caller]
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// The Consul of this world.
    #[track_caller]
    pub fn consul(&self) -> &Consul {
        self.consul.as_ref().expect("a world with a Consul")
    }

    /// The same, to kill it or start it again.
    #[track_caller]
    pub fn consul_mut(&mut self) -> &mut Consul {
        self.consul.as_mut().expect("a world with a Consul")
    }

    /// The namespace beyond the underlay.
    pub fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// The namespace of the underlay and the router.
    pub fn router(&self) -> &Namespace {
        &self.world
    }

    /// The store's address as the hosts' configuration names it.
    pub fn store_url(&self) -> String {
        match &self.consul {
            Some(consul) => format!("consul://{}", consul.address()),
            None => "dir:///dev/shm/store".to_owned(),
        }
    }

    /// The network namespaces of this world by their identities; see [`Namespace::identity`].
    #[track_caller]
    pub fn identities(&self) -> Vec<String> {
        let hosts = self.hosts.iter().map(Host::namespace);
        let others = [&self.outside, &self.world].into_iter();
        let consul = self.consul.iter().map(Consul::namespace);
        hosts
            .chain(others)
            .chain(consul)
            .map(Namespace::identity)
            .collect()
    }

    /// What there is on each host now, to compare with later.
    #[track_caller]
    pub fn footprints(&self) -> Vec<Footprint> {
        self.hosts.iter().map(Host::footprint).collect()
    }

    /// Insists that every host is as it was.
    #[track_caller]
    pub fn assert_same_as(&self, before: &[Footprint], when: &str) {
        for (host, before) in self.hosts.iter().zip(before) {
            let what = format!("{} {when}", host.name());
            host.footprint().assert_same_as(before, &what);
        }
    }

    /// Every file of the `dir` store by its path below the store's folder.
    #[track_caller]
    pub fn stored_files(&self) -> BTreeMap<String, Vec<u8>> {
        let root = self.world.path("/dev/shm/store");
        files_below(&root)
            .into_iter()
            .map(|path| {
                (
                    path.clone(),
                    std::fs::read(root.join(&path)).expect("a file"),
                )
            })
            .collect()
    }
}

/// Plugs `namespace` into the underlay with one cable: `ens3` inside, the namespace's name on the bridge.
pub(crate) fn plug(world: &Namespace, namespace: &Namespace, address: &str) {
    world.script(&format!(
        "ip link add {} master underlay up type veth peer name ens3 netns {}",
        namespace.name(),
        namespace.pid()
    ));
    settle(namespace, address, "192.168.1.1");
}

fn settle(namespace: &Namespace, address: &str, router: &str) {
    let [address6, router6] = [address, router].map(over_ipv6);
    namespace.script(&format!(
        "ip link set lo up
         ip address add {address}/24 dev ens3
         ip address add {address6}/80 dev ens3 nodad
         ip link set ens3 up
         ip route add default via {router}
         ip route add default via {router6}"
    ));
}

/// The IPv6 address of the machine that has this IPv4 address in the laboratory.
pub(crate) fn over_ipv6(address: &str) -> String {
    let [a, b, c, d] = std::array::from_fn(|at| address.split('.').nth(at).unwrap_or("0"));
    format!("2001:db8:{a}:{b}:{c}::{d}")
}

/// Parses `a.b.c.d:port`.
#[track_caller]
pub(crate) fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address and a port")
}

/// What the server at `address` says to a caller in `net` that connects and only listens.
pub fn tcp_get(net: &Net, address: SocketAddr) -> std::io::Result<String> {
    // The kernel answers for a server that is slow to accept. A lost SYN is sent again after a second.
    let patience = std::time::Duration::from_secs(3);
    net.run(|| {
        let mut connection = std::net::TcpStream::connect_timeout(&address, patience)?;
        connection.set_read_timeout(Some(2 * patience))?;
        std::io::read_to_string(&mut connection)
    })
}
