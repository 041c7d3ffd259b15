//! One Linux host of the laboratory: its own network, `/run`, `/etc` and `/var/lib`, and its own boot id.
//!
//! The real `/etc` and `/var/lib` are lower layers of overlay mounts, so that a host can have folders
//! there that the machine lacks and nothing is ever written to the machine. The folders which the product
//! and CNI own start empty, whatever the machine has in them. IP forwarding is off, as on any fresh Debian.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::call::Call;
use crate::container::Container;
use crate::footprint::Footprint;
use crate::namespace::Namespace;
use crate::programs::Programs;
use crate::run::{Finished, Running, run};
use crate::words::Words;

/// A host; see [`crate::Lab::new`].
pub struct Host {
    namespace: Namespace,
    vtep: String,
    boot_id: String,
    /// Folder of our binaries that are in use here; none: those under test.
    programs: Mutex<Option<PathBuf>>,
}

impl Host {
    /// Gives a namespace that has its network the files of a host.
    #[track_caller]
    pub(crate) fn furnish(namespace: Namespace, vtep: &str) -> Host {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a uuid");
        let name = namespace.name().to_owned();
        namespace.script(&format!(
            "mount -t tmpfs -o mode=755 run /run
             own=/dev/shm/hosts/{name}
             for folder in /etc /var/lib; do
                 mkdir -p $own$folder/upper $own$folder/work
                 mount -t overlay overlay $folder \
                     -o lowerdir=$folder,upperdir=$own$folder/upper,workdir=$own$folder/work
             done
             for folder in /etc/crosshost /etc/cni /var/lib/crosshost /var/lib/cni; do
                 mkdir -p $folder
                 mount -t tmpfs -o mode=755 own $folder
             done
             mkdir /etc/cni/net.d
             echo {} > $own/boot_id
             mount --bind $own/boot_id /proc/sys/kernel/random/boot_id",
            boot_id.trim()
        ));
        Host {
            namespace,
            vtep: vtep.to_owned(),
            boot_id: boot_id.trim().to_owned(),
            programs: Mutex::new(None),
        }
    }

    /// Exchanges our binaries on this host for those in `folder`, or for the ones under test. What runs goes on.
    pub fn exchange_programs(&self, folder: Option<PathBuf>) {
        *self.programs.lock().unwrap_or_else(PoisonError::into_inner) = folder;
    }

    /// The folder of our binaries on this host.
    pub fn programs(&self) -> PathBuf {
        let folder = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        folder.clone().unwrap_or_else(Programs::product_folder)
    }

    /// One of our binaries on this host.
    #[track_caller]
    pub fn program(&self, name: &str) -> PathBuf {
        let program = self.programs().join(name);
        assert!(
            program.is_file(),
            "{} is missing: run `make build` or `make deps` first",
            program.display()
        );
        program
    }

    /// The host's name: docker01 and so on.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// The host's address on the underlay, its tunnel end.
    pub fn vtep(&self) -> &str {
        &self.vtep
    }

    /// Its address of IPv6 on the underlay.
    pub fn address6(&self) -> String {
        crate::lab::over_ipv6(&self.vtep)
    }

    /// The host's own boot id, until it is booted anew.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The namespaces and files of the host.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs `words` on the host, to the end.
    #[track_caller]
    pub fn run(&self, words: &(impl Words + ?Sized)) -> Finished {
        self.namespace.run(words)
    }

    /// Runs a shell script on the host; a line that fails, fails the test.
    #[track_caller]
    pub fn script(&self, text: &str) {
        self.namespace.script(text);
    }

    /// Writes a file of the host, with the folders above it.
    #[track_caller]
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        self.namespace.write(path, text);
    }

    /// Writes a program of the scenario's own, which anybody may run.
    #[track_caller]
    pub fn write_program(&self, path: &str, text: impl AsRef<[u8]>) {
        self.write(path, text);
        let all = std::fs::Permissions::from_mode(0o755);
        let file = self.namespace.path(path);
        std::fs::set_permissions(file, all).expect("make a program of it");
    }

    /// What `words` print in the sandbox of a network on this host.
    #[track_caller]
    pub fn in_sandbox(&self, network: &str, words: &(impl Words + ?Sized)) -> String {
        let netns = format!("--net=/run/crosshost/netns/{network}");
        let words = [&["nsenter", &netns, "--"], &words.words()[..]].concat();
        self.run(&words).ok().stdout
    }

    /// Whether it sends anything of a network to the tunnel address of another host: it has heard of it.
    #[track_caller]
    pub fn sends_to(&self, network: &str, other: &Host) -> bool {
        let entries = self.in_sandbox(network, "bridge fdb show dev vxlan0");
        entries.contains(&format!(" dst {} ", other.vtep()))
    }

    /// Boots the host anew: containers, their links and rules are gone, `/run` is empty, and the boot id is
    /// the one that comes back; `/etc` and `/var/lib` stay. End the programs that you started here first.
    #[track_caller]
    pub fn reboot(&self) -> String {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a uuid");
        self.namespace.script(&format!(
            "ip -all netns delete
             umount --lazy /run
             mount -t tmpfs -o mode=755 run /run
             for link in $(ip -o link | cut -d' ' -f2 | cut -d@ -f1 | tr -d :); do
                 case $link in lo | ens3) ;; *) ip link delete $link || true ;; esac
             done
             nft flush ruleset
             echo 0 > /proc/sys/net/ipv4/ip_forward
             echo {} > /proc/sys/kernel/random/boot_id",
            boot_id.trim()
        ));
        boot_id.trim().to_owned()
    }

    /// Writes `/etc/crosshost/config.json` with the store at `url`.
    #[track_caller]
    pub fn configure(&self, url: &str) {
        self.configure_store(&json!({ "url": url }));
    }

    /// Writes `/etc/crosshost/config.json` with any `store` object, say one with a token.
    #[track_caller]
    pub fn configure_store(&self, store: &Value) {
        let config = json!({
            "store": store,
            "node": { "name": self.name(), "vtep": self.vtep },
        });
        self.namespace
            .write("/etc/crosshost/config.json", config.to_string());
    }

    /// Makes `node.vtep` of `/etc/crosshost/config.json` another one of the host's addresses.
    #[track_caller]
    pub fn tunnel_from(&self, vtep: &str) {
        self.configure_node(&json!({ "name": self.name(), "vtep": vtep }));
    }

    /// Names the interface to tunnel through in `/etc/crosshost/config.json`, and no address.
    #[track_caller]
    pub fn underlay(&self, interface: &str) {
        self.configure_node(&json!({ "name": self.name(), "underlay": interface }));
    }

    #[track_caller]
    fn configure_node(&self, node: &Value) {
        let path = "/etc/crosshost/config.json";
        let mut config = self.namespace.run(&["cat", path]).ok().json();
        config["node"].clone_from(node);
        self.namespace.write(path, config.to_string());
    }

    /// Lets the host keep a conflist of each network where CNI runtimes look for it; `network` is the rest of that section of
    /// `/etc/crosshost/config.json`.
    #[track_caller]
    pub fn keep_conflists(&self, network: &Value) {
        let path = "/etc/crosshost/config.json";
        let mut config = self.namespace.run(&["cat", path]).ok().json();
        config["network"] = json!({ "conflistDirs": ["/etc/cni/net.d"] });
        for (key, value) in network.as_object().expect("an object") {
            config["network"][key] = value.clone();
        }
        self.namespace.write(path, config.to_string());
    }

    /// Puts a network configuration where CNI runtimes look for it.
    #[track_caller]
    pub fn install(&self, conflist: &Value) {
        let name = conflist["name"].as_str().expect("a conflist with a name");
        let path = format!("/etc/cni/net.d/{name}.conflist");
        self.namespace.write(&path, format!("{conflist:#}"));
    }

    /// A new container: a named network namespace, as a runtime would make it.
    #[track_caller]
    pub fn container(&self, name: &str) -> Container<'_> {
        Container::create(self, name)
    }

    /// A container that is there already.
    pub fn existing(&self, name: &str) -> Container<'_> {
        Container::existing(self, name)
    }

    /// What `CNI_PATH` is on this host: the product's plugins, then the reference ones.
    pub fn cni_path(&self) -> String {
        Programs::cni_path_of(&self.programs())
    }

    /// The operator's command, run to its end.
    #[track_caller]
    pub fn crosshost(&self, words: &(impl Words + ?Sized)) -> Finished {
        let mut command = self.namespace.command(self.program("crosshost"));
        command.args(words.words());
        run(command)
    }

    /// `crosshost sync`, which must succeed.
    #[track_caller]
    pub fn sync(&self) -> Finished {
        self.crosshost("sync").ok()
    }

    /// Creates a network as an operator does.
    #[track_caller]
    pub fn create_network(&self, name: &str, subnet: &str) {
        let words = ["network", "create", name, "--subnet", subnet];
        self.crosshost(&words).ok();
    }

    /// The JSON answer of a command, without its schema and the word above it, which the versions before lack.
    #[track_caller]
    pub fn listed(&self, words: &(impl Words + ?Sized)) -> Value {
        let words = [&words.words()[..], &["--json"]].concat();
        let said = self.crosshost(&words).ok();
        let programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if programs.is_some() && said.json()["schema"].is_null() {
            said.json()
        } else {
            said.answer()
        }
    }

    /// `cnitool VERB NETWORK NETNS` with the configurations of this host, run to its end.
    #[track_caller]
    pub fn cnitool(&self, verb: &str, network: &str, container: &str, ifname: &str) -> Finished {
        run(self.cnitool_command(verb, network, container, ifname))
    }

    /// The same with what a runtime asks of plugins that declare a capability (`CAP_ARGS`).
    #[track_caller]
    pub fn cnitool_asking(
        &self,
        verb: &str,
        network: &str,
        (container, ifname): (&str, &str),
        capabilities: &Value,
    ) -> Finished {
        let mut command = self.cnitool_command(verb, network, container, ifname);
        command.env("CAP_ARGS", capabilities.to_string());
        run(command)
    }

    /// The same, only started: for many at once.
    #[track_caller]
    pub fn start_cnitool(
        &self,
        verb: &str,
        network: &str,
        container: &str,
        ifname: &str,
    ) -> Running {
        Running::start(self.cnitool_command(verb, network, container, ifname), b"")
    }

    fn cnitool_command(&self, verb: &str, network: &str, container: &str, ifname: &str) -> Command {
        let mut command = self.namespace.command(Programs::cnitool());
        command
            .args([verb, network, &format!("/run/netns/{container}")])
            .env("NETCONFPATH", "/etc/cni/net.d")
            .env("CNI_PATH", self.cni_path())
            .env("CNI_IFNAME", ifname);
        command
    }

    /// A call of one of our plugins with any environment and any bytes, as a runtime makes it.
    #[track_caller]
    pub fn call(&self, plugin: &str, verb: &str) -> Call<'_> {
        Call::new(self, self.program(plugin), verb)
    }

    /// A call of a plugin that is none of ours, by its file.
    #[track_caller]
    pub fn call_of(&self, plugin: PathBuf, verb: &str) -> Call<'_> {
        Call::new(self, plugin, verb)
    }

    /// A call of one of Debian's reference plugins.
    #[track_caller]
    pub fn reference(&self, plugin: &str, verb: &str) -> Call<'_> {
        Call::new(self, PathBuf::from(Programs::REFERENCE).join(plugin), verb)
    }

    /// All that a network plugin could leave on this host.
    #[track_caller]
    pub fn footprint(&self) -> Footprint {
        Footprint::of(self)
    }

    /// Insists that nothing came and nothing went since.
    #[track_caller]
    pub fn assert_same_as(&self, before: &Footprint, what: &str) {
        self.footprint().assert_same_as(before, what);
    }
}
