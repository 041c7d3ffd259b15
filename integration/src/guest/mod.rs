//! A host with a kernel of its own: a guest of qemu on the laboratory's underlay.
//!
//! qemu runs inside the laboratory and emulates the processor (TCG), so it needs neither hardware nor a place on the machine's
//! network: the guest's NIC is a tap on the underlay's bridge. The guest's files are in its memory and lost with its power, but for
//! `/etc/crosshost`, `/etc/cni` and `/var/lib`, which are on a disk. What a scenario runs goes to the guest's init (`init.sh`) by
//! a serial port, so that the guest needs no network to be talked to; the kernel's messages leave by another one.

mod console;
mod image;

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

pub use image::Image;

use crate::footprint::Footprint;
use crate::lab::{Lab, over_ipv6};
use crate::namespace::Namespace;
use crate::run::Finished;
use console::Console;

/// A guest; its power is cut when this value is dropped or the test process ends.
pub struct Guest<'lab> {
    name: String,
    address: String,
    number: u8,
    router: &'lab Namespace,
    image: &'lab Image,
    disk: NamedTempFile,
    log: NamedTempFile,
    power: Option<Power>,
}

/// From one power-on to the power cut.
struct Power {
    qemu: Child,
    console: Mutex<Console>,
}

impl<'lab> Guest<'lab> {
    /// Plugs host number `number` into the underlay of `lab`, with an empty disk, and turns it on. It boots while the caller goes on.
    #[track_caller]
    pub fn start(lab: &'lab Lab, image: &'lab Image, number: u8) -> Self {
        let name = format!("docker{number:02}");
        lab.router().script(&format!(
            "ip tuntap add dev {name} mode tap
             ip link set {name} master underlay up"
        ));
        let [disk, log] = [(); 2].map(|()| NamedTempFile::new().expect("a file for a guest"));
        disk.as_file().set_len(64 << 20).expect("a disk's size");
        // No feature that the oldest kernel or this machine's program might lack.
        let made = Command::new("mkfs.ext4")
            .args([
                "-q",
                "-F",
                "-O",
                "none,has_journal,filetype,extent,sparse_super",
            ])
            .arg(disk.path())
            .output()
            .expect("run mkfs.ext4");
        assert!(made.status.success(), "no disk: {made:?}");
        let mut guest = Guest {
            name,
            address: format!("192.168.1.{}", 10 + number),
            number,
            router: lab.router(),
            image,
            disk,
            log,
            power: None,
        };
        guest.power_on();
        guest
    }

    /// The host's name: docker01 and so on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's address on the underlay.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its address of IPv6 there.
    pub fn address6(&self) -> String {
        over_ipv6(&self.address)
    }

    /// Cuts the power: what is not on the disk yet is lost.
    #[track_caller]
    pub fn power_cut(&mut self) {
        self.power = None;
    }

    /// Boots anew, with the disk as it is.
    #[track_caller]
    pub fn power_on(&mut self) {
        let append = format!(
            "console=ttyS0 panic=-1 norandmaps NAME={} ADDRESS={} ADDRESS6={}",
            self.name,
            self.address,
            self.address6()
        );
        let mut qemu = self.router.command("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-accel", "tcg", "-cpu", "max", "-m", "512"])
            .arg("-kernel")
            .arg(&self.image.kernel)
            .arg("-initrd")
            .arg(self.image.initramfs())
            .args(["-append", &append])
            .args(["-serial", &format!("file:{}", self.log.path().display())])
            .args(["-serial", "stdio"])
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=virtio",
                self.disk.path().display()
            ))
            .arg("-netdev")
            .arg(format!(
                "tap,id=underlay,ifname={},script=no,downscript=no",
                self.name
            ))
            .arg("-device")
            .arg(format!(
                "virtio-net-pci,netdev=underlay,mac=52:54:00:00:00:{:02x}",
                self.number
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut qemu = qemu.spawn().expect("start qemu");
        let asks = qemu.stdin.take().expect("a piped standard input");
        let answers = qemu.stdout.take().expect("a piped standard output");
        let console = Mutex::new(Console::new(asks, answers));
        self.power = Some(Power { qemu, console });
    }

    /// Runs a shell script inside, to its end or to the first line that fails.
    #[track_caller]
    pub fn run(&self, script: &str) -> Finished {
        let power = self.power.as_ref().expect("a guest that is on");
        let mut console = power.console.lock().unwrap_or_else(PoisonError::into_inner);
        let ran = console.run(script);
        ran.unwrap_or_else(|cause| {
            panic!(
                "{} {cause} to {script:?}; its kernel:\n{}",
                self.name,
                self.log()
            )
        })
    }

    /// The last of what the kernel and the guest's init have said.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.log.path()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }

    /// Writes a file inside that outlives a power cut if its folder does.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        self.run(&format!(
            "mkdir -p $(dirname {path})\ncat >{path} <<'the end'\n{text}\nthe end\nsync"
        ))
        .ok();
    }

    /// All that a network plugin could leave on this host.
    #[track_caller]
    pub fn footprint(&self) -> Footprint {
        Footprint::taken(|script| self.run(script))
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
