//! Where the programs are that the laboratory runs: ours, cnitool, Consul, the reference plugins of Debian and of
//! upstream.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("integration/ lies in the workspace")
}

/// Finds programs, or stops the test with what to run first.
pub struct Programs;

impl Programs {
    /// Debian's containernetworking-plugins.
    pub const REFERENCE: &str = "/usr/lib/cni";

    /// The plugins, which are one program under these names.
    pub const PLUGINS: [&str; 3] = ["overlay", "ipam-kv", "portmap"];

    /// The folder of our static binaries: `CROSSHOST_BIN`, or `bin/` of the workspace. In a folder of cargo's, where the plugins'
    /// program has the name of its package, the plugins are made links to it, as `make build` makes them.
    #[track_caller]
    pub fn product_folder() -> PathBuf {
        static FOLDER: OnceLock<PathBuf> = OnceLock::new();
        let folder = FOLDER.get_or_init(|| {
            let folder = std::env::var_os("CROSSHOST_BIN").map(PathBuf::from);
            let folder = folder.unwrap_or_else(|| workspace().join("bin"));
            if folder.join(PROGRAM).is_file() {
                for name in Self::PLUGINS {
                    link(&folder, name);
                }
            }
            folder
        });
        folder.clone()
    }

    /// Our binaries in a folder where `ipam-kv` is a copy: there `overlay` starts it as a process of its own.
    #[track_caller]
    pub fn with_ipam_apart() -> TempDir {
        let folder = tempfile::tempdir().expect("a folder for binaries");
        for name in Self::PLUGINS.iter().chain(&["crosshost"]) {
            let (product, file) = (Self::product(name), folder.path().join(name));
            if *name == "ipam-kv" {
                Self::copy(&product, &file);
            } else {
                symlink(product, file).expect("a link to a binary");
            }
        }
        folder
    }

    /// Copies a binary. Not in this process: another thread that starts a program while the copy is open for writing keeps it open,
    /// and then nobody can run it.
    #[track_caller]
    pub fn copy(file: &Path, to: &Path) {
        let copied = Command::new("cp").arg(file).arg(to).status();
        assert!(copied.is_ok_and(|it| it.success()), "{}", to.display());
    }

    /// One of our binaries.
    #[track_caller]
    pub fn product(name: &str) -> PathBuf {
        existing(Self::product_folder().join(name), "make build")
    }

    /// The CNI project's own command line client.
    #[track_caller]
    pub fn cnitool() -> PathBuf {
        existing(workspace().join("target/tools/cnitool"), "make deps")
    }

    /// Upstream's `portmap` 1.9, which has the backend of nftables that Debian's lacks.
    #[track_caller]
    pub fn upstream_portmap() -> PathBuf {
        existing(
            workspace().join("target/tools/upstream-portmap"),
            "make deps",
        )
    }

    /// Consul 1.14.11. Never one on PATH: what a test says is of one version.
    #[track_caller]
    pub fn consul() -> PathBuf {
        existing(workspace().join("target/tools/consul"), "make deps")
    }

    /// The folder of our own binaries as an earlier commit has them.
    #[track_caller]
    pub fn previous(commit: &str) -> PathBuf {
        let folder = workspace().join("target/tools/previous").join(commit);
        existing(folder.join("crosshost"), "make deps");
        folder
    }

    /// The oldest Consul that we support, Debian bullseye's.
    #[track_caller]
    pub fn oldest_consul() -> PathBuf {
        existing(
            workspace().join("target/tools/consul-1.8.7/usr/bin/consul"),
            "make deps",
        )
    }

    /// The folders of container runtimes and their clients, as in `PATH`: containerd, nerdctl, crictl, podman, conmon, runc;
    /// and of static busybox.
    #[track_caller]
    pub fn runtime_path() -> String {
        let tools = workspace().join("target/tools");
        let programs = [
            "nerdctl",
            "crictl",
            "podman/usr/bin/podman",
            "podman/usr/bin/conmon",
            "containerd/usr/bin/containerd",
            "containerd/usr/sbin/runc",
            "containerd/bin/busybox",
        ];
        let folders = programs.map(|program| {
            let file = existing(tools.join(program), "make deps");
            file.parent()
                .map(|folder| folder.display().to_string())
                .unwrap_or_default()
        });
        folders.join(":")
    }

    /// Debian's static busybox.
    #[track_caller]
    pub fn busybox() -> PathBuf {
        existing(
            workspace().join("target/tools/containerd/bin/busybox"),
            "make deps",
        )
    }

    /// The folder of one of Debian's kernels, with its `vmlinuz` and its `modules.cpio`.
    #[track_caller]
    pub fn kernel(name: &str) -> PathBuf {
        let folder = workspace().join("target/tools/kernels").join(name);
        existing(folder.join("vmlinuz"), "make test-vm");
        folder
    }

    /// Where a test puts plugins under other names; the laboratory's own.
    pub const MORE_PLUGINS: &str = "/dev/shm/plugins";

    /// What a runtime would put into `CNI_PATH`: ours first, then the reference plugins.
    pub fn cni_path() -> String {
        Self::cni_path_of(&Self::product_folder())
    }

    /// The same with ours from another folder.
    pub fn cni_path_of(ours: &Path) -> String {
        let (reference, more) = (Self::REFERENCE, Self::MORE_PLUGINS);
        format!("{}:{reference}:{more}", ours.display())
    }
}

/// The plugins' program, as cargo calls it.
const PROGRAM: &str = "crosshost-cni";

/// Makes `name` a link to the program, unless it is. Tests do this at the same time, so the link is put in its place by a rename.
#[track_caller]
fn link(folder: &Path, name: &str) {
    let file = folder.join(name);
    if std::fs::read_link(&file).is_ok_and(|leads| leads == Path::new(PROGRAM)) {
        return;
    }
    let new = folder.join(format!("{name}.{}", std::process::id()));
    let linked = symlink(PROGRAM, &new).and_then(|()| std::fs::rename(&new, &file));
    linked.unwrap_or_else(|e| panic!("link {}: {e}", file.display()));
}

#[track_caller]
fn existing(file: PathBuf, remedy: &str) -> PathBuf {
    assert!(
        file.is_file(),
        "{} is missing: run `{remedy}` first",
        file.display()
    );
    file
}
