//! Ways into a Consul agent: ACL tokens, a socket; and what is said when they are closed.

use std::fs;

use serde_json::json;
use store::{Config, Error, Op, Store, open};

use crate::agent::{Agent, NEW, OLD};
use crate::conformance::{check, create, key, run};

pub(crate) fn opened(config: &Config) -> Box<dyn Store> {
    open(config).unwrap()
}

/// The words of the error that `config` is refused with before anything is sent.
pub(crate) fn refusal(config: &Config) -> String {
    match open(config) {
        Ok(_) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
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

            // Of several in one folder each counts by itself where the folder is closed, but for those beside what was shown.
            let each = opened(&with(
                &agent,
                &token(
                    &agent,
                    r#"key_prefix "hidden/a" { policy = "read" } key_prefix "hidden/b" { policy = "read" }"#,
                ),
            ));
            let seen = |keys: &[&str]| {
                let keys: Vec<_> = keys.iter().map(|name| key(name)).collect();
                let each = &each;
                async move { each.read(&keys).await.map(|found| found.len()) }
            };
            assert_eq!(seen(&["hidden/b", "hidden/bb"]).await.unwrap(), 0);
            denied(
                seen(&["hidden/b", "hidden/c"]).await.map(|_| ()),
                &["denies read of hidden/c"],
            );
            assert_eq!(seen(&["hidden/a", "hidden/c"]).await.unwrap(), 1);

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
    // An agent has each name once.
    let name = format!("test{}", rules.len());
    consul(&["acl", "policy", "create", "-name", &name, "-rules", rules]);
    let created = consul(&["acl", "token", "create", "-policy-name", &name]);
    let secret = created
        .lines()
        .find_map(|line| line.strip_prefix("SecretID:"))
        .unwrap();
    secret.trim().to_owned()
}
