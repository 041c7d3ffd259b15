//! `make install` into an empty place: every file is there, and those that are for others say what those have to know.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use integration::workspace;

const UNIT: &str = "usr/local/lib/systemd/system/crosshost-sync.service";
const NETWORKD: [&str; 2] = [
    "usr/local/lib/systemd/network/10-crosshost.network",
    "usr/local/lib/systemd/network/10-crosshost.link",
];
const NETWORK_MANAGER: &str = "etc/NetworkManager/conf.d/90-crosshost.conf";

/// The files that `make install` makes, with their modes, and what they say if that is text, or where they lead.
fn installed() -> BTreeMap<String, (u32, String)> {
    let place = tempfile::tempdir().expect("a folder");
    install_into(place.path());
    let mut found = BTreeMap::new();
    collect(place.path(), place.path(), &mut found);
    found
}

fn install_into(place: &Path) {
    let said = Command::new("make")
        .args(["--no-print-directory", "--old-file=build", "install"])
        .arg(format!("DESTDIR={}", place.display()))
        // Of the make that may run this test.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .current_dir(workspace())
        .output()
        .expect("make");
    let complaint = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success(), "{complaint}");
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<String, (u32, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, found);
            continue;
        }
        let mode = entry.metadata().expect("a file").permissions().mode() & 0o777;
        let name = path.strip_prefix(root).expect("below the place");
        let text = if let Ok(file) = std::fs::read_link(&path) {
            format!("link to {}", file.display())
        } else {
            let text = std::fs::read(&path).expect("a file");
            String::from_utf8(text).unwrap_or_default()
        };
        found.insert(name.to_string_lossy().into_owned(), (mode, text));
    }
}

#[test]
fn everything_is_in_its_place() {
    let found = installed();
    let mode = |name: &str| found.get(name).map(|(mode, _)| *mode);
    for program in [
        "opt/cni/bin/overlay",
        "opt/cni/bin/portmap",
        "usr/local/bin/crosshost",
    ] {
        assert_eq!(mode(program), Some(0o755), "{program}");
    }
    let (_, leads) = &found["opt/cni/bin/ipam-kv"];
    assert_eq!(leads, "link to overlay");
    for file in NETWORKD.iter().chain([&UNIT, &NETWORK_MANAGER]) {
        assert_eq!(mode(file), Some(0o644), "{file}");
    }
    assert_eq!(found.len(), 8, "{:?}", found.keys());
}

#[test]
fn daemons_that_manage_interfaces_are_told_which_are_ours() {
    let found = installed();
    // As `crates/overlay/src/names.rs` makes them.
    let names = ["ch-egress", "chp*", "che*", "chg*", "chh*", "gw0"];
    let line = |file: &str, start: &str| {
        let (_, text) = &found[file];
        let line = text.lines().find_map(|line| line.strip_prefix(start));
        line.unwrap_or_else(|| panic!("no {start} in {text}"))
            .to_owned()
    };
    let devices = line(NETWORK_MANAGER, "unmanaged-devices+=");
    let wanted = names.map(|name| format!("interface-name:{name}"));
    assert_eq!(devices.split(';').collect::<Vec<_>>(), wanted);
    assert_eq!(line(NETWORKD[0], "Name="), names.join(" "));
    assert_eq!(line(NETWORKD[0], "Unmanaged="), "yes");
    assert_eq!(line(NETWORKD[1], "OriginalName="), names.join(" "));
    assert_eq!(line(NETWORKD[1], "MACAddressPolicy="), "none");
}

#[test]
fn the_unit_starts_what_is_installed_and_shares_the_hosts_mounts() {
    let found = installed();
    let (_, unit) = &found[UNIT];
    let lines: Vec<_> = unit.lines().collect();
    for line in [
        "Type=notify",
        "Restart=on-failure",
        "ExecStart=/usr/local/bin/crosshost sync --watch",
        "ExecReload=kill -HUP $MAINPID",
    ] {
        assert!(lines.contains(&line), "no {line} in {unit}");
    }
    // Each of these gives a service mounts of its own (systemd.exec(5)), in which it would not see the plugins' namespaces.
    let apart = [
        "ProtectSystem",
        "ProtectHome",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectProc",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateNetwork",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "InaccessiblePaths",
        "TemporaryFileSystem",
        "BindPaths",
        "RuntimeDirectory",
        "DynamicUser",
        "MountFlags",
        "RootDirectory",
    ];
    for line in lines.iter().filter(|line| !line.starts_with('#')) {
        let (key, _) = line.split_once('=').unwrap_or((line, ""));
        assert!(!apart.contains(&key), "{line}");
    }
}

/// Installers of other networks bring a `portmap`, and `cp` writes through a link: into all plugins, were it one.
#[test]
fn a_portmap_that_others_copy_over_ours_leaves_the_other_plugins_alone() {
    let place = tempfile::tempdir().expect("a folder");
    install_into(place.path());
    let folder = place.path().join("opt/cni/bin");
    let before = std::fs::read(folder.join("overlay")).expect("a plugin");
    std::fs::write(folder.join("portmap"), "another").expect("a copy");
    for plugin in ["overlay", "ipam-kv"] {
        let now = std::fs::read(folder.join(plugin)).expect("a plugin");
        assert!(now == before, "{plugin} is as it was");
    }
}
