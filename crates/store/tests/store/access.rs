//! Ways into a Consul agent: TLS with client certificates, ACL tokens, a socket; and what is said when one is closed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use store::{Config, Error, Op, Store, open};

use crate::agent::{Agent, NEW, OLD};
use crate::conformance::{check, create, key, run};

fn opened(config: &Config) -> Box<dyn Store> {
    open(config).unwrap()
}

/// The words of the error that `config` is refused with before anything is sent.
fn refusal(config: &Config) -> String {
    match open(config) {
        Ok(_) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn tls_needs_the_right_certificates_on_both_sides() {
    for binary in [NEW, OLD] {
        let certs = tempfile::TempDir::new().unwrap();
        certificates(certs.path());
        let file = |name: &str| Some(certs.path().join(name));
        let server = json!({
            "ports": {"https": "PORT", "http": -1}, "verify_incoming": true,
            "ca_file": file("ca.pem"), "cert_file": file("server.pem"), "key_file": file("server.key"),
        });
        let with_all = |agent: &Agent| Config {
            url: Some(format!("consuls://127.0.0.1:{}", agent.port)),
            ca_file: file("ca.pem"),
            cert_file: file("client.pem"),
            key_file: file("client.key"),
            ..Config::default()
        };
        let agent = Agent::start(binary, server, with_all);
        let good = with_all(&agent);
        run(async {
            let store = opened(&good);
            let revision = store.create(&key("tls"), b"1").await.unwrap();
            assert_eq!(
                store
                    .get(&key("tls"))
                    .await
                    .unwrap()
                    .map(|entry| entry.revision),
                revision
            );

            let by_name = Config {
                server_name: Some("server.dc1.consul".into()),
                ..good.clone()
            };
            assert!(opened(&by_name).get(&key("tls")).await.unwrap().is_some());
        });
        for (config, words) in [
            (
                Config {
                    cert_file: None,
                    key_file: None,
                    ..good.clone()
                },
                "ertificate",
            ),
            (
                Config {
                    ca_file: file("other.pem"),
                    ..good.clone()
                },
                "ertificate",
            ),
            (
                Config {
                    ca_file: None,
                    ..good.clone()
                },
                "ertificate",
            ),
            (
                Config {
                    server_name: Some("elsewhere".into()),
                    ..good.clone()
                },
                "certificate not valid for name",
            ),
        ] {
            let error = run(opened(&config).get(&key("tls"))).unwrap_err();
            assert!(matches!(error, Error::Tls { .. }), "{error:?}");
            assert!(
                !error.is_away() && error.to_string().contains(words),
                "{error}"
            );
        }
        // Plain HTTP to a TLS port, which Consul answers in words.
        let plain = Config {
            url: Some(agent.url()),
            ..Config::default()
        };
        let error = run(opened(&plain).get(&key("tls")))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("HTTP 400: Client sent an HTTP request to an HTTPS server"),
            "{error}"
        );
    }
}

#[test]
fn bad_tls_settings_are_named() {
    let dir = tempfile::TempDir::new().unwrap();
    certificates(dir.path());
    let file = |name: &str| Some(dir.path().join(name));
    fs::write(dir.path().join("empty.pem"), "").unwrap();
    let good = Config {
        url: Some("consuls://127.0.0.1".into()),
        ca_file: file("ca.pem"),
        ..Config::default()
    };
    for (config, words) in [
        (
            Config {
                ca_file: file("absent.pem"),
                ..good.clone()
            },
            ["absent.pem", "No such file"],
        ),
        (
            Config {
                ca_file: file("empty.pem"),
                ..good.clone()
            },
            ["empty.pem", "no usable certificate"],
        ),
        (
            Config {
                cert_file: file("client.pem"),
                ..good.clone()
            },
            ["client certificate", "given together"],
        ),
        (
            Config {
                cert_file: file("client.pem"),
                key_file: file("absent.key"),
                ..good.clone()
            },
            ["client key", "absent.key"],
        ),
        (
            Config {
                cert_file: file("client.pem"),
                key_file: file("server.key"),
                ..good.clone()
            },
            ["client certificate", "client.pem"],
        ),
        (
            Config {
                server_name: Some("not a name".into()),
                ..good.clone()
            },
            ["server name", "not a name"],
        ),
    ] {
        let error = refusal(&config);
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    // Without TLS nobody looks at them.
    let plain = Config {
        url: Some("consul://127.0.0.1".into()),
        ca_file: file("absent.pem"),
        ..Config::default()
    };
    assert!(open(&plain).is_ok());
}

#[test]
fn a_token_without_the_right_is_denied_by_key() {
    for binary in [NEW, OLD] {
        let acl = json!({"acl": {"enabled": true, "default_policy": "deny", "tokens": {"master": "root"}}});
        let with = |agent: &Agent, token: &str| Config {
            token: Some(token.into()),
            ..agent.config()
        };
        let agent = Agent::start(binary, acl, |agent| with(agent, "root"));
        let rules =
            r#"key_prefix "mine/" { policy = "write" } key_prefix "seen/" { policy = "read" }"#;
        let secret = token(&agent, rules);
        run(async {
            let root = opened(&with(&agent, "root"));
            root.create(&key("hidden/a"), b"1").await.unwrap();
            root.create(&key("seen/a"), b"1").await.unwrap();

            let store = opened(&with(&agent, &secret));
            store.create(&key("mine/a"), b"1").await.unwrap().unwrap();
            assert_eq!(
                store.read(&[key("mine"), key("seen")]).await.unwrap().len(),
                2
            );
            assert_eq!(
                store.read(&[key("mine/none")]).await.unwrap(),
                [],
                "empty, and allowed to know it"
            );

            let denied = |result: Result<_, Error>, words: &[&str]| {
                let error = result.unwrap_err();
                assert!(
                    matches!(error, Error::Denied { .. }) && !error.is_away(),
                    "{error:?}"
                );
                let error = error.to_string();
                assert!(words.iter().all(|word| error.contains(word)), "{error}");
                assert!(!error.contains(&secret), "{error}");
            };
            let ops: [&[Op]; 3] = [
                &[create(&key("mine/b"), "1"), create(&key("seen/b"), "1")],
                &[
                    create(&key("seen/b"), "1"),
                    create(&key("mine/a"), "conflict"),
                ],
                &[check(&key("hidden/a"), 1), create(&key("mine/b"), "1")],
            ];
            for (ops, denied_key) in ops.into_iter().zip(["seen/b", "seen/b", "hidden/a"]) {
                let result = store.apply(ops).await.map(|_| ());
                denied(
                    result,
                    &["denies write of", denied_key, "Permission denied"],
                );
            }
            assert_eq!(store.get(&key("mine/b")).await.unwrap(), None);
            // Consul shows nothing of what may not be read: that must not pass for an empty store.
            let result = store.read(&[key("mine"), key("hidden")]).await.map(|_| ());
            denied(result, &["denies read of hidden", "Permission denied"]);
            let result = store
                .watch(&key("hidden"), 0, std::time::Duration::ZERO)
                .await
                .map(|_| ());
            denied(result, &["denies read of hidden"]);

            let stranger = opened(&with(&agent, "11111111-2222-3333-4444-555555555555"));
            let result = stranger.read(&[key("mine")]).await.map(|_| ());
            denied(result, &["denies read of mine", "ACL not found"]);
            let result = stranger.create(&key("mine/c"), b"").await.map(|_| ());
            denied(result, &["denies write of mine/c", "ACL not found"]);
            let nobody = opened(&agent.config());
            denied(
                nobody.read(&[key("mine")]).await.map(|_| ()),
                &["denies read of mine"],
            );
        });

        // The same token from a file, as an operator writes one: with a line end.
        let file = agent.dir.path().join("token");
        fs::write(&file, format!("{secret}\n")).unwrap();
        let from_file = Config {
            token_file: Some(file),
            ..agent.config()
        };
        assert!(
            run(opened(&from_file).get(&key("mine/a")))
                .unwrap()
                .is_some()
        );
    }
}

#[test]
fn a_bad_token_is_refused_and_not_shown() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("token");
    for token in [
        "s3cret\nX-Evil: 1",
        "s3cret with spaces",
        "s3cret\u{e9}",
        "s3cret\u{7f}",
    ] {
        let config = Config {
            url: Some("127.0.0.1".into()),
            token: Some(token.into()),
            ..Config::default()
        };
        let error = refusal(&config);
        assert!(
            error.contains("token") && !error.contains("s3cret"),
            "{error}"
        );
        assert!(!format!("{config:?}").contains("s3cret"));
        fs::write(&file, token).unwrap();
        let error = refusal(&Config {
            token: None,
            token_file: Some(file.clone()),
            ..config
        });
        assert!(
            error.contains("token file") && !error.contains("s3cret"),
            "{error}"
        );
    }
    let config = Config {
        url: Some("127.0.0.1".into()),
        token_file: Some(file.clone()),
        ..Config::default()
    };
    fs::write(&file, " \n").unwrap();
    assert!(refusal(&config).contains("is empty"));
    fs::remove_file(&file).unwrap();
    assert!(refusal(&config).contains("No such file"));
}

#[test]
fn an_agent_may_listen_on_a_socket() {
    for binary in [NEW, OLD] {
        let dir = tempfile::TempDir::new().unwrap();
        let socket = dir.path().join("http.sock");
        let server = json!({"addresses": {"http": format!("unix://{}", socket.display())}});
        let reach = |scheme: &str| Config {
            url: Some(format!("{scheme}://{}", socket.display())),
            ..Config::default()
        };
        let agent = Agent::start(binary, server, |_| reach("consul+unix"));
        run(async {
            opened(&reach("consul+unix"))
                .create(&key("a"), b"1")
                .await
                .unwrap()
                .unwrap();
            assert!(
                opened(&reach("unix"))
                    .get(&key("a"))
                    .await
                    .unwrap()
                    .is_some()
            );
        });
        agent.kill();
        let error = run(opened(&reach("unix")).get(&key("a"))).unwrap_err();
        assert!(
            error.is_away() && error.to_string().contains("http.sock"),
            "{error}"
        );
    }
}

/// A certificate authority, one certificate of it for a server and one for a client, and another authority.
fn certificates(dir: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    for name in ["ca", "other"] {
        openssl(&format!(
            "{new} -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ));
    }
    let signed =
        format!("{new} -CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE");
    let names = "subjectAltName=IP:127.0.0.1,DNS:server.dc1.consul";
    openssl(&format!(
        "{signed} -subj /CN=server -addext {names} -keyout server.key -out server.pem"
    ));
    openssl(&format!(
        "{signed} -subj /CN=client -keyout client.key -out client.pem"
    ));
}

/// A token with these rights, made with Consul's own command.
fn token(agent: &Agent, rules: &str) -> String {
    let consul = |arguments: &[&str]| {
        let output = agent
            .command()
            .args(arguments)
            .args(["-token", "root"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    consul(&["acl", "policy", "create", "-name", "test", "-rules", rules]);
    let created = consul(&["acl", "token", "create", "-policy-name", "test"]);
    let secret = created
        .lines()
        .find_map(|line| line.strip_prefix("SecretID:"))
        .unwrap();
    secret.trim().to_owned()
}
