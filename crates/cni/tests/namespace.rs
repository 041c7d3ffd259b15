//! Which network namespaces a plugin is let into.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use kit::{add_with, conf, refused, silent};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

#[test]
fn a_namespace_that_is_none_is_refused_but_not_for_del() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name| dir.path().join(name).display().to_string();
    File::create(path("file")).unwrap();
    let fifo = Command::new("mkfifo").arg(path("fifo")).status().unwrap();
    assert!(fifo.success());
    let own = "it is the plugin's own network namespace";
    for (netns, why) in [
        (path("absent"), "there is nothing at this path"),
        (path("file"), "it is not a network namespace"),
        (path("fifo"), "it is not a network namespace"),
        (path(""), "it is not a network namespace"),
        ("/proc/self/ns/net".into(), own),
        ("/proc/thread-self/ns/net".into(), own),
    ] {
        let netns = format!("CNI_NETNS={netns}");
        let env = |command| {
            let mut env = add_with(&[command, "CNI_NETNS_OVERRIDE=0"]);
            env.retain(|pair| !pair.starts_with("CNI_NETNS="));
            env
        };
        for command in ["CNI_COMMAND=ADD", "CNI_COMMAND=CHECK"] {
            let mut env = env(command);
            env.push(&netns);
            let expected = format!("{}: {why}", netns.replacen('=', ": ", 1));
            assert_eq!(refused(&env, &conf(&json!({}))), (8, expected));
        }
        let mut env = env("CNI_COMMAND=DEL");
        env.push(&netns);
        let said = silent(&env, &conf(&json!({"prevResult": "nonsense"})));
        assert!(said.contains("netns=None"), "{said}");
    }
}

/// A process in a network namespace of its own, that ends with its standard input.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args([
                "--map-root-user",
                "--net",
                "sh",
                "-c",
                "echo there; read line",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut there = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut there)
            .unwrap();
        Self(child)
    }

    fn netns(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn another_namespace_is_handed_to_the_plugin_as_given() {
    let elsewhere = Elsewhere::new();
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(elsewhere.netns(), &link).unwrap();
    for path in [elsewhere.netns(), link] {
        let netns = format!("CNI_NETNS={}", path.display());
        for command in ["CNI_COMMAND=CHECK", "CNI_COMMAND=DEL"] {
            let env = [
                command,
                "CNI_CONTAINERID=c",
                "CNI_IFNAME=e",
                "CNI_PATH=/",
                &netns,
            ];
            let said = silent(&env, &conf(&json!({})));
            assert!(
                said.contains(&format!("netns=Some({:?})", path.display().to_string())),
                "{said}"
            );
        }
    }
}
