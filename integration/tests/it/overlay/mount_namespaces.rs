//! A runtime in a mount namespace of its own (`PrivateTmp=` and its like in its unit): what it mounts no other program of the
//! host sees, though all of them share `/run/crosshost`. Its containers keep their way out, their neighbours and their
//! addresses, whatever else is run on the host.

use std::net::IpAddr;

use crate::doctor_report::ask;
use crate::store_reader::leased;
use integration::{
    Attachment, Backend, Finished, Host, LIMIT, Lab, OUTSIDE, Programs, Running, address_of,
    conflist, until,
};

const NETWORK: &str = "n1";
const SUBNET: &str = "10.0.0.0/24";

fn lab() -> Lab {
    let lab = Lab::new(2, Backend::Dir);
    for host in lab.hosts() {
        host.install(&conflist(NETWORK, SUBNET));
        // As systemd has it.
        host.script("mount --make-shared /run");
        host.sync();
    }
    lab
}

/// A process in a mount namespace of its own, as a service with `PrivateTmp=` has it: it hears of the host's mounts, and the
/// host does not hear of its own.
struct Service<'host> {
    host: &'host Host,
    process: Running,
}

impl<'host> Service<'host> {
    #[track_caller]
    fn start(host: &'host Host) -> Self {
        host.script("rm -f /run/started");
        let mut command = host.namespace().command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(["unshare", "--mount", "--propagation", "slave"])
            .args([
                "sh",
                "-c",
                "exec 2>/dev/null; touch /run/started; exec sleep 1000000",
            ]);
        let process = Running::start(command, b"");
        while !host.namespace().path("/run/started").exists() {
            assert!(process.is_alive(), "it starts");
            std::thread::yield_now();
        }
        Self { host, process }
    }

    /// Runs `words` where it is.
    fn run(&self, words: &[&str]) -> Finished {
        let pid = self.process.pid().to_string();
        let words = [&["nsenter", "-t", &pid, "-m", "--"], words].concat();
        self.host.run(&words)
    }

    /// A verb of a runtime that is this service.
    fn cnitool(&self, verb: &str, container: &str) -> Finished {
        let path = format!("CNI_PATH={}", Programs::cni_path());
        let (tool, netns) = (Programs::cnitool(), format!("/run/netns/{container}"));
        let tool = tool.to_str().expect("a path");
        let env = [
            "env",
            "NETCONFPATH=/etc/cni/net.d",
            &path,
            "CNI_IFNAME=eth0",
        ];
        self.run(&[&env[..], &[tool, verb, NETWORK, &netns]].concat())
    }

    /// An attachment that it makes, of a container that is there.
    #[track_caller]
    fn attach(&self, container: &str) -> IpAddr {
        address_of(&self.cnitool("add", container).ok().json(), "eth0")
    }

    /// Whether one of its containers reaches an address, asked from where the service is.
    fn pings(&self, container: &str, address: &str) -> bool {
        let netns = format!("--net=/run/netns/{container}");
        let words = ["nsenter", &netns, "ping", "-n", "-c1", "-W2", address];
        self.run(&words).status.success()
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        self.process.kill();
    }
}

#[test]
fn its_containers_and_those_of_the_host_are_on_one_network() {
    let lab = lab();
    let host = lab.host(1);
    let untouched = host.footprint();
    let remote = Attachment::new(lab.host(2), "t2", NETWORK);
    let service = Service::start(host);
    let t1 = host.container("t1");
    let address = service.attach("t1");
    let works = |when: &str| {
        assert!(t1.tcp_get(OUTSIDE).is_ok(), "the way out {when}");
        assert!(t1.pings(remote.address, &[]), "the other host {when}");
    };
    works("after its ADD");

    let says = ["network n1", "another mount namespace", "PrivateTmp="];
    assert_eq!(ask(host).wrong(&says), "crosshost sync");
    assert_eq!(
        ask(host).wrong(&["way out", "another mount namespace"]),
        "crosshost sync"
    );
    works("after doctor");
    assert_eq!(host.crosshost("gc").ok().stdout, "");
    works("after gc");
    host.sync();
    works("after sync");
    ask(host).assert_well();

    // Another service hears nothing of the first one's mounts but by the host, and an ADD of it needs neither.
    let t3 = Attachment::new(host, "t3", NETWORK);
    assert_ne!(t3.address, address);
    assert!(t3.container.pings(address, &[]) && t1.pings(t3.address, &[]));
    assert!(t3.container.tcp_get(OUTSIDE).is_ok());
    works("after an ADD on the host");

    service.cnitool("del", "t1").ok();
    assert!(t3.container.tcp_get(OUTSIDE).is_ok() && t3.container.pings(remote.address, &[]));
    t3.detach().ok();
    for gone in ["t1", "t3"] {
        host.existing(gone).remove();
    }
    host.script("rm /run/started");
    let left = host.footprint();
    left.assert_same_as(&untouched, "after the last DEL");
}

/// The host's own ADD comes first to see that the sandbox is the other's.
#[test]
fn an_add_of_the_host_joins_what_the_service_made_and_survives_it() {
    let lab = lab();
    let host = lab.host(1);
    let service = Service::start(host);
    let t1 = host.container("t1");
    let address = service.attach("t1");
    let t2 = Attachment::new(host, "t2", NETWORK);
    assert!(t2.container.pings(address, &[]) && t1.pings(t2.address, &[]));
    assert!(t1.tcp_get(OUTSIDE).is_ok() && t2.container.tcp_get(OUTSIDE).is_ok());
    // Restarted, it has a mount namespace that never saw the first one's mounts.
    drop(service);
    assert!(t2.container.pings(address, &[]), "mounted on the host, too");
    let service = Service::start(host);
    service.cnitool("del", "t1").ok();
    t2.detach().ok();
    assert!(leased(&lab, NETWORK).is_empty());
}

#[test]
fn gc_frees_no_address_of_a_container_whose_namespace_it_cannot_see() {
    let lab = lab();
    let host = lab.host(1);
    let service = Service::start(host);
    service
        .run(&[
            "sh",
            "-euc",
            "mkdir -p /run/netns; mount -t tmpfs private /run/netns; ip netns add t1",
        ])
        .ok();
    let address = service.attach("t1").to_string();
    let lives = |when: &str| {
        assert!(
            leased(&lab, NETWORK).contains(&address),
            "its address {when}"
        );
        assert!(service.pings("t1", "203.0.113.9"), "its way out {when}");
    };
    assert_eq!(host.crosshost("gc --dry-run").ok().stdout, "");
    assert_eq!(host.crosshost("gc").ok().stdout, "");
    lives("after gc");
    host.sync();
    assert_eq!(host.crosshost("gc").ok().stdout, "");
    lives("after sync and gc");
    let other = Attachment::new(host, "t2", NETWORK);
    assert_ne!(other.address.to_string(), address);
    lives("after an ADD on the host");
    service.cnitool("del", "t1").ok();
    assert!(!leased(&lab, NETWORK).contains(&address));
    assert!(other.container.tcp_get(OUTSIDE).is_ok());
}

/// Neither a watcher with the rights of its unit nor a program in a process namespace of its own can look into the service's
/// mounts: they leave alone what they cannot see, and say so.
#[test]
fn who_cannot_see_its_mounts_leaves_them_alone() {
    let lab = lab();
    let host = lab.host(1);
    let service = Service::start(host);
    let t1 = host.container("t1");
    let address = service.attach("t1").to_string();
    let works = |when: &str| {
        assert!(t1.tcp_get(OUTSIDE).is_ok(), "the way out {when}");
        assert!(
            leased(&lab, NETWORK).contains(&address),
            "the address {when}"
        );
    };
    let watcher = host.watch();
    watcher.until(LIMIT, "told", || {
        watcher.times_said("another mount namespace") > 0
    });
    works("beside a watcher");
    drop(watcher);

    let crosshost = Programs::product("crosshost");
    let crosshost = crosshost.to_str().expect("a path");
    let apart = |words: &[&str]| {
        // With a new /proc the host's own boot id has to be put there again.
        let script = "mount --bind /dev/shm/hosts/docker01/boot_id /proc/sys/kernel/random/boot_id; exec \"$@\"";
        let apart = [
            "unshare",
            "--pid",
            "--fork",
            "--mount-proc",
            "--",
            "sh",
            "-euc",
            script,
            "sh",
        ];
        host.run(&[&apart[..], words].concat())
    };
    let refused = apart(&[crosshost, "sync"]).failed();
    for words in ["another mount namespace", "PrivateTmp="] {
        assert!(refused.stderr.contains(words), "{refused}");
    }
    works("after a sync");
    t1.remove();
    assert_eq!(apart(&[crosshost, "gc"]).ok().stdout, "", "it cannot know");
    assert!(leased(&lab, NETWORK).contains(&address));
    // Who sees it knows, as soon as the kernel has taken the namespace apart.
    until(LIMIT, "noticed", || {
        host.crosshost("gc").ok().stdout.contains("t1")
    });
    assert!(leased(&lab, NETWORK).is_empty());
}
