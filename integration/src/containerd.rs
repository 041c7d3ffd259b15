//! containerd on a host, Debian's 1.6 with runc, and its clients: nerdctl, or crictl, which speaks to it as a kubelet does.

use serde_json::Value;

use crate::host::Host;
use crate::processes::{LIMIT, Processes};
use crate::programs::Programs;
use crate::run::{Finished, Running};
use crate::runtime::{Runtime, images};
use crate::until::until;
use crate::words::Words;

/// containerd on a host; all that it runs ends with this value.
pub struct Containerd<'host> {
    processes: Processes<'host>,
    /// What succeeds as soon as containerd serves.
    probe: [&'static str; 3],
}

/// The folder with links to all plugins: nerdctl and the CRI look into one folder only.
const PLUGINS: &str = "/dev/shm/cni-plugins";

/// Where the CRI keeps its images and containers.
const OF_KUBERNETES: &str = "k8s.io";

impl<'host> Runtime<'host> for Containerd<'host> {
    fn start(host: &'host Host) -> Self {
        let processes = Processes::start(host);
        // What nerdctl runs is in a cgroup named like the namespace.
        let cgroup = processes.cgroup().to_owned();
        Self::configured(processes, &cgroup, WITHOUT_CRI, ["nerdctl", "ps", "-q"])
    }

    fn processes(&self) -> &Processes<'host> {
        &self.processes
    }

    fn start_client(&self, words: &(impl Words + ?Sized)) -> Running {
        self.processes
            .spawn(&[&["nerdctl"], &words.words()[..]].concat())
    }
}

impl<'host> Containerd<'host> {
    /// Starts containerd as kubelets know it, with the image and one to hold pods.
    #[track_caller]
    pub fn start_cri(host: &'host Host) -> Self {
        host.namespace().write("/etc/crictl.yaml", CRICTL);
        let processes = Processes::start(host);
        Self::configured(processes, OF_KUBERNETES, WITH_CRI, ["crictl", "pods", "-q"])
    }

    #[track_caller]
    fn configured(
        processes: Processes<'host>,
        cgroup: &str,
        config: &str,
        probe: [&'static str; 3],
    ) -> Self {
        let namespace = processes.host().namespace();
        namespace.write("/etc/containerd/config.toml", config);
        namespace.write(
            "/etc/nerdctl/nerdctl.toml",
            format!("{NERDCTL}namespace = \"{cgroup}\"\ncni_path = \"{PLUGINS}\"\n"),
        );
        let folders = Programs::cni_path();
        namespace.script(&format!(
            "mkdir -p {PLUGINS}
             for folder in $(echo {folders} | tr : ' '); do
                 for plugin in $folder/*; do
                     test ! -f $plugin || test -e {PLUGINS}/${{plugin##*/}} || ln -s $plugin {PLUGINS}
                 done
             done"
        ));
        let started = Containerd { processes, probe };
        started.start_daemon();
        let archive = images(&started.processes);
        started.nerdctl(&["load", "-q", "-i", archive]).ok();
        started
    }

    /// `nerdctl WORDS`, run to its end.
    #[track_caller]
    pub fn nerdctl(&self, words: &(impl Words + ?Sized)) -> Finished {
        self.client(words)
    }

    /// `crictl WORDS`, run to its end.
    #[track_caller]
    pub fn crictl(&self, words: &(impl Words + ?Sized)) -> Finished {
        self.processes
            .run(&[&["crictl"], &words.words()[..]].concat())
    }

    /// What `nerdctl inspect` in Docker's form knows of a container.
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Value {
        self.nerdctl(&["inspect", container]).ok().json()[0].clone()
    }

    /// Ends a container's process by SIGKILL, behind the runtime's back.
    #[track_caller]
    pub fn kill_process(&self, container: &str) {
        let pid = self.inspect(container)["State"]["Pid"].clone();
        self.processes.script(&format!("kill -KILL {pid}"));
    }

    /// Ends a container's shim by SIGKILL.
    #[track_caller]
    pub fn kill_shim(&self, container: &str) {
        let pid = self.inspect(container)["State"]["Pid"].clone();
        self.processes.script(&format!(
            "shim=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/{pid}/status)
             case $(cat /proc/$shim/comm) in containerd-shim*) kill -KILL $shim ;; *) exit 1 ;; esac"
        ));
    }

    /// Ends containerd by SIGKILL; its containers go on.
    #[track_caller]
    pub fn kill_daemon(&self) {
        self.processes
            .script("kill -KILL $(cat /run/containerd.pid)");
    }

    /// Starts containerd, for the first time or again.
    #[track_caller]
    pub fn start_daemon(&self) {
        self.processes.script(
            "containerd </dev/null >>/dev/shm/containerd-$$.log 2>&1 &
             echo $! >/run/containerd.pid",
        );
        until(LIMIT, "answered by containerd", || {
            self.processes.run(&self.probe).status.success()
        });
    }
}

const WITHOUT_CRI: &str = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";

const WITH_CRI: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:latest"
# Nobody needs CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/dev/shm/cni-plugins"
conf_dir = "/etc/cni/net.d"
"#;

const NERDCTL: &str = "snapshotter = \"native\"\ncgroup_manager = \"cgroupfs\"\n";

const CRICTL: &str = "runtime-endpoint: unix:///run/containerd/containerd.sock\n";
