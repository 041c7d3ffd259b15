//! What runtimes with Docker's command line have in common, so that a scenario can be one of either; and the images.
//!
//! All files of a runtime are at their usual places, which a host has of its own: `/etc/nerdctl`, `/run/containerd`,
//! `/var/lib/containers`.

use crate::host::Host;
use crate::processes::{LIMIT, Processes};
use crate::run::{Finished, Running};
use crate::words::Words;

/// A container runtime on a host; all that it runs ends with the value.
pub trait Runtime<'host>: Sized {
    /// The image that each host has: static busybox, whose command serves `/www` at its exposed port 80.
    const IMAGE: &'static str = "busybox";

    /// Starts it, with the image.
    #[track_caller]
    fn start(host: &'host Host) -> Self;

    /// Its processes.
    fn processes(&self) -> &Processes<'host>;

    /// A command of its client, only started: for many at once.
    #[track_caller]
    fn start_client(&self, words: &(impl Words + ?Sized)) -> Running;

    /// The same, run to its end.
    #[track_caller]
    fn client(&self, words: &(impl Words + ?Sized)) -> Finished {
        self.start_client(words).wait(LIMIT)
    }

    /// The host.
    fn host(&self) -> &'host Host {
        self.processes().host()
    }
}

/// Puts the images to be loaded together, unless that is done, and tells the file: an archive as `docker save` writes it,
/// made without a network. `pause` is for pods: the same files, and a command that sleeps.
#[track_caller]
pub(crate) fn images(processes: &Processes) -> &'static str {
    processes.script(IMAGES);
    "/dev/shm/images.tar"
}

const IMAGES: &str = r#"
test ! -e /dev/shm/images.tar || exit 0
made=$(mktemp -d /dev/shm/images.XXXXXX)
cd $made
mkdir -p rootfs/bin rootfs/www rootfs/tmp rootfs/etc
cp "$(command -v busybox)" rootfs/bin/busybox
for applet in sh ping ip httpd sleep wget cat; do ln -s busybox rootfs/bin/$applet; done
echo busybox >rootfs/www/index.html
tar -C rootfs -cf layer.tar .
layer=$(sha256sum layer.tar | cut -d' ' -f1)
image() {
    cat >$1.json <<END
{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:$layer"]},
 "config":{"Env":["PATH=/bin"],"Cmd":$2,"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGKILL"}}
END
    echo "{\"Config\":\"$1.json\",\"RepoTags\":[\"$1:latest\"],\"Layers\":[\"layer.tar\"]}"
}
web=$(image busybox '["httpd","-f","-p","80","-h","/www"]')
echo "[$web,$(image pause '["sleep","1000000"]')]" >manifest.json
tar -cf images.tar manifest.json busybox.json pause.json layer.tar
mv images.tar /dev/shm/images.tar
"#;
