//! A lab of namespaces that leaves nothing behind, and the oracle: what iproute2 sees in them.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use netlink::{Bridge, Link, Mac, Netns, Rtnl, Veth, VethEnd, Vxlan};
use serde_json::Value;
use tempfile::TempDir;

/// Namespaces bound in a directory of their own; all are removed with it, also after a panic.
pub(crate) struct Lab {
    dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::with_prefix("netlink-test-").unwrap(),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn netns(&self, name: &str) -> Netns {
        Netns::create(self.dir(), name).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in Netns::list(self.dir()).unwrap_or_default() {
            let _ = Netns::remove(self.dir(), &name);
        }
    }
}

/// Runs a test's future as the plugins do: on a current-thread runtime.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

/// Runs a command line inside the namespace and returns what it prints.
pub(crate) fn sh(ns: &Netns, line: &str) -> String {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", ns.path().display()))
        .args(["sh", "-c", line])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same, of JSON.
pub(crate) fn json(ns: &Netns, line: &str) -> Value {
    serde_json::from_str(&sh(ns, line)).unwrap()
}

/// `ip -d -j link show <name>`; null if there is none.
pub(crate) fn shown(ns: &Netns, name: &str) -> Value {
    let links = json(ns, "ip -d -j link show");
    let found = links
        .as_array()
        .unwrap()
        .iter()
        .find(|link| link["ifname"] == name);
    found.cloned().unwrap_or(Value::Null)
}

pub(crate) fn mac(text: &str) -> Mac {
    let byte = |text| u8::from_str_radix(text, 16).unwrap();
    let bytes: Vec<u8> = text.split(':').map(byte).collect();
    Mac(bytes.try_into().unwrap())
}

pub(crate) fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn bridge(name: &str) -> Bridge {
    Bridge {
        name: name.into(),
        mac: None,
        mtu: 1450,
        group: 0,
    }
}

/// A pair whose ends have the group and are up.
pub(crate) fn veth(name: &str, peer: &str, master: Option<u32>, group: u32) -> Veth {
    let peer = VethEnd {
        name: peer.into(),
        mac: None,
        mtu: 1450,
        group,
        up: true,
    };
    Veth {
        index: None,
        name: name.into(),
        mac: None,
        mtu: 1450,
        master,
        group,
        up: true,
        peer,
    }
}

/// A host on the wire, with a sandbox of network `vni` (bridge and VXLAN device) and a container on it.
pub(crate) struct Site {
    pub(crate) host: Netns,
    pub(crate) host_nl: Rtnl,
    pub(crate) sandbox: Netns,
    pub(crate) nl: Rtnl,
    pub(crate) bridge: Link,
    pub(crate) vxlan: Link,
    pub(crate) container: Netns,
    pub(crate) container_nl: Rtnl,
    pub(crate) eth0: Link,
}

impl Site {
    /// The underlay link `u0` with address `vtep` must be there. The container gets
    /// the addresses (with prefix length).
    pub(crate) async fn new(
        lab: &Lab,
        name: &str,
        vtep: &str,
        vni: u32,
        container: &[&str],
        eth0: &str,
    ) -> Self {
        let host = lab.netns(name);
        let sandbox = lab.netns(&format!("{name}-sandbox"));
        let inside = lab.netns(&format!("{name}-container"));
        let (host_nl, nl) = (Rtnl::open(&host).unwrap(), Rtnl::open(&sandbox).unwrap());
        let container_nl = Rtnl::open(&inside).unwrap();
        let underlay = host_nl.link("u0").await.unwrap().unwrap().index;
        let bridge = nl.create_bridge(&bridge("br0")).await.unwrap();
        let vxlan = vxlan(vni, vtep, underlay, Some(bridge.index));
        host_nl.create_vxlan(&vxlan, &sandbox).await.unwrap();
        let vxlan = nl.link("vx0").await.unwrap().unwrap();
        let mut pair = veth("p0", "eth0", Some(bridge.index), 0);
        pair.peer.mac = Some(mac(eth0));
        nl.create_veth(&pair, &inside).await.unwrap();
        let eth0 = container_nl.link("eth0").await.unwrap().unwrap();
        for address in container {
            container_nl
                .add_address(eth0.index, address.parse().unwrap())
                .await
                .unwrap();
        }
        Self {
            host,
            host_nl,
            sandbox,
            nl,
            bridge,
            vxlan,
            container: inside,
            container_nl,
            eth0,
        }
    }
}

/// `vx0` on port 4789.
pub(crate) fn vxlan(vni: u32, local: &str, underlay: u32, master: Option<u32>) -> Vxlan {
    Vxlan {
        name: "vx0".into(),
        vni,
        port: 4789,
        source_ports: (512, 1024),
        local: addr(local),
        underlay,
        mtu: 1400,
        master,
    }
}

/// Two namespaces joined by a wire: `u0` in both, with the addresses (and prefix length) given.
pub(crate) async fn wire(lab: &Lab, left: (&str, &str), right: (&str, &str)) -> (Netns, Netns) {
    let (a, b) = (lab.netns(left.0), lab.netns(right.0));
    let (a_nl, b_nl) = (Rtnl::open(&a).unwrap(), Rtnl::open(&b).unwrap());
    let mut pair = veth("u0", "u0", None, 0);
    (pair.mtu, pair.peer.mtu) = (1500, 1500);
    a_nl.create_veth(&pair, &b).await.unwrap();
    let end = a_nl.link("u0").await.unwrap().unwrap();
    a_nl.add_address(end.index, left.1.parse().unwrap())
        .await
        .unwrap();
    let end = b_nl.link("u0").await.unwrap().unwrap();
    b_nl.add_address(end.index, right.1.parse().unwrap())
        .await
        .unwrap();
    (a, b)
}

/// A UDP socket in the namespace; reading gives up after `wait`.
pub(crate) fn udp(ns: &Netns, bind: &str, wait: Duration) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind(bind)).unwrap().unwrap();
    socket.set_read_timeout(Some(wait)).unwrap();
    socket
}
