//! Delegation: a plugin is a shell script here, the caller is the library.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use cni::{Call, CniResult, Command, ContainerId, Delegate, Error, IfName, Ip};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A directory with a plugin `ipam` that runs `script`.
fn plugin(script: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("ipam");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A call of the interface plugin `probe`, with `more` in its configuration.
fn call(cni_path: &str, more: &Value) -> Call {
    let mut conf =
        json!({"cniVersion": "1.0.0", "name": "net", "type": "probe", "ipam": {"type": "ipam"}});
    for (key, value) in more.as_object().unwrap() {
        conf[key] = value.clone();
    }
    let env = [
        ("CNI_COMMAND", "DEL"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_ARGS", "IgnoreUnknown=1;K=V"),
        ("CNI_PATH", cni_path),
        ("PATH", "/usr/bin:/bin"),
        ("TRACEPARENT", "00-1-1-01"),
    ];
    let pair = |(key, value)| (OsString::from(key), OsString::from(value));
    Call::new(env.map(pair).to_vec(), conf.to_string().into_bytes()).unwrap()
}

fn path(dir: &TempDir) -> String {
    dir.path().display().to_string()
}

fn added(script: &str) -> Result<CniResult, Error> {
    let dir = plugin(script);
    let call = call(&path(&dir), &json!({}));
    Delegate::find(&call, "ipam")?.add()
}

fn deleted(script: &str) -> Result<(), Error> {
    let dir = plugin(script);
    let call = call(&path(&dir), &json!({}));
    Delegate::find(&call, "ipam")?.del()
}

#[test]
fn the_first_regular_file_of_the_path_is_it() {
    let (a, b) = (tempfile::tempdir().unwrap(), plugin("exit 0"));
    fs::create_dir(a.path().join("ipam")).unwrap();
    let call = call(&format!(":{}:{}:/nowhere", path(&a), path(&b)), &json!({}));
    let found = Delegate::find(&call, "ipam").unwrap();
    assert_eq!(found.program(), b.path().join("ipam"));

    let error = Delegate::find(&call, "other").unwrap_err();
    assert_eq!(
        (error.code, error.msg.as_str()),
        (7, "plugin other is in no directory of CNI_PATH")
    );
    assert!(error.details.contains("/nowhere"));
}

#[test]
fn what_cannot_be_a_delegate() {
    let dir = plugin("exit 0");
    let call_ = call(&path(&dir), &json!({}));
    for name in ["", ".", "..", "../ipam", "/bin/sh"] {
        assert_eq!(
            Delegate::find(&call_, name).unwrap_err().code,
            7,
            "{name:?}"
        );
    }
    let own = Delegate::find(&call_, "probe").unwrap_err();
    assert_eq!(
        (own.code, own.msg.as_str()),
        (7, "plugin probe cannot delegate to itself")
    );
    let error = Delegate::find(&call("", &json!({})), "ipam")
        .unwrap_err()
        .code;
    assert_eq!(error, 4);
}

#[test]
fn it_gets_the_same_bytes_and_environment() {
    let dir = plugin(
        r#"d=${0%/*}; cat >"$d/stdin"; env >"$d/env"; echo '{"ips": [{"address": "10.0.0.2/24"}]}'"#,
    );
    let call = call(
        &path(&dir),
        &json!({"runtimeConfig": {"ips": ["10.0.0.2"]}, "x": "\u{e9}"}),
    );
    let result = Delegate::find(&call, "ipam").unwrap().add().unwrap();
    assert_eq!(result.ips, [Ip::new("10.0.0.2/24".parse().unwrap())]);
    assert_eq!(fs::read(dir.path().join("stdin")).unwrap(), call.stdin);
    let env = fs::read_to_string(dir.path().join("env")).unwrap();
    // The shell adds these.
    let shell = |line: &&str| {
        !["PWD=", "_=", "SHLVL=", "OLDPWD="]
            .iter()
            .any(|own| line.starts_with(own))
    };
    let mut got: Vec<&str> = env.lines().filter(shell).collect();
    let line =
        |(key, value): &(OsString, OsString)| format!("{}={}", key.display(), value.display());
    let mut sent: Vec<String> = call.env.iter().map(line).collect();
    sent[0] = "CNI_COMMAND=ADD".into();
    // Ours, by which a plugin that was named as its own IPAM plugin notices it.
    sent.push("CROSSHOST_DELEGATED=1".into());
    got.sort_unstable();
    sent.sort_unstable();
    assert_eq!(got, sent);
}

#[test]
fn each_verb_is_passed_on() {
    let dir = plugin(r#"echo "$CNI_COMMAND" >>"${0%/*}/verbs"; echo ignored"#);
    let call = call(&path(&dir), &json!({}));
    let ipam = Delegate::find(&call, "ipam").unwrap();
    ipam.del().unwrap();
    ipam.check().unwrap();
    ipam.status().unwrap();
    ipam.gc(&[]).unwrap();
    let verbs = fs::read_to_string(dir.path().join("verbs")).unwrap();
    assert_eq!(verbs, "DEL\nCHECK\nSTATUS\nGC\n");
}

#[test]
fn a_gc_spares_what_is_at_work_beside_what_is_listed() {
    let dir = plugin(r#"cat >"${0%/*}/stdin""#);
    let (key, at_work) = (
        "cni.dev/valid-attachments",
        (ContainerId::new("b").unwrap(), IfName::new("eth1").unwrap()),
    );
    let entry = |container: &str, ifname: &str| json!({"containerID": container, "ifname": ifname});
    for listed in [json!(null), json!([entry("a", "eth0")])] {
        let call = call(&path(&dir), &json!({key: listed, "x": "kept"}));
        let ipam = Delegate::find(&call, "ipam").unwrap();
        ipam.gc(std::slice::from_ref(&at_work)).unwrap();
        let passed = fs::read(dir.path().join("stdin")).unwrap();
        let passed: Value = serde_json::from_slice(&passed).unwrap();
        let mut wanted: Vec<_> = listed.as_array().cloned().unwrap_or_default();
        wanted.push(entry("b", "eth1"));
        assert_eq!(passed[key], json!(wanted));
        assert_eq!(passed["x"], "kept");
    }
}

#[test]
fn results_in_forms_that_ipam_plugins_use() {
    assert_eq!(added("echo null").unwrap(), CniResult::default());
    assert_eq!(added("echo '{}'").unwrap(), CniResult::default());
    let old = added(r#"echo '{"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}}'"#).unwrap();
    assert_eq!(old.ips, [Ip::new("10.0.0.2/24".parse().unwrap())]);
    for bad in [
        "true",
        "echo '{'",
        "echo '[]'",
        r#"echo '{"ips": [{"address": "x"}]}'"#,
    ] {
        let error = added(bad).unwrap_err();
        assert_eq!(error.code, 6, "{bad}");
        assert!(error.msg.contains("/ipam: result: "), "{}", error.msg);
    }
}

#[test]
fn its_error_is_passed_on_unchanged() {
    let script = r#"echo '{"cniVersion": "1.0.0", "code": 111, "msg": "no address left", "details": "pool a"}'; echo noise >&2; exit 3"#;
    let expected = Error::new(111, "no address left").with_details("pool a");
    assert_eq!(added(script).unwrap_err(), expected);
    assert_eq!(deleted(script).unwrap_err(), expected);
}

#[test]
fn an_end_without_an_error_object() {
    let silent = deleted("echo why >&2; exit 3").unwrap_err();
    assert_eq!((silent.code, silent.details.as_str()), (198, "why"));
    assert!(
        silent
            .msg
            .ends_with("/ipam failed (exit status: 3), and said nothing"),
        "{}",
        silent.msg
    );

    let strange = deleted("echo so; echo why >&2; exit 3").unwrap_err();
    assert_eq!((strange.code, strange.details.as_str()), (6, "so\nwhy"));

    let killed = deleted("kill -9 $$").unwrap_err();
    assert_eq!(killed.code, 198);
    assert!(
        killed.msg.contains("was killed by signal 9 (SIGKILL)"),
        "{}",
        killed.msg
    );

    let told_before = deleted(r#"echo '{"code": 199, "msg": "internal"}'; kill -ABRT $$"#);
    assert_eq!(told_before.unwrap_err(), Error::new(199, "internal"));
}

#[test]
fn a_file_that_cannot_be_run() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("ipam")).unwrap();
    let call = call(&path(&dir), &json!({}));
    let error = Delegate::find(&call, "ipam").unwrap().del().unwrap_err();
    assert_eq!(error.code, 5);
    assert!(error.msg.contains("/ipam: "), "{}", error.msg);
}

#[test]
fn a_binary_that_is_being_replaced_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("ipam");
    fs::copy("/bin/true", &program).unwrap();
    let writer = File::options().append(true).open(&program).unwrap();
    let call = call(&path(&dir), &json!({}));
    let ipam = Delegate::find(&call, "ipam").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            drop(writer);
        });
        ipam.del().unwrap();
    });
}

/// As a process, so that it is seen what reaches the runtime: the result once, the noise on standard error.
#[test]
fn large_both_ways_without_a_deadlock() {
    let size = 1 << 20;
    // Writes all of its output before it reads, and reads all before it ends.
    let dir = plugin(&format!(
        r#"printf '{{"label": "'; head -c {size} /dev/zero | tr '\0' x
        head -c 300000 /dev/zero | tr '\0' y >&2; echo '"}}'; cat >"${{0%/*}}/stdin""#
    ));
    let label = "x".repeat(size);
    let conf = kit::conf(&json!({"label": label, "ipam": {"type": "ipam"}})).to_string();
    let mut command = kit::called(&kit::ADD);
    command
        .env("CNI_PATH", dir.path())
        .env("PATH", "/usr/bin:/bin");
    let output = kit::ended(command, conf.as_bytes());
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said == json!({"cniVersion": "1.1.0", "label": label}));
    assert!(fs::read_to_string(dir.path().join("stdin")).unwrap() == conf);
    let noise = kit::text(&output.stderr).matches('y').count();
    assert!(noise >= 300_000, "{noise}");
}

#[test]
fn too_much_output_is_refused_not_kept() {
    let error = added("head -c 9000000 /dev/zero").unwrap_err();
    assert_eq!(error.code, 6);
    assert!(
        error.msg.ends_with("result: larger than 8 MiB"),
        "{}",
        error.msg
    );
}

#[test]
fn it_need_not_read() {
    let dir = plugin("exec <&-; echo null");
    let call = call(&path(&dir), &json!({"label": "x".repeat(1 << 20)}));
    Delegate::find(&call, "ipam").unwrap().add().unwrap();
}

#[test]
fn what_it_leaves_behind_does_not_hold_us() {
    let dir = plugin("sleep 20 & echo $! >${0%/*}/pid; echo null");
    let call = call(&path(&dir), &json!({}));
    let start = Instant::now();
    Delegate::find(&call, "ipam").unwrap().add().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    let kill = std::process::Command::new("kill").arg(pid.trim()).status();
    assert!(kill.unwrap().success(), "it was still there");
}

/// Whether the process whose number is in `file` is there.
fn lives(file: &Path) -> bool {
    let pid = fs::read_to_string(file).unwrap();
    Path::new("/proc").join(pid.trim()).exists()
}

#[test]
fn it_runs_beside_the_caller() {
    let dir = plugin(
        "d=${0%/*}; cat >/dev/null; touch $d/started; while [ ! -e $d/go ]; do sleep 0.01; done; echo null",
    );
    let call = call(&path(&dir), &json!({}));
    let running = Delegate::find(&call, "ipam").unwrap().start(Command::Add);
    let start = Instant::now();
    while !dir.path().join("started").exists() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "it does not wait to be waited for"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    File::create(dir.path().join("go")).unwrap();
    assert_eq!(running.result().unwrap(), CniResult::default());
}

#[test]
fn dropped_it_is_waited_for() {
    let dir = plugin("d=${0%/*}; echo $$ >$d/pid; sleep 0.2; touch $d/done; echo null");
    let call = call(&path(&dir), &json!({}));
    drop(Delegate::find(&call, "ipam").unwrap().start(Command::Add));
    assert!(dir.path().join("done").exists());
    assert!(!lives(&dir.path().join("pid")));
}

#[test]
fn one_that_does_not_end_is_killed_at_the_limit() {
    let dir = plugin("echo $$ >${0%/*}/pid; exec sleep 60");
    let call = call(&path(&dir), &json!({}));
    let find = || Delegate::find(&call, "ipam").unwrap();
    let start = Instant::now();
    let error = find().within(Duration::from_millis(300)).add().unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(error.code, 198);
    assert!(
        error
            .msg
            .ends_with("/ipam has not ended within 300ms, and was killed"),
        "{}",
        error.msg
    );
    assert!(!lives(&dir.path().join("pid")));
    // A plugin that is slow, but ends within its limit, is not killed.
    let dir = plugin("sleep 0.3; echo null");
    let call = crate::call(&path(&dir), &json!({}));
    let slow = Delegate::find(&call, "ipam").unwrap();
    slow.within(Duration::from_secs(30)).add().unwrap();
}

#[test]
fn those_of_an_add_that_was_given_up_are_known_by_their_environment() {
    let dir = plugin("sleep 60 & echo $! >${0%/*}/pid; wait");
    let mut call = call(&path(&dir), &json!({}));
    // Other tests of this process have plugins at work for the usual container.
    for (key, value) in &mut call.env {
        if key == "CNI_CONTAINERID" {
            *value = "given-up".into();
        }
    }
    let adding = Delegate::find(&call, "ipam").unwrap().start(Command::Add);
    let (pid, start) = (dir.path().join("pid"), Instant::now());
    while fs::read_to_string(&pid).is_ok_and(|it| it.is_empty()) || !pid.exists() {
        assert!(start.elapsed() < Duration::from_secs(10), "it begins");
        std::thread::sleep(Duration::from_millis(5));
    }
    for (container, ifname) in [
        ("given", "eth0"),
        ("given-up", "eth1"),
        ("given-up2", "eth0"),
    ] {
        assert_eq!(cni::end_abandoned(container, ifname), 0);
    }
    assert!(lives(&pid));
    // The plugin and what it has started.
    assert_eq!(cni::end_abandoned("given-up", "eth0"), 2);
    let error = adding.result().unwrap_err();
    assert!(error.msg.contains("SIGKILL"), "{}", error.msg);
    assert_eq!(cni::end_abandoned("given-up", "eth0"), 0);
}
