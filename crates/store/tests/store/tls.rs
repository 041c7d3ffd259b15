//! TLS in both directions: the client checks the agent's certificate, the agent the client's.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use store::{Config, Error, open};

use crate::access::{opened, refusal};
use crate::agent::{Agent, NEW, OLD};
use crate::conformance::{key, run};

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

            let by_folder = Config {
                ca_file: None,
                ca_path: file("authorities"),
                ..good.clone()
            };
            assert!(opened(&by_folder).get(&key("tls")).await.unwrap().is_some());
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
    let empty = Config {
        ca_file: None,
        ca_path: file("authorities/no"),
        ..good.clone()
    };
    fs::create_dir(dir.path().join("authorities/no")).unwrap();
    let error = refusal(&empty);
    assert!(error.contains("authorities/no: no usable"), "{error}");
    let absent = Config {
        ca_path: file("nowhere"),
        ..empty
    };
    let error = refusal(&absent);
    assert!(error.contains("nowhere: No such file"), "{error}");
    // Without TLS they are not read.
    let plain = Config {
        url: Some("consul://127.0.0.1".into()),
        ca_file: file("absent.pem"),
        ..Config::default()
    };
    assert!(open(&plain).is_ok());
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
    // As an operator's folder may look: one authority below, and a file without any.
    fs::create_dir_all(dir.join("authorities/more")).unwrap();
    fs::copy(dir.join("ca.pem"), dir.join("authorities/more/ca.pem")).unwrap();
    fs::write(dir.join("authorities/README"), "who is who\n").unwrap();
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
