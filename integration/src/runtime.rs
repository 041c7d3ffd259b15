//! A real container runtime on a host: Debian's containerd and runc, and nerdctl as its client.
//!
//! containerd, its shims and the containers detach from who started them. So they live in a process namespace of the
//! host, whose init waits on a pipe from the test process: it ends with the value, on panic and when the test is killed,
//! and the kernel ends all others with it. Mounts made inside are the host's and the other way round (shared), all but
//! `/proc`. The cgroups, which the machine's hosts share, are below one name of each host and removed last.
//!
//! All files are at their usual places, which a host has of its own: `/etc/nerdctl`, `/run/containerd`, `/var/lib/nerdctl`.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::Host;
use crate::programs::Programs;
use crate::run::{Finished, Running};

/// How long a command of the runtime may take.
const LIMIT: Duration = Duration::from_mins(2);

/// containerd on a host; all that it runs ends with this value.
pub struct Containerd<'host> {
    host: &'host Host,
    /// Waits for the end of the namespace's init, then removes the cgroups.
    anchor: Child,
    init: u32,
}

impl<'host> Containerd<'host> {
    /// The image that each host has: static busybox, whose command serves `/www` at its exposed port 80.
    pub const IMAGE: &'static str = "busybox";

    /// Starts containerd and brings in the image.
    #[track_caller]
    pub fn start(host: &'host Host) -> Self {
        let space = host.space();
        let namespace = format!("crosshost-{}", space.pid());
        space.write("/etc/containerd/config.toml", CONTAINERD);
        let (nerdctl, tools) = (NERDCTL, Programs::cni_path());
        let plugins = "/dev/shm/cni-plugins";
        space.write(
            "/etc/nerdctl/nerdctl.toml",
            format!("{nerdctl}namespace = \"{namespace}\"\ncni_path = \"{plugins}\"\n"),
        );
        // nerdctl looks into one folder only.
        space.script(&format!(
            "mkdir -p {plugins}
             for folder in $(echo {tools} | tr : ' '); do
                 for plugin in $folder/*; do
                     test ! -f $plugin || test -e {plugins}/${{plugin##*/}} || ln -s $plugin {plugins}
                 done
             done
             mount --make-rshared /"
        ));
        let mut command = space.command("sh");
        command
            .args(["-uc", ANCHOR, "anchor", &namespace, host.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut anchor = command.spawn().expect("start a shell");
        let mut byte = [0];
        let ready = anchor
            .stdout
            .as_mut()
            .expect("a pipe")
            .read_exact(&mut byte);
        ready.expect("a namespace of processes");
        let init = only_child(only_child(anchor.id()));
        let started = Containerd { host, anchor, init };
        started.start_daemon();
        started.script(IMAGE);
        started.nerdctl(&["load", "-i", "/dev/shm/image.tar"]).ok();
        started
    }

    /// The host.
    pub fn host(&self) -> &'host Host {
        self.host
    }

    /// A command that will run beside containerd.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let path = format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            Programs::runtime_path()
        );
        command
            .args([
                "-t",
                &self.init.to_string(),
                "-m",
                "-n",
                "-p",
                "--",
                program,
            ])
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/run")
            .env("LC_ALL", "C");
        command
    }

    /// `nerdctl WORDS`, run to its end.
    #[track_caller]
    pub fn nerdctl(&self, words: &[&str]) -> Finished {
        self.start_nerdctl(words).wait(LIMIT)
    }

    /// The same, only started: for many at once.
    #[track_caller]
    pub fn start_nerdctl(&self, words: &[&str]) -> Running {
        let mut command = self.command("nerdctl");
        command.args(words);
        Running::start(command, b"")
    }

    /// Runs a shell script among the runtime's processes; any failing line fails the test.
    #[track_caller]
    pub fn script(&self, text: &str) -> String {
        let mut command = self.command("sh");
        command.args(["-euc", text]);
        Running::start(command, b"").wait(LIMIT).ok().stdout
    }

    /// `crosshost WORDS`, where it sees the runtime's processes.
    #[track_caller]
    pub fn crosshost(&self, words: &[&str]) -> Finished {
        let program = Programs::product("crosshost");
        let mut command = self.command(&program.to_string_lossy());
        command.args(words);
        Running::start(command, b"").wait(LIMIT)
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
        self.script(&format!("kill -KILL {pid}"));
    }

    /// Ends a container's shim by SIGKILL.
    #[track_caller]
    pub fn kill_shim(&self, container: &str) {
        let pid = self.inspect(container)["State"]["Pid"].clone();
        self.script(&format!(
            "shim=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/{pid}/status)
             case $(cat /proc/$shim/comm) in containerd-shim*) kill -KILL $shim ;; *) exit 1 ;; esac"
        ));
    }

    /// Ends containerd by SIGKILL; its containers go on.
    #[track_caller]
    pub fn kill_daemon(&self) {
        self.script("kill -KILL $(cat /run/containerd.pid)");
    }

    /// Starts containerd, for the first time or again.
    #[track_caller]
    pub fn start_daemon(&self) {
        self.script(
            "containerd </dev/null >>/dev/shm/containerd-$$.log 2>&1 &
             echo $! >/run/containerd.pid",
        );
        let started = Instant::now();
        while !self.nerdctl(&["ps", "-q"]).status.success() {
            assert!(started.elapsed() < LIMIT, "containerd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        drop(self.anchor.stdin.take());
        let _ = self.anchor.wait();
    }
}

/// The one child of a process of the kit.
#[track_caller]
fn only_child(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("a living process");
    children.trim().parse().expect("one child")
}

const CONTAINERD: &str = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";

const NERDCTL: &str = "snapshotter = \"native\"\ncgroup_manager = \"cgroupfs\"\n";

/// Its words: the name of the cgroups, the host's name. A shell waits for all processes that lost their parent.
const ANCHOR: &str = r#"
host=$2
export host
unshare --pid --fork --kill-child --mount --propagation unchanged -- sh -euc '
    mount --make-rprivate /proc
    mount -t proc proc /proc
    mount --bind /dev/shm/hosts/$host/boot_id /proc/sys/kernel/random/boot_id
    exec 3<&0
    cat <&3 >/dev/null &
    echo
    exec >/dev/null
    wait $!'
for folder in /sys/fs/cgroup/$1 /sys/fs/cgroup/*/$1; do
    test ! -d "$folder" || find "$folder" -depth -type d -exec rmdir {} ';'
done
"#;

/// An archive as `docker save` writes it, put together without a network.
const IMAGE: &str = r#"
test ! -e /dev/shm/image.tar || exit 0
made=$(mktemp -d /dev/shm/image.XXXXXX)
cd $made
mkdir -p rootfs/bin rootfs/www rootfs/tmp rootfs/etc
cp "$(command -v busybox)" rootfs/bin/busybox
for applet in sh ping ip httpd sleep wget cat; do ln -s busybox rootfs/bin/$applet; done
echo busybox >rootfs/www/index.html
tar -C rootfs -cf layer.tar .
layer=$(sha256sum layer.tar | cut -d' ' -f1)
cat >config.json <<END
{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:$layer"]},
 "config":{"Env":["PATH=/bin"],"Cmd":["httpd","-f","-p","80","-h","/www"],
           "ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGKILL"}}
END
echo '[{"Config":"config.json","RepoTags":["busybox:latest"],"Layers":["layer.tar"]}]' >manifest.json
tar -cf image.tar manifest.json config.json layer.tar
mv image.tar /dev/shm/image.tar
"#;
