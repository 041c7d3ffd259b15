//! What a guest boots: one of Debian's kernels, and an initramfs with its modules, our static binaries, cnitool, static busybox,
//! and the laboratory's hands and eyes (`ip`, `bridge`, `nft`, `ping`) as this machine has them, with the libraries that they need.

use std::fs::{create_dir_all, set_permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::programs::Programs;

/// A kernel and an initramfs; the files are gone when this value is dropped.
pub struct Image {
    pub(super) kernel: PathBuf,
    folder: TempDir,
}

impl Image {
    /// Makes the image with the kernel of that name: `5.10`, `6.1` or `newest`.
    #[track_caller]
    pub fn new(kernel: &str) -> Image {
        let folder = tempfile::tempdir().expect("a folder for an initramfs");
        let root = folder.path().join("root");
        let places = "proc sys dev run tmp sbin disk etc/crosshost etc/cni var/lib";
        for place in places.split(' ') {
            create_dir_all(root.join(place)).expect("a folder of an initramfs");
        }
        let busybox = Programs::busybox();
        put(&root, &busybox, "bin/busybox");
        // By this name the kernel asks for modules.
        put(&root, &busybox, "sbin/modprobe");
        // As `make install` puts them.
        for file in [
            "opt/cni/bin/overlay",
            "opt/cni/bin/portmap",
            "usr/local/bin/crosshost",
        ] {
            let program = file.rsplit('/').next().unwrap_or_default();
            put(&root, &Programs::product(program), file);
        }
        symlink("overlay", root.join("opt/cni/bin/ipam-kv")).expect("a link to a plugin");
        put(&root, &Programs::cnitool(), "usr/local/bin/cnitool");
        // Busybox's own shell prefers its own `ip` to any other.
        for program in ["sh", "ip", "bridge", "nft", "ping"] {
            borrow(&root, program);
        }
        let init = root.join("init");
        std::fs::write(&init, include_str!("init.sh")).expect("write an init");
        set_permissions(&init, PermissionsExt::from_mode(0o755)).expect("mode of an init");

        let image = Image {
            kernel: Programs::kernel(kernel).join("vmlinuz"),
            folder,
        };
        let modules = std::fs::read(Programs::kernel(kernel).join("modules.cpio"));
        let packed = Command::new("sh")
            .args(["-euc", "find . | \"$0\" cpio -o -H newc"])
            .arg(busybox)
            .current_dir(root)
            .stderr(Stdio::null())
            .output()
            .expect("run cpio");
        assert!(packed.status.success(), "no initramfs: {packed:?}");
        // The kernel unpacks one archive after the other.
        let mut archive = std::fs::File::create(image.initramfs()).expect("an initramfs");
        for part in [packed.stdout, modules.expect("a kernel's modules")] {
            archive.write_all(&part).expect("write an initramfs");
        }
        image
    }

    pub(super) fn initramfs(&self) -> PathBuf {
        self.folder.path().join("initramfs")
    }
}

/// A copy of `file` at `place` below `root`.
#[track_caller]
fn put(root: &Path, file: &Path, place: &str) {
    let copy = root.join(place);
    create_dir_all(copy.parent().unwrap_or(root)).expect("a folder of an initramfs");
    std::fs::copy(file, &copy).unwrap_or_else(|e| panic!("copy {}: {e}", file.display()));
}

/// A program of this machine, with its libraries.
#[track_caller]
fn borrow(root: &Path, program: &str) {
    let said = Command::new("sh")
        .args([
            "-euc",
            "file=$(command -v $0); echo $file; ldd $file",
            program,
        ])
        .output()
        .expect("run ldd");
    assert!(said.status.success(), "no {program}: {said:?}");
    let said = String::from_utf8_lossy(&said.stdout);
    let mut files = said.split_whitespace().filter(|word| word.starts_with('/'));
    let file = files.next().expect("the program's own path");
    put(root, Path::new(file), &format!("bin/{program}"));
    for library in files {
        put(root, Path::new(library), library.trim_start_matches('/'));
    }
}
