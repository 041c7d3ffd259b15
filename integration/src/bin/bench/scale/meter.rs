//! Counts what passes between plugins and the store: the payload of their connections, in bytes, both ways.
//!
//! It stands in front of the laboratory's proxy, which knows the requests, and understands nothing of what it carries.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use integration::{Consul, Proxy, Server};

/// What passed, HTTP's heads included, without what TCP and IP add.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    pub requests: u64,
    /// Bytes from plugins to Consul.
    pub written: u64,
    /// Bytes from Consul to plugins.
    pub read: u64,
}

/// A running meter.
pub struct Meter {
    server: Server,
    proxy: Proxy,
    written: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
}

impl Meter {
    /// In front of `consul`.
    pub fn start(consul: &Consul) -> Meter {
        let proxy = consul.proxy();
        let behind = proxy.url();
        let behind = behind.trim_start_matches("consul://").parse();
        let behind: SocketAddr = behind.expect("the proxy's address");
        let (written, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (written.clone(), read.clone());
        let front = SocketAddr::new(behind.ip(), 18501);
        let server = Server::start(consul.namespace().net(), front, move |client| {
            // A connection that breaks is the plugin's affair.
            let _ = carry(&client, behind, &counters);
        });
        Meter {
            server,
            proxy,
            written,
            read,
        }
    }

    /// The address that hosts use in place of Consul's.
    pub fn url(&self) -> String {
        format!("consul://{}", self.server.address())
    }

    /// What passed since the last call.
    pub fn take(&self) -> Traffic {
        Traffic {
            requests: self.proxy.take().len() as u64,
            written: self.written.swap(0, Ordering::Relaxed),
            read: self.read.swap(0, Ordering::Relaxed),
        }
    }
}

type Counters = (Arc<AtomicU64>, Arc<AtomicU64>);

fn carry(client: &TcpStream, behind: SocketAddr, counters: &Counters) -> std::io::Result<()> {
    let store = TcpStream::connect(behind)?;
    // What waits for more to send with it makes a time of its own.
    for stream in [client, &store] {
        stream.set_nodelay(true)?;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| pump(&store, client, &counters.1));
        pump(client, &store, &counters.0);
    });
    Ok(())
}

/// Counts before it passes on: who has an answer finds it counted.
fn pump(mut from: &TcpStream, mut to: &TcpStream, counter: &AtomicU64) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
