//! Pods, as a kubelet asks for them: containerd's CRI on two hosts, driven by crictl, with the conflist for Kubernetes.

use crate::runtimes::lifecycle::{assert_no_lease, held_by, page_at, shipped};
use integration::{Backend, Containerd, Footprint, LIMIT, Lab, Runtime, until};
use serde_json::json;

/// A pod with one container, whose port 80 is a port of the host.
struct Pod<'lab, 'it> {
    on: &'it Containerd<'lab>,
    id: String,
    container: String,
    address: String,
}

impl<'lab, 'it> Pod<'lab, 'it> {
    #[track_caller]
    fn run(on: &'it Containerd<'lab>, name: &str, port: u16) -> Self {
        let [pod, container] = configs(on, name, port);
        let id = on.crictl(&["runp", &pod]).ok().stdout.trim().to_owned();
        let created = on.crictl(&["create", &id, &container, &pod]).ok();
        let container = created.stdout.trim().to_owned();
        on.crictl(&["start", &container]).ok();
        let status = on.crictl(&["inspectp", &id]).ok().json();
        let address = &status["status"]["network"]["ip"];
        Pod {
            on,
            address: address.as_str().expect("an address").to_owned(),
            id,
            container,
        }
    }

    /// A command in the container.
    #[track_caller]
    fn exec(&self, words: &[&str]) -> String {
        let exec = ["exec", "--sync", &self.container];
        self.on.crictl(&[&exec, words].concat()).ok().stdout
    }

    /// What a kubelet says of a pod that is over.
    #[track_caller]
    fn stop_and_remove(&self) {
        self.on.crictl(&["stopp", &self.id]).ok();
        self.on
            .crictl(&["rmp", &self.id])
            .ok()
            .says(&["Removed sandbox"]);
    }
}

/// The files that crictl wants of a pod and of its container.
#[track_caller]
fn configs(on: &Containerd, name: &str, port: u16) -> [String; 2] {
    let pod = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "attempt": 0 },
        "hostname": name,
        "port_mappings": [{ "protocol": 0, "container_port": 80, "host_port": port }],
        "linux": { "cgroup_parent": format!("/{}", on.processes().cgroup()) },
    });
    let container = json!({
        "metadata": { "name": name },
        "image": { "image": "docker.io/library/busybox:latest" },
        "linux": {},
    });
    [("pod", pod), ("container", container)].map(|(kind, config)| {
        let file = format!("/dev/shm/hosts/{}/{name}-{kind}.json", on.host().name());
        on.host().write(&file, config.to_string());
        file
    })
}

/// containerd with its CRI on each host, which finds the conflist when it comes.
#[track_caller]
fn prepared(lab: &Lab) -> (Vec<Containerd<'_>>, Vec<Footprint>) {
    let runtimes: Vec<_> = lab.hosts().iter().map(Containerd::start_cri).collect();
    for runtime in &runtimes {
        runtime.processes().crosshost("sync").ok();
        assert!(!is_network_ready(runtime), "before there is a network");
        runtime.host().install(&shipped("kubernetes.conflist"));
        until(LIMIT, "the network is ready", || is_network_ready(runtime));
    }
    (runtimes, lab.footprints())
}

/// Whether a kubelet would place pods here.
#[track_caller]
fn is_network_ready(runtime: &Containerd) -> bool {
    let info = runtime.crictl("info").ok().json();
    let conditions = info["status"]["conditions"].as_array().expect("conditions");
    let of_network = conditions.iter().find(|it| it["type"] == "NetworkReady");
    of_network.expect("one of the network")["status"] == true
}

/// Insists that a host has so many addresses in use.
#[track_caller]
fn assert_leases(on: &Containerd, count: usize, when: &str) {
    let held = held_by(on.host());
    assert_eq!(held.len(), count, "{when}: {held:#?}");
}

#[test]
fn pods_of_two_hosts_reach_each_other_and_their_ports() {
    let lab = Lab::new(2, Backend::Consul);
    let (runtimes, before) = prepared(&lab);
    let pods: Vec<_> = runtimes
        .iter()
        .map(|it| Pod::run(it, "web", 8080))
        .collect();
    for pod in &pods {
        for other in &pods {
            pod.exec(&["ping", "-c", "1", "-W", "2", &other.address]);
            let published = format!("{}:8080", other.on.host().vtep());
            let page = page_at(pod.on.host(), &published);
            assert_eq!(page.as_deref(), Some("busybox\n"), "{published}");
            let page = pod.exec(&["wget", "-qO-", &format!("http://{published}/")]);
            assert_eq!(page.trim(), "busybox", "{published}, from a pod");
        }
    }
    for pod in &pods {
        pod.stop_and_remove();
    }
    lab.assert_same_as(&before, "after the last pod");
    assert_no_lease(&lab);
}

#[test]
fn a_pod_ends_whole_whatever_died_before() {
    let lab = Lab::new(1, Backend::Consul);
    let (runtimes, before) = prepared(&lab);
    let runtime = &runtimes[0];
    let host_address = runtime.host().vtep();
    let pod = Pod::run(runtime, "web", 8080);
    let other = Pod::run(runtime, "other", 8081);

    // A kubelet asks again and again: a refused pod must not use up anything.
    let [late, _] = configs(runtime, "late", 8080);
    for _ in 0..2 {
        let said = runtime.crictl(&["runp", &late]).failed();
        let holder = format!("8080/tcp: eth0 of container {}", pod.id);
        assert!(said.stderr.contains(&holder), "{said}");
        assert_leases(runtime, 3, "two pods and the host itself");
    }

    // Its processes die at once, containerd as well, and comes back.
    let status = runtime.crictl(&["inspectp", &pod.id]).ok().json();
    let pid = status["info"]["pid"].clone();
    runtime.kill_daemon();
    runtime.processes().script(&format!("kill -KILL {pid}"));
    runtime.start_daemon();
    let page = page_at(runtime.host(), &format!("{host_address}:8081"));
    assert_eq!(page.as_deref(), Some("busybox\n"), "the other pod goes on");
    pod.stop_and_remove();
    assert_leases(runtime, 2, "the other pod and the host itself");
    // A kubelet that was not heard says it again.
    runtime.crictl(&["stopp", &other.id]).ok();
    runtime.crictl(&["stopp", &other.id]).ok();
    other.stop_and_remove();
    lab.assert_same_as(&before, "after the last pod");
    assert_no_lease(&lab);
}
