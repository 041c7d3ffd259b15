//! Running the probe plugin as a runtime would.

#![allow(dead_code, reason = "each test file uses some of it")]

use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// `examples/probe.rs`, which cargo builds along with the tests.
pub(crate) fn probe() -> Command {
    let exe = std::env::current_exe().unwrap();
    let program = exe.ancestors().nth(2).unwrap().join("examples/probe");
    assert!(program.exists(), "build the examples: cargo test -p cni");
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A probe called with `env`, `K=V` each.
pub(crate) fn called(env: &[&str]) -> Command {
    let mut command = probe();
    command.envs(env.iter().map(|pair| pair.split_once('=').unwrap()));
    command
}

pub(crate) fn ended(mut command: Command, stdin: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    // A plugin that refuses may not read to the end.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The one object on standard output of a plugin that failed.
#[track_caller]
pub(crate) fn error(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Code and message of a refusal.
#[track_caller]
pub(crate) fn refused(env: &[&str], conf: &Value) -> (u64, String) {
    let error = error(&ended(called(env), conf.to_string().as_bytes()));
    let msg = error["msg"].as_str().unwrap().to_owned();
    (error["code"].as_u64().unwrap(), msg)
}

/// Standard error of a success that printed nothing.
#[track_caller]
pub(crate) fn silent(env: &[&str], conf: &Value) -> String {
    let output = ended(called(env), conf.to_string().as_bytes());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr).to_owned()
}

pub(crate) fn conf(more: &Value) -> Value {
    let mut conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "probe"});
    for (key, value) in more.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

/// An ADD in our own namespace, which the override allows.
pub(crate) const ADD: [&str; 6] = [
    "CNI_COMMAND=ADD",
    "CNI_CONTAINERID=c1",
    "CNI_IFNAME=eth0",
    "CNI_NETNS=/proc/self/ns/net",
    "CNI_PATH=/opt/cni/bin",
    "CNI_NETNS_OVERRIDE=True",
];

/// The environment of [`ADD`] with changes: `K=V` sets, empty is unset.
pub(crate) fn add_with(changes: &[&'static str]) -> Vec<&'static str> {
    let mut env = ADD.to_vec();
    for change in changes {
        let key = change.split('=').next().unwrap();
        env.retain(|pair| pair.split('=').next() != Some(key));
        env.push(change);
    }
    env
}
