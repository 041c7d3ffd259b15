//! A plugin as its runtime sees it: a process with environment, standard input, output and exit code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kit;

use kit::{ADD, add_with, called, conf, ended, error, refused, silent, text};
use serde_json::{Value, json};
use std::fs::File;
use std::process::Stdio;

#[test]
fn without_a_command_it_says_what_it_is() {
    for env in [&[][..], &["CNI_COMMAND="]] {
        let output = ended(called(env), b"");
        assert!(output.status.success());
        assert_eq!(text(&output.stdout), "");
        let about = format!(
            "CNI probe plugin v{}\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n",
            cni::build::BUILD
        );
        assert_eq!(text(&output.stderr), about);
    }
}

#[test]
fn asked_for_its_version_it_says_version_and_commit() {
    let mut asked = called(&[]);
    asked.arg("--version");
    let output = ended(asked, b"");
    assert!(output.status.success());
    let commit = cni::build::COMMIT;
    let said = format!("probe {} ({commit})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&output.stdout), said);
    assert!(
        commit == "unknown" || commit.len() == 8 && commit.bytes().all(|it| it.is_ascii_hexdigit()),
        "{commit}"
    );
    // The protocol comes first: an argument is nothing to a runtime.
    let mut called = called(&["CNI_COMMAND=VERSION"]);
    called.arg("--version");
    let said: Value = serde_json::from_slice(&ended(called, b"").stdout).unwrap();
    assert_eq!(said["cniVersion"], "1.1.0");
}

#[test]
fn version_does_not_wait_for_standard_input() {
    let env = [
        "CNI_COMMAND=VERSION",
        "CNI_CONTAINERID=",
        "CNI_NETNS=dummy",
        "CNI_IFNAME=dummy",
        "CNI_PATH=dummy",
    ];
    let mut child = called(&env).spawn().unwrap();
    let kept_open = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(kept_open);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let versions = json!([
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"
    ]);
    assert_eq!(
        said,
        json!({"cniVersion": "1.1.0", "supportedVersions": versions})
    );
}

#[test]
fn the_environment_is_checked() {
    let conf = conf(&json!({}));
    let (code, msg) = refused(&["CNI_COMMAND=FOO"], &conf);
    assert_eq!(
        (code, msg.as_str()),
        (4, "CNI_COMMAND: FOO is not a CNI command")
    );
    let all = "ADD needs CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH";
    assert_eq!(refused(&["CNI_COMMAND=ADD"], &conf), (4, all.into()));
    let check = refused(&["CNI_COMMAND=CHECK", "CNI_IFNAME=a", "CNI_NETNS="], &conf);
    assert_eq!(
        check,
        (4, "CHECK needs CNI_CONTAINERID, CNI_NETNS, CNI_PATH".into())
    );
    let del = "DEL needs CNI_CONTAINERID, CNI_IFNAME";
    assert_eq!(refused(&["CNI_COMMAND=DEL"], &conf), (4, del.into()));
    for bad in [
        "CNI_CONTAINERID=../x",
        "CNI_IFNAME=a/b",
        "CNI_IFNAME=1234567890123456",
    ] {
        let (code, msg) = refused(&add_with(&[bad]), &conf);
        let (name, value) = bad.split_once('=').unwrap();
        assert_eq!(code, 4);
        assert!(msg.contains(name) && msg.contains(value), "{msg}");
    }
    silent(
        &["CNI_COMMAND=DEL", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0"],
        &conf,
    );
}

#[test]
fn gc_and_status_need_no_container() {
    for command in ["CNI_COMMAND=GC", "CNI_COMMAND=STATUS"] {
        silent(&[command], &conf(&json!({})));
        let empty = [
            "CNI_CONTAINERID=",
            "CNI_NETNS=",
            "CNI_IFNAME=-",
            "CNI_ARGS=",
            command,
        ];
        silent(&empty, &conf(&json!({})));
    }
}

#[test]
fn the_configuration_is_checked() {
    for bad in ["", "{", "[]", "null", "\"x\"", "{} x", "\u{feff}{}"] {
        let error = error(&ended(called(&ADD), bad.as_bytes()));
        assert_eq!(
            (&error["code"], &error["cniVersion"]),
            (&json!(6), &json!("1.1.0")),
            "{bad}"
        );
    }
    assert_eq!(
        error(&ended(called(&ADD), b"{\"name\": \"\xff\"}"))["code"],
        6
    );
    for (more, code, msg) in [
        (
            json!({"cniVersion": "9.9.9"}),
            1,
            r#"cniVersion: "9.9.9" is not supported"#,
        ),
        (
            json!({"cniVersion": "garbage", "name": ""}),
            1,
            r#"cniVersion: "garbage" is not supported"#,
        ),
        (
            json!({"cniVersion": 1}),
            7,
            "cniVersion: invalid type: integer `1`, expected a string",
        ),
        (
            json!({"name": ""}),
            7,
            r#"name: network name "": must not be empty"#,
        ),
        (
            json!({"name": "a/b"}),
            7,
            r#"name: network name "a/b": may hold only letters, digits, '_', '.' and '-'"#,
        ),
        (
            json!({"probe": {"vni": "abc"}}),
            7,
            r#"probe.vni: invalid type: string "abc", expected u32"#,
        ),
        (
            json!({"prevResult": {"ips": [{"address": 1}]}}),
            6,
            "prevResult: ips[0].address: invalid type: integer `1`, expected a string",
        ),
    ] {
        assert_eq!(
            refused(&ADD, &conf(&more)),
            (code, msg.to_owned()),
            "{more}"
        );
    }
    let details = &error(&ended(called(&ADD), br#"{"cniVersion": "9.9.9"}"#))["details"];
    let details = details.as_str().unwrap();
    assert!(
        details.contains("9.9.9") && details.contains("0.3.1"),
        "{details}"
    );
}

#[test]
fn a_verb_needs_a_version_that_has_it() {
    for (command, versions) in [
        ("CNI_COMMAND=CHECK", &["", "0.1.0", "0.3.1"][..]),
        ("CNI_COMMAND=GC", &["0.4.0", "1.0.0"]),
        ("CNI_COMMAND=STATUS", &["0.4.0", "1.0.0"]),
    ] {
        for version in versions {
            let conf = conf(&json!({"cniVersion": version}));
            assert_eq!(
                refused(&add_with(&[command]), &conf).0,
                1,
                "{command} {version}"
            );
        }
    }
    silent(
        &add_with(&["CNI_COMMAND=CHECK"]),
        &conf(&json!({"cniVersion": "0.4.0"})),
    );
}

#[test]
fn a_large_configuration_passes_a_huge_one_is_refused() {
    let label = "x".repeat(1 << 20);
    let previous =
        json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}], "label": label});
    let more = json!({"cniVersion": "1.0.0", "prevResult": previous});
    let output = ended(called(&ADD), conf(&more).to_string().as_bytes());
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said == previous, "the result is passed on unchanged");

    let huge = conf(&json!({"label": "x".repeat(10 << 20)}));
    let (code, msg) = refused(&ADD, &huge);
    assert_eq!(code, 6);
    assert!(msg.contains("larger than 8 MiB"), "{msg}");
}

#[test]
fn results_and_errors_are_in_the_version_of_the_configuration() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let output = ended(
            called(&ADD),
            conf(&json!({"cniVersion": version})).to_string().as_bytes(),
        );
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said, json!({"cniVersion": version}));
    }
    let failing = conf(&json!({"cniVersion": "0.4.0", "probe": {"fail": true}}));
    let failed = error(&ended(called(&ADD), failing.to_string().as_bytes()));
    let object =
        json!({"cniVersion": "0.4.0", "code": 123, "msg": "as ordered", "details": "by the test"});
    assert_eq!(failed, object);
    let nameless = json!({"cniVersion": "0.4.0"}).to_string();
    assert_eq!(
        error(&ended(called(&ADD), nameless.as_bytes()))["cniVersion"],
        "0.4.0"
    );
}

#[test]
fn a_panic_is_one_error_object_too() {
    for order in ["panic", "panic_in_thread"] {
        let conf = conf(&json!({"cniVersion": "1.0.0", "probe": {order: true}}));
        let output = ended(called(&ADD), conf.to_string().as_bytes());
        let error = error(&output);
        assert_eq!(
            (&error["code"], &error["cniVersion"]),
            (&json!(199), &json!("1.0.0"))
        );
        assert!(
            error["msg"]
                .as_str()
                .unwrap()
                .contains("examples/probe.rs:"),
            "{error}"
        );
        assert_eq!(error["details"], "as ordered");
    }
}

#[test]
fn no_reader_of_standard_output() {
    let conf = conf(&json!({})).to_string();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for stdout in [Stdio::from(writer), Stdio::from(full)] {
        let mut command = called(&ADD);
        command.stdout(stdout);
        let output = ended(command, conf.as_bytes());
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(
            said.contains("standard output: ") && !said.contains("internal error"),
            "{said}"
        );
    }
}

#[test]
fn gc_gets_the_attachments_that_stay() {
    let gc = ["CNI_COMMAND=GC"];
    let one = json!([{"containerID": "c1", "ifname": "eth0"}]);
    let two =
        json!([{"containerID": "c2", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth1"}]);
    for (more, count) in [
        (json!({}), 0),
        (json!({"cni.dev/valid-attachments": null}), 0),
        (json!({"cni.dev/valid-attachments": []}), 0),
        (json!({"cni.dev/valid-attachments": one}), 1),
        (json!({"cni.dev/attachments": two}), 2),
        (
            json!({"cni.dev/valid-attachments": null, "cni.dev/attachments": two}),
            2,
        ),
    ] {
        let said = silent(&gc, &conf(&more));
        assert!(said.contains(&format!("valid={count}\n")), "{more}: {said}");
    }
    for (bad, place) in [
        (json!("c1"), "cni.dev/valid-attachments: "),
        (json!({}), "cni.dev/valid-attachments: "),
        (
            json!([{"containerID": "c1"}]),
            "cni.dev/valid-attachments[0]: ",
        ),
        (
            json!([{"containerID": "c1", "ifname": 7}]),
            "cni.dev/valid-attachments[0].ifname: ",
        ),
        (
            json!([{"containerID": "../c", "ifname": "e"}]),
            "cni.dev/valid-attachments[0].containerID: ",
        ),
        (json!(["c1"]), "cni.dev/valid-attachments[0]: "),
    ] {
        let (code, msg) = refused(&gc, &conf(&json!({"cni.dev/valid-attachments": bad})));
        assert_eq!(code, 7);
        assert!(msg.starts_with(place), "{msg}");
    }
}
