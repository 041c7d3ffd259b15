//! The binaries as `make build` leaves them: static, stripped, small. They go to hosts that have
//! neither our libraries nor, on a container host's plugin folder, room to spare.

use std::process::Command;

use integration::Programs;

const NAMES: [&str; 4] = ["overlay", "ipam-kv", "portmap", "crosshost"];
const PLUGINS: [&str; 3] = Programs::PLUGINS;
/// Bytes of each.
const MOST: u64 = 6 << 20;

#[test]
fn are_static() {
    for name in NAMES {
        let said = Command::new("ldd").arg(Programs::product(name)).output();
        let said = said.expect("ldd, of libc-bin");
        let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
        let is_static = ["statically linked", "not a dynamic executable"];
        assert!(
            is_static.iter().any(|words| text.contains(words)),
            "{name}: {text}"
        );
    }
}

#[test]
fn are_stripped() {
    for name in NAMES {
        let said = Command::new("readelf")
            .args(["--section-headers", "--wide"])
            .arg(Programs::product(name))
            .output()
            .expect("readelf, of binutils");
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(text.contains(".text"), "{name}: {text}");
        for section in [".symtab", ".debug_"] {
            assert!(!text.contains(section), "{name} has {section}");
        }
    }
}

#[test]
fn are_small() {
    for name in NAMES {
        let size = std::fs::metadata(Programs::product(name))
            .expect("a file")
            .len();
        assert!(size < MOST, "{name} has {size} bytes");
    }
}

#[test]
fn all_plugins_are_one_file() {
    let file = |name: &str| std::fs::canonicalize(Programs::product(name)).expect("a file");
    for name in PLUGINS {
        assert_eq!(file(name), file("overlay"), "{name}");
    }
}

/// The plugin is the one that the file's name says, whatever the folder and whether link or copy.
#[test]
fn a_plugin_is_found_by_its_name_and_by_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |file: &str, verb: Option<&str>| {
        let mut command = Command::new(folder.path().join(file));
        command.env_clear();
        command.envs(verb.map(|verb| ("CNI_COMMAND", verb)));
        integration::Running::start(command, b"").wait(integration::LIMIT)
    };
    for name in PLUGINS {
        for (file, linked) in [
            (name.to_owned(), true),
            (format!("crosshost-{name}"), false),
        ] {
            let (product, path) = (Programs::product(name), folder.path().join(&file));
            if linked {
                std::os::unix::fs::symlink(product, path).expect("a link");
            } else {
                Programs::copy(&product, &path);
            }
            let words = format!("CNI {name} plugin v");
            assert!(said(&file, None).ok().stderr.starts_with(&words), "{file}");
            said(&file, Some("VERSION")).ok().json();
        }
    }
    let unnamed = folder.path().join("crosshost-cni");
    Programs::copy(&Programs::product("overlay"), &unnamed);
    let words = ["crosshost-cni", "overlay, ipam-kv, portmap"];
    let by_hand = said("crosshost-cni", None).failed();
    assert!(
        words.iter().all(|it| by_hand.stderr.contains(it)),
        "{by_hand}"
    );
    assert_eq!(by_hand.stdout, "");
    for verb in ["ADD", "DEL", "VERSION"] {
        said("crosshost-cni", Some(verb)).refused(7, &words);
    }
}

#[test]
fn only_the_command_judges_foreign_rules() {
    let remedy = b"firewall-cmd --panic-off";
    for name in NAMES {
        let bytes = std::fs::read(Programs::product(name)).expect("a file");
        let has = bytes.windows(remedy.len()).any(|it| it == remedy);
        assert_eq!(has, name == "crosshost", "{name}");
    }
}

#[test]
fn say_what_is_wrong_whatever_the_environment_asks_for() {
    // Without unwind tables a library that takes a backtrace on its own would abort instead.
    let said = Command::new(Programs::product("crosshost"))
        .args(["network", "ls"])
        .env("CROSSHOST_CONFIG", "/nonexistent/config.json")
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("crosshost");
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(3), "{text}");
    assert!(text.contains("/nonexistent/config.json"), "{text}");
}
