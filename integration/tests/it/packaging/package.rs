//! The Debian package, on a Debian that has nothing of ours and runs systemd: this machine's own root under an overlay, with systemd as
//! the first process of a process namespace, on a laboratory's host.

use std::path::Path;

use integration::{Backend, Finished, Host, LIMIT, Lab, Programs, Running, until};

use super::made;

/// The root of that Debian on the host.
const ROOT: &str = "/dev/shm/debian";

/// Makes the root, and becomes its systemd: without the units that this machine enabled, whose services are not ours to start.
const BOOT: &str = r#"
root=/dev/shm/debian
mkdir -p $root /dev/shm/over
mount -t tmpfs over /dev/shm/over
mkdir /dev/shm/over/upper /dev/shm/over/work
mount -t overlay debian -o lowerdir=/,upperdir=/dev/shm/over/upper,workdir=/dev/shm/over/work $root
mount -t proc proc $root/proc
mount -t sysfs sys $root/sys
mount -t cgroup2 cgroup $root/sys/fs/cgroup
for folder in run tmp dev; do mount -t tmpfs $folder $root/$folder; done
for node in null zero full random urandom tty; do cp -a /dev/$node $root/dev; done
mkdir $root/dev/shm $root/dev/pts $root/dev/net
rm -rf $root/etc/systemd/system/*.wants
# This machine does not start what packages bring; a host does.
rm -f $root/usr/sbin/policy-rc.d
mkdir -p $root/srv/package
cp "$0" $root/srv/package/crosshost.deb
# As the kernel numbers it outside.
read -r pid rest </proc/self/stat
echo $pid >/dev/shm/systemd.pid
cd $root
exec env -i container=laboratory PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=null
"#;

/// Installs the package.
const INSTALL: &str = "dpkg -i /srv/package/crosshost.deb";

struct Debian<'host> {
    host: &'host Host,
    pid: String,
    systemd: Running,
}

impl<'host> Debian<'host> {
    /// Boots it with the package at hand.
    #[track_caller]
    fn boot(host: &'host Host, package: &Path) -> Self {
        let mut command = host.namespace().command("unshare");
        command
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--ipc",
                "--cgroup",
            ])
            .args(["sh", "-euc", BOOT])
            .arg(package);
        let systemd = Running::start(command, b"");
        let pid = host.namespace().path("/dev/shm/systemd.pid");
        until(LIMIT, "systemd starts", || pid.exists());
        let pid = std::fs::read_to_string(pid).expect("a process id");
        let debian = Debian {
            host,
            pid: pid.trim().to_owned(),
            systemd,
        };
        until(LIMIT, "systemd is up", || {
            let state = debian.run("systemctl is-system-running || true").stdout;
            ["running", "degraded"].contains(&state.trim())
        });
        debian
    }

    /// Runs a script in it.
    #[track_caller]
    fn run(&self, script: &str) -> Finished {
        let enter = ["nsenter", "-t", &self.pid, "-m", "-p", "-i", "chroot", ROOT];
        let shell = [
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "sh",
            "-euc",
            script,
        ];
        self.host.run(&[&enter[..], &shell].concat())
    }

    /// All files that a package could leave, and folders where ours are; not what dpkg and systemd keep for themselves.
    #[track_caller]
    fn files(&self) -> Vec<String> {
        let list = "find /etc /usr /opt /var /run /root -xdev ! -type d -printf '%p %s %l\\n'
                    find /opt /etc/crosshost /run/crosshost /var/lib/crosshost -xdev -type d 2>/dev/null || true";
        let listed = self.run(list).ok().stdout;
        let not_ours = [
            "/var/lib/dpkg/",
            "/var/log/",
            "/var/cache/",
            "/run/log/",
            "/run/systemd/",
            "/run/netns",
            "/etc/ld.so.cache",
        ];
        let is_ours = |line: &&str| !not_ours.iter().any(|folder| line.starts_with(folder));
        let mut files: Vec<_> = listed.lines().filter(is_ours).map(str::to_owned).collect();
        files.sort();
        files
    }
}

impl Drop for Debian<'_> {
    fn drop(&mut self) {
        self.systemd.kill();
    }
}

/// What differs, one way.
fn beyond<'l>(more: &'l [String], fewer: &[String]) -> Vec<&'l String> {
    more.iter().filter(|line| !fewer.contains(line)).collect()
}

#[test]
fn the_same_binaries_give_the_same_package() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let [first, second] = folders.each_ref().map(|folder| {
        let file = made("deb", folder.path(), ".deb");
        std::fs::read(file).expect("a package")
    });
    assert!(first == second, "the same commit gives the same package");
}

#[test]
fn containers_live_through_upgrade_and_removal_and_a_purge_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let package = made("deb", folder.path(), ".deb");
    let lab = Lab::new(1, Backend::Consul);
    let debian = Debian::boot(lab.host(1), &package);
    let before = debian.files();
    assert!(before.len() > 1000, "a whole Debian: {}", before.len());
    let installed = debian.run(INSTALL).ok();
    installed.says(&["/etc/crosshost/config.json", "README.Debian"]);
    debian
        .run(
            "test -z \"$(dpkg --verify crosshost)\"
             for folder in /usr/lib/cni /opt/cni/bin; do
                 for name in overlay ipam-kv portmap; do
                     echo '{\"cniVersion\":\"1.0.0\"}' | CNI_COMMAND=VERSION $folder/$name >/dev/null
                 done
             done
             test -e /usr/lib/cni/portmap.reference
             test \"$(systemctl is-enabled crosshost-sync)\" = enabled
             test \"$(systemctl is-active crosshost-sync || true)\" = inactive
             grep -q complete /usr/share/bash-completion/completions/crosshost
             zcat /usr/share/man/man8/crosshost-network-create.8.gz | grep -q subnet
             grep -q CycloneDX /usr/share/doc/crosshost/sbom.cdx.json
             grep -q ADDRESS-OF-CONSUL /usr/share/doc/crosshost/examples/config.json
             test -e /usr/share/doc/crosshost/THIRD-PARTY/glibc/LGPL-2.1",
        )
        .ok();

    // As README.Debian says, and then a network, two containers, and the first ping.
    let cnitool = Programs::cnitool();
    let cnitool = format!("CNI_PATH=/opt/cni/bin {}", cnitool.display());
    let url = lab.store_url();
    let first_ping = format!(
        "sed 's#consul://ADDRESS-OF-CONSUL:8500#{url}#' /usr/share/doc/crosshost/examples/config.json \
             >/etc/crosshost/config.json
         echo 01234567-89ab-cdef-0123-456789abcdef >/etc/crosshost/token
         chmod 600 /etc/crosshost/token
         systemctl start crosshost-sync
         systemctl is-active crosshost-sync
         crosshost network create ov_net1
         for name in t1 t2; do
             ip netns add $name
             {cnitool} add ov_net1 /run/netns/$name >/run/$name
         done
         ip netns exec t1 ping -c 1 -W 5 10.0.0.3
         ip netns exec t1 ping -q -i 0.2 -W 5 10.0.0.3 >/run/pings 2>&1 &
         echo $! >/run/pinging"
    );
    debian.run(&first_ping).ok();
    // An upgrade replaces the files below running containers, and the watcher.
    let upgrade = format!(
        "before=$(systemctl show -P MainPID crosshost-sync)
         {INSTALL}
         systemctl is-active crosshost-sync
         test $before != $(systemctl show -P MainPID crosshost-sync)
         {cnitool} check ov_net1 /run/netns/t1
         test -e /etc/cni/net.d/*ov_net1*"
    );
    debian.run(&upgrade).ok();
    let removed = debian.run("dpkg -r crosshost").ok();
    assert!(removed.stderr.contains("go on running"), "{removed}");
    debian
        .run(
            "test ! -e /usr/lib/cni/portmap.reference
             /usr/lib/cni/portmap 2>&1 </dev/null | grep CNI
             test -z \"$(find /opt /etc/cni -name '*crosshost*' -o -name '*ov_net1*')\"
             test -e /etc/crosshost/config.json
             test -z \"$(pidof crosshost)\"
             ip netns exec t1 ping -c 1 -W 5 10.0.0.3
             kill -INT $(cat /run/pinging)
             for try in 1 2 3 4 5 6 7 8 9; do grep -q ' 0% packet loss' /run/pings && exit; sleep 0.2; done
             cat /run/pings
             false",
        )
        .ok();

    let end = format!(
        "{INSTALL}
         crosshost sync
         for name in t1 t2; do
             {cnitool} del ov_net1 /run/netns/$name
             ip netns delete $name
         done
         crosshost network rm ov_net1
         rm /run/t1 /run/t2 /run/pings /run/pinging
         dpkg -P crosshost"
    );
    debian.run(&end).ok();
    let after = debian.files();
    assert_eq!(beyond(&after, &before), [""; 0], "left by the purge");
    assert_eq!(beyond(&before, &after), [""; 0], "taken by the purge");
}
