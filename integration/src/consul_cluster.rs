//! The Consul of a production site: three servers that elect a leader, at 192.168.1.6, .7 and .8 on the underlay.
//!
//! What an election does to the hosts, and what a server leaves behind that is killed and comes back, can be seen with
//! no fewer. Each server has namespaces of its own and keeps its data in a folder of the laboratory's tmpfs, so nothing
//! of it outlives the laboratory. Which server a host talks to is the scenario's choice: a server passes on to the leader
//! what it cannot answer, just as the client agent of a production host does.

use std::time::Duration;

use serde_json::json;

use crate::consul::{Consul, Setup};
use crate::lab::{Lab, plug};
use crate::namespace::Namespace;
use crate::programs::Programs;
use crate::until::until;

const ADDRESSES: [&str; 3] = ["192.168.1.6", "192.168.1.7", "192.168.1.8"];

/// Three servers, numbered from 1; all are gone when this value is dropped or the thread ends that made it.
pub struct ConsulCluster {
    servers: Vec<Consul>,
}

impl ConsulCluster {
    /// Starts three servers in the world of `lab` and waits until each knows a leader. The lab's own store is not
    /// touched; hosts use this one once they are configured with a [`ConsulCluster::url`].
    #[track_caller]
    pub fn start(lab: &Lab) -> ConsulCluster {
        let servers = ADDRESSES.iter().zip(1..).map(|(address, number)| {
            let name = format!("consul-{number}");
            let namespace = Namespace::new(&name, Some(lab.router()));
            plug(lab.router(), &namespace, address);
            let folder = format!("/dev/shm/{name}");
            let config = json!({
                "server": true,
                "node_name": name,
                "bootstrap_expect": ADDRESSES.len(),
                "retry_join": ADDRESSES,
                "retry_interval": "250ms",
                "data_dir": format!("{folder}/data"),
                // The shortest times that Consul offers: a leader is missed after a second.
                "performance": { "raft_multiplier": 1 },
                // A killed server stays a member, so that any two make a majority at any time.
                "autopilot": { "cleanup_dead_servers": false },
                "connect": { "enabled": false },
                "ports": { "dns": -1, "grpc": -1, "grpc_tls": -1 },
                "disable_update_check": true,
            });
            let setup = Setup {
                program: Programs::consul(),
                address,
                folder,
                alone: false,
                guarded: false,
            };
            Consul::launch(namespace, setup, config)
        });
        let mut cluster = ConsulCluster {
            servers: servers.collect(),
        };
        for server in &mut cluster.servers {
            server.await_leader();
        }
        cluster
    }

    /// How many servers there are, whatever state they are in.
    pub fn size(&self) -> usize {
        self.servers.len()
    }

    /// Server number `number`, from 1.
    #[track_caller]
    pub fn server(&self, number: usize) -> &Consul {
        &self.servers[number - 1]
    }

    /// The same, to kill, pause or restart it.
    #[track_caller]
    pub fn server_mut(&mut self, number: usize) -> &mut Consul {
        &mut self.servers[number - 1]
    }

    /// Server `number` as a host's configuration names it.
    #[track_caller]
    pub fn url(&self, number: usize) -> String {
        format!("consul://{}", self.server(number).address())
    }

    /// The server that leads: one that serves, that another server calls the leader, and that answers for it. For a
    /// second or more after a leader was killed there is none.
    #[track_caller]
    pub fn leader(&mut self) -> Option<usize> {
        let serving: Vec<_> = (1..=self.size())
            .filter(|number| self.server_mut(*number).is_serving())
            .collect();
        let named = serving.iter().find_map(|number| {
            let server = self.server(*number);
            let patience = Duration::from_secs(1);
            let (_, leader) = server.ask("GET", "/v1/status/leader", "", patience).ok()?;
            let place = |address: &str| leader.contains(&format!("\"{address}:"));
            let at = ADDRESSES.iter().position(|address| place(address))?;
            server.has_leader().then_some(at + 1)
        });
        named.filter(|number| serving.contains(number))
    }

    /// Waits for a leader and says who it is and how long that took; more than `limit` fails the test.
    #[track_caller]
    pub fn await_leader(&mut self, limit: Duration) -> (usize, Duration) {
        let mut leader = None;
        let took = until(limit, "led", || {
            leader = self.leader();
            leader.is_some()
        });
        (leader.expect("a leader"), took)
    }

    /// Waits until every server serves and knows the leader.
    #[track_caller]
    pub fn await_all(&mut self) {
        for server in &mut self.servers {
            server.await_leader();
        }
    }
}
