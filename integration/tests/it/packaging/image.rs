//! The image and the `DaemonSet`: what `dist/kubernetes/crosshost.yaml` says is done here with containerd and nerdctl in place of a kubelet.

use integration::{Backend, Containerd, Host, Lab, Runtime as _, until, workspace};

use super::made;

fn manifest() -> String {
    let path = workspace().join("dist/kubernetes/crosshost.yaml");
    std::fs::read_to_string(path).expect("a manifest")
}

/// The text of a key of the `ConfigMap`.
fn of_config_map(manifest: &str, key: &str) -> String {
    let (_, rest) = manifest
        .split_once(&format!("  {key}: |\n"))
        .expect("a key");
    let lines = rest.lines().take_while(|line| line.starts_with("    "));
    lines.map(|line| line[4..].to_owned() + "\n").collect()
}

/// A value of a YAML line such as `- { name: etc, mountPath: /etc/crosshost }`.
fn value<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(&format!("{key}: "))?;
    rest.split([',', ' ', '}']).next()
}

/// A container of the manifest as words for `nerdctl run`: its mounts, and behind the image its arguments.
fn container(manifest: &str, name: &str) -> (Vec<String>, Vec<String>) {
    let (_, part) = manifest
        .split_once(&format!("- name: {name}\n"))
        .expect("a container");
    let part = part.split("- name: ").next().unwrap_or_default();
    let (_, volumes) = manifest.split_once("      volumes:\n").expect("volumes");
    let part = part.split("      volumes:").next().unwrap_or_default();
    let mut options = Vec::new();
    for line in part.lines() {
        let Some(inside) = value(line, "mountPath") else {
            continue;
        };
        let volume = value(line, "name").expect("a volume");
        let row = volumes
            .lines()
            .find(|row| value(row, "name") == Some(volume));
        let outside = row
            .and_then(|row| value(row, "path"))
            .map_or_else(|| format!("/dev/shm/of-kubelet/{volume}"), str::to_owned);
        let how = match value(line, "mountPropagation") {
            Some("Bidirectional") => ":rshared",
            _ if line.contains("readOnly: true") => ":ro",
            _ => "",
        };
        options.extend(["-v".to_owned(), format!("{outside}:{inside}{how}")]);
    }
    if part.contains("privileged: true") {
        options.push("--privileged".to_owned());
    }
    let line = part.lines().find_map(|line| line.split_once("args: ["));
    let (_, arguments) = line.expect("arguments");
    let arguments = arguments.trim_end_matches(']').split(", ");
    (options, arguments.map(str::to_owned).collect())
}

fn run(runtime: &Containerd<'_>, before: &[&str], name: &str) {
    let manifest = manifest();
    let (options, arguments) = container(&manifest, name);
    let mut words = vec!["run", "--net", "host"];
    words.extend(before);
    words.extend(options.iter().map(String::as_str));
    words.push("localhost/crosshost:1.0.0");
    words.extend(arguments.iter().map(String::as_str));
    runtime.client(&words).ok();
}

#[test]
fn the_network_of_the_pods_is_the_shipped_one() {
    let shipped = std::fs::read_to_string(workspace().join("cni-conf/kubernetes.conflist"));
    let own = of_config_map(&manifest(), "10-crosshost.conflist");
    assert_eq!(own, shipped.expect("a conflist"));
}

#[test]
fn the_same_binaries_give_the_same_image() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let [first, second] = folders.each_ref().map(|folder| {
        let file = made("image", folder.path(), ".oci.tar");
        std::fs::read(file).expect("an image")
    });
    assert!(first == second, "the same commit gives the same image");
}

#[test]
fn the_daemon_set_installs_the_plugins_and_its_watcher_mends_the_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = made("image", folder.path(), ".oci.tar");
    let lab = Lab::new(1, Backend::GuardedConsul);
    let host: &Host = lab.host(1);
    host.script("rm -rf /etc/crosshost; mkdir -p /etc/crosshost /etc/cni/net.d /opt/cni/bin /var/lib/crosshost");
    let runtime = Containerd::start(host);
    let image = image.display().to_string();
    runtime.client(&["load", "-q", "-i", &image]).ok();

    // What a kubelet makes of the ConfigMap and the Secret.
    let manifest = manifest();
    let url = lab.store_url();
    let config = of_config_map(&manifest, "config.json");
    let config = config.replace("consul://ADDRESS-OF-CONSUL:8500", &url);
    let rules = r#"key_prefix "crosshost/" { policy = "write" }"#;
    let of_kubelet = "/dev/shm/of-kubelet";
    host.write(&format!("{of_kubelet}/config/config.json"), config);
    let conflist = of_config_map(&manifest, "10-crosshost.conflist");
    host.write(
        &format!("{of_kubelet}/config/10-crosshost.conflist"),
        conflist,
    );
    let token = lab.consul().token(host.name(), rules);
    host.write(&format!("{of_kubelet}/secret/token"), token);
    host.script(&format!("chmod 400 {of_kubelet}/secret/token"));

    run(&runtime, &["--rm"], "settings");
    run(&runtime, &["--rm"], "plugins");
    host.script(
        "test -x /opt/cni/bin/overlay
         test -x /opt/cni/bin/portmap
         test \"$(readlink /opt/cni/bin/ipam-kv)\" = overlay
         test \"$(stat -c %a /etc/crosshost/token)\" = 400
         test -e /etc/cni/net.d/10-crosshost.conflist",
    );
    runtime
        .processes()
        .script("mount --bind /run /run; mount --make-shared /run");
    run(&runtime, &["-d", "--name", "watcher"], "watcher");
    host.script("ip netns add pod");
    let add = "CNI_PATH=/opt/cni/bin:/usr/lib/cni";
    let cnitool = integration::Programs::cnitool().display().to_string();
    let verb = |verb: &str| {
        let line = format!("{add} {cnitool} {verb} pods /run/netns/pod");
        runtime.processes().script(&line);
    };
    verb("add");
    runtime
        .processes()
        .script("nft delete table inet crosshost");
    until(
        integration::LIMIT,
        "the watcher makes the table again",
        || {
            let listed = host.run(&["nft", "list", "table", "inet", "crosshost"]);
            listed.status.success()
        },
    );
    verb("check");
    verb("del");
    runtime.client(&["rm", "-f", "watcher"]).ok();
    host.script("ip netns delete pod");
}
