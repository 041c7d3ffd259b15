//! Agents that are named by host name. The hosts file and the name servers are those of a mount and network namespace made for
//! the purpose: the test runs itself again inside (`unshare`), so that the machine's own are not touched.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use store::{Config, Entry, Error, open};
use tempfile::TempDir;

use crate::conformance::{key, run};
use crate::fake::Fake;

const INSIDE: &str = "CROSSHOST_TEST_INSIDE";

/// An agent that has one key, whatever is asked.
fn agent() -> Fake {
    Fake::says(
        "200 OK",
        r#"{"Results":[{"KV":{"Key":"a","Value":"","Flags":0,"ModifyIndex":5}}]}"#,
    )
}

/// Reads from the agent `host`, which is `fake`, and checks that it takes less than `limit`.
fn read(host: &str, fake: &Fake, limit: Duration) -> Result<Option<Entry>, Error> {
    let port = fake
        .config()
        .url
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let timeout = Duration::from_secs(2);
    let config = Config {
        url: Some(format!("consul://{host}:{port}")),
        timeout,
        ..Config::default()
    };
    let started = Instant::now();
    let result = run(async { open(&config).unwrap().get(&key("a")).await });
    assert!(started.elapsed() < limit, "{host}: {:?}", started.elapsed());
    result
}

/// Runs the ignored test `name` of this file in namespaces of its own, with these files in `/etc`.
fn inside(name: &str, hosts: &str, resolv_conf: &str) {
    let dir = TempDir::new().unwrap();
    let mount = |file: &str, content: &str| {
        let path = dir.path().join(file);
        fs::write(&path, content).unwrap();
        format!("mount --bind {} /etc/{file}\n", path.display())
    };
    let script = format!(
        "set -e\n{}{}ip link set lo up\nexec \"$0\" --exact names::{name} --ignored --nocapture",
        mount("hosts", hosts),
        mount("resolv.conf", resolv_conf)
    );
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        // A proxy is for others.
        .envs(["HTTP_PROXY", "http_proxy", "ALL_PROXY"].map(|name| (name, "http://127.0.0.1:1")))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
fn a_name_in_the_hosts_file_needs_no_name_server() {
    let hosts = "# ours\n127.0.0.1 localhost\n::1 ip6-localhost\n127.0.0.1\tconsul.example agent # two names\n";
    inside("hosts_file", hosts, "nameserver 127.0.0.1\n");
    inside("hosts_file", hosts, "");
}

#[test]
#[ignore = "runs in namespaces of its own"]
fn hosts_file() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let fake = agent();
    // A name server that never answers, if resolv.conf names one.
    let _silent = UdpSocket::bind("127.0.0.1:53").unwrap();
    for host in ["127.0.0.1", "localhost", "consul.example", "AGENT"] {
        assert!(
            read(host, &fake, Duration::from_millis(1500))
                .unwrap()
                .is_some(),
            "{host}"
        );
    }
    let error = read("unknown.example", &fake, Duration::from_secs(4)).unwrap_err();
    assert!(error.is_away(), "{error:?}");
    let has_server = !fs::read_to_string("/etc/resolv.conf").unwrap().is_empty();
    assert!(
        has_server || error.to_string().contains("host name unknown.example"),
        "{error}"
    );
}

#[test]
fn other_names_are_asked_of_the_name_server() {
    inside(
        "name_server",
        "127.0.0.1 localhost\n",
        "search dc1.example\nnameserver 127.0.0.1\n",
    );
}

#[test]
#[ignore = "runs in namespaces of its own"]
fn name_server() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let fake = agent();
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    thread::spawn(move || serve(&socket));
    for host in ["agent.dc1.example", "agent"] {
        assert!(
            read(host, &fake, Duration::from_millis(1500))
                .unwrap()
                .is_some(),
            "{host}"
        );
    }
    let error = read("nobody.dc1.example", &fake, Duration::from_secs(3)).unwrap_err();
    assert!(
        error.is_away() && error.to_string().contains("host name nobody.dc1.example"),
        "{error}"
    );
}

/// A name server that knows one name, `agent.dc1.example`, and its one IPv4 address, 127.0.0.1 (RFC 1035, 4).
fn serve(socket: &UdpSocket) {
    const NAME: &[u8] = b"\x05agent\x03dc1\x07example\x00";
    let mut packet = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut packet) {
        let query = &packet[..length];
        let end = 12 + query[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
        let question = &query[12..end + 4];
        let known = question[..end - 12].eq_ignore_ascii_case(NAME);
        let found = known && question.ends_with(b"\x00\x01\x00\x01");
        let mut answer = query[..2].to_vec();
        // Answer, recursion desired and available; 3 is NXDOMAIN. Then the counts: questions, answers, and none of the others.
        let flags = [0x81, if known { 0x80 } else { 0x83 }];
        answer.extend(flags);
        answer.extend([0, 1, 0, u8::from(found), 0, 0, 0, 0]);
        answer.extend(question);
        if found {
            answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01");
        }
        socket.send_to(&answer, client).unwrap();
    }
}
