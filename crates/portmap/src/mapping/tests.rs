//! What is read, and what is refused with key and value.

use super::*;
use serde_json::json;

fn one(value: Value) -> Result<String, String> {
    let read = read(&[value], "list");
    read.map(|list| list[0].to_string()).map_err(|error| {
        assert_eq!(error.code, cni::code::CONFIG);
        error.msg.clone()
    })
}

#[test]
fn both_spellings_and_the_text_say_the_same() {
    for (value, text) in [
        (
            json!({"hostPort": 8080, "containerPort": 80}),
            "8080:80/tcp",
        ),
        (
            json!({"HostPort": 8080, "ContainerPort": 80, "Protocol": "UDP", "HostIP": ""}),
            "8080:80/udp",
        ),
        (
            json!({"hostPort": 53, "containerPort": 53, "protocol": "sctp", "hostIP": "0.0.0.0"}),
            "0.0.0.0:53:53/sctp",
        ),
        (
            json!({"hostPort": 0, "containerPort": 80, "hostIP": "::"}),
            "[::]:0:80/tcp",
        ),
        (
            json!({"hostPort": 1, "containerPort": 80, "hostIP": "::ffff:10.0.0.1"}),
            "10.0.0.1:1:80/tcp",
        ),
        (
            json!({"hostPort": 8000, "hostPortEnd": 8010, "containerPort": 80, "containerPortEnd": 90}),
            "8000-8010:80-90/tcp",
        ),
        (
            json!({"hostPort": 1, "hostPortEnd": 65535, "containerPort": 1, "containerPortEnd": 65535}),
            "1-65535:1-65535/tcp",
        ),
        (json!("8000-8010:80-90"), "8000-8010:80-90/tcp"),
        (json!("127.0.0.1:53:53/udp"), "127.0.0.1:53:53/udp"),
        (json!("[2001:db8::1]:80:80"), "[2001:db8::1]:80:80/tcp"),
        (json!("80"), "0:80/tcp"),
        (json!("10.0.0.1::80"), "10.0.0.1:0:80/tcp"),
    ] {
        assert_eq!(one(value.clone()).as_deref(), Ok(text), "{value}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_key_and_value() {
    for (value, why) in [
        (
            json!({"hostPort": 80}),
            "containerPort: 0 is not a port (1 to 65535)",
        ),
        (
            json!({"hostPort": 70000, "containerPort": 80}),
            "hostPort: 70000 is not a port",
        ),
        (
            json!({"hostPort": -1, "containerPort": 80}),
            "hostPort: -1 is not a port",
        ),
        (
            json!({"hostPort": 80, "containerPort": 65536}),
            "containerPort: 65536",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}),
            "\"icmp\" is not tcp, udp or sctp",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "hostIP": "all"}),
            "hostIP: \"all\" is not an IP address",
        ),
        (json!({"hostPort": "80", "containerPort": 80}), "hostPort"),
        (
            json!({"hostPort": 80, "hostPortEnd": 79, "containerPort": 80, "containerPortEnd": 81}),
            "80-79 is not a run",
        ),
        (
            json!({"hostPort": 80, "hostPortEnd": 89, "containerPort": 80}),
            "10 ports cannot lead to 1",
        ),
        (
            json!({"hostPort": 0, "containerPort": 80, "containerPortEnd": 81}),
            "0 chooses one port",
        ),
        (json!("80:http"), "\"http\" is not a port"),
        (json!("80:+80"), "\"+80\" is not a port"),
        (json!("-1:80"), "\"-1\" is not a port"),
        (json!("80:80/gre"), "not tcp, udp or sctp"),
        (json!(80), "80"),
    ] {
        let said = one(value.clone()).unwrap_err();
        assert!(
            said.contains(why) && said.starts_with("list[0]: "),
            "{value}: {said}"
        );
    }
}

#[test]
fn what_overlaps_must_agree() {
    let list = |texts: &[&str]| {
        let list: Vec<_> = texts.iter().map(|text| json!(text)).collect();
        read(&list, "list")
            .map(|list| list.len())
            .map_err(|error| error.msg.clone())
    };
    assert_eq!(list(&["80:80", "80:80"]), Ok(1));
    assert_eq!(
        list(&["80:80", "80:80/udp", "81:80", "0.0.0.0:82:80", "[::]:82:81"]),
        Ok(5)
    );
    assert_eq!(list(&["10.0.0.1:80:80", "10.0.0.2:80:81"]), Ok(2));
    assert_eq!(list(&["0:80", "0:81", "80:80"]), Ok(3));
    assert_eq!(list(&["8000-8010:80-90", "127.0.0.1:8005:85"]), Ok(2));
    for no in [
        ["80:80", "80:81"],
        ["80:80", "127.0.0.1:80:81"],
        ["8000-8010:80-90", "8010-8020:80-90"],
        ["0.0.0.0:80:80", "80:81"],
    ] {
        let said = list(&no).unwrap_err();
        assert!(said.contains("overlaps with "), "{said}");
    }
    let many = ["1-65535:1-65535", "1-65535:1-65535/udp"];
    assert!(list(&many).unwrap_err().contains("131070 ports"));
}
