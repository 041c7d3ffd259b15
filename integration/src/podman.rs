//! podman on a host: Debian's 4.3 with its CNI backend, conmon and runc.
//!
//! podman has no daemon. A conmon for each container outlives the command, and starts `podman container cleanup` when the
//! container ends: that one sends the DEL unless `podman stop` or `podman rm` did.

use crate::host::Host;
use crate::processes::Processes;
use crate::programs::Programs;
use crate::run::{Finished, Running};
use crate::runtime::{Runtime, images};
use crate::words::Words;

/// podman on a host; all that it runs ends with this value.
pub struct Podman<'host> {
    processes: Processes<'host>,
}

impl<'host> Runtime<'host> for Podman<'host> {
    fn start(host: &'host Host) -> Self {
        let namespace = host.namespace();
        let plugins = Programs::cni_path().replace(':', "\", \"");
        let path = Processes::path();
        namespace.write(
            "/etc/containers/containers.conf",
            format!(
                "[containers]\nseccomp_profile = \"unconfined\"\n\
                 [network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{plugins}\"]\n\
                 [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
                 conmon_env_vars = [\"PATH={path}\"]\n"
            ),
        );
        namespace.write("/etc/containers/storage.conf", STORAGE);
        namespace.write("/etc/containers/policy.json", POLICY);
        let processes = Processes::start(host);
        let started = Podman { processes };
        let archive = images(&started.processes);
        started.podman(&["load", "-q", "-i", archive]).ok();
        started
    }

    fn processes(&self) -> &Processes<'host> {
        &self.processes
    }

    /// What it runs is below the host's cgroup.
    fn start_client(&self, words: &(impl Words + ?Sized)) -> Running {
        let below = format!("--cgroup-parent=/{}", self.processes.cgroup());
        match &words.words()[..] {
            ["run", others @ ..] => self
                .processes
                .spawn(&[&["podman", "run", &below], others].concat()),
            words => self.processes.spawn(&[&["podman"], words].concat()),
        }
    }
}

impl Podman<'_> {
    /// `podman WORDS`, run to its end.
    #[track_caller]
    pub fn podman(&self, words: &(impl Words + ?Sized)) -> Finished {
        self.client(words)
    }
}

const STORAGE: &str = "[storage]\ndriver = \"vfs\"\n\
    runroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n";

const POLICY: &str = "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}\n";
