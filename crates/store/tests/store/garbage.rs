//! Whatever else may listen where an agent should, or what an agent in trouble may say: always an error that tells what
//! happened, in bounded time.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use store::{Config, Error, Op, Store, open};

use crate::conformance::{create, delete, key, run};
use crate::fake::Fake;

/// Asks with a budget of a second, and checks that it holds.
fn ask<T>(config: Config, call: impl AsyncFnOnce(&dyn Store) -> Result<T, Error>) -> Error {
    let config = Config {
        timeout: Duration::from_secs(1),
        ..config
    };
    let started = Instant::now();
    let result = run(async { call(&*open(&config).unwrap()).await });
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => error,
    }
}

fn read(config: Config) -> Error {
    ask(config, async |store| store.get(&key("a/b")).await)
}

fn write(config: Config, ops: &[Op]) -> Error {
    ask(config, async |store| store.apply(ops).await)
}

fn assert_garbage(error: &Error, words: &str) {
    assert!(
        matches!(error, Error::Garbage { .. }) && !error.is_away(),
        "{error:?}"
    );
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn answers_that_are_not_consuls() {
    const PAIR: &str =
        r#"{"Results":[{"KV":{"Key":"a/b","Value":"?","Flags":0,"ModifyIndex":5}}]}"#;
    for (status, body, words) in [
        ("200 OK", "<html><h1>It works!</h1></html>", "It works!"),
        ("200 OK", "", "(empty)"),
        ("200 OK", "[]", "HTTP 200"),
        ("200 OK", "null", "HTTP 200"),
        ("200 OK", r#"{"Results":null}"#, "HTTP 200"),
        ("200 OK", r#"{"Results":[{"Service":{}}]}"#, "KV"),
        ("200 OK", r#"{"Results":[{"KV":{"Key":"a/b","#, "EOF"),
        ("200 OK", PAIR, "the value of a/b"),
        ("204 No Content", "", "HTTP 204"),
        ("302 Found", "elsewhere", "HTTP 302: elsewhere"),
        (
            "404 Not Found",
            "404 page not found",
            "HTTP 404: 404 page not found",
        ),
        ("409 Conflict", "{}", "HTTP 409"),
        (
            "413 Request Entity Too Large",
            "Request body too large",
            "HTTP 413: Request body too large",
        ),
    ] {
        let fake = Fake::says(status, body);
        assert_garbage(&read(fake.config()), words);
        assert_eq!(
            fake.requests.load(Ordering::SeqCst),
            1,
            "not worth a second attempt: {status} {body}"
        );
    }
    let long = "<p>\n".repeat(10_000);
    let error = read(Fake::says("200 OK", long).config()).to_string();
    assert!(error.len() < 500 && !error.contains('\n'), "{error}");
}

#[test]
fn answers_to_a_write_that_make_no_sense() {
    let ops = [create(&key("a"), "1"), delete(&key("b"), 1)];
    for (status, body, words) in [
        ("200 OK", r#"{"Results":[]}"#, "no result for a"),
        (
            "200 OK",
            r#"{"Results":[{"KV":{"Key":"b","Flags":0,"ModifyIndex":5}}]}"#,
            "no result for a",
        ),
        (
            "409 Conflict",
            r#"{"Errors":[]}"#,
            "a conflict without a reason",
        ),
        (
            "409 Conflict",
            r#"{"Errors":[{"OpIndex":2,"What":"x"}]}"#,
            "an objection to no operation",
        ),
        ("409 Conflict", "conflict", "HTTP 409"),
    ] {
        assert_garbage(&write(Fake::says(status, body).config(), &ops), words);
    }
}

#[test]
fn a_watch_without_an_index() {
    let fake = Fake::says("200 OK", "[]");
    let error = ask(fake.config(), async |store| {
        store.watch(&key("a"), 7, Duration::from_millis(100)).await
    });
    assert_garbage(&error, "no X-Consul-Index");
}

#[test]
fn something_else_than_http() {
    let fake = Fake::start(|_, stream| stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").is_ok());
    assert_garbage(&read(fake.config()), "not HTTP");
    let headers = Fake::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream
            .write_all(b"X-More: and more and more and more and more\r\n")
            .is_ok()
        {}
        false
    });
    assert_garbage(&read(headers.config()), "not HTTP");
}

#[test]
fn a_body_without_end() {
    let fake = Fake::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 8192]).is_ok() {}
        false
    });
    let config = Config {
        timeout: Duration::from_secs(20),
        ..fake.config()
    };
    let error = run(async { open(&config).unwrap().get(&key("a/b")).await }).unwrap_err();
    assert_garbage(&error, "more than 64 MiB");
}

#[test]
fn an_agent_that_does_not_get_on() {
    let stuck = Fake::start(|_, _| true);
    let slow = Fake::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    for fake in [stuck, slow] {
        let error = read(fake.config());
        assert!(
            matches!(error, Error::Timeout { .. }) && error.is_away(),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("did not answer within 1.0s"),
            "{error}"
        );
    }
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Some(deaf.local_addr().unwrap().to_string());
    let error = read(Config {
        url,
        ..Config::default()
    });
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
}

#[test]
fn an_agent_without_a_leader_is_asked_again() {
    for (status, text) in [
        ("500 Internal Server Error", "No cluster leader"),
        ("503 Service Unavailable", "<html>overloaded</html>"),
        ("429 Too Many Requests", "rate limit"),
    ] {
        let fake = Fake::says(status, text);
        let error = read(fake.config());
        assert!(
            matches!(error, Error::NoLeader { .. }) && error.is_away(),
            "{error:?}"
        );
        assert!(error.to_string().contains(text), "{error}");
        assert!(fake.requests.load(Ordering::SeqCst) > 2);
    }
}

#[test]
fn a_closed_port_is_known_soon() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = Config {
        url: Some(free.to_string()),
        ..Config::default()
    };
    run(async {
        let store = open(&config).unwrap();
        let started = Instant::now();
        let error = store.get(&key("a")).await.unwrap_err();
        let first = started.elapsed();
        assert!(
            matches!(error, Error::Unreachable { .. }) && error.is_away(),
            "{error:?}"
        );
        assert!(error.to_string().contains("Connection refused"), "{error}");
        assert!(first > Duration::from_millis(300), "tried again: {first:?}");
        // The verb's other calls have what this one left of a second and a half, not as much again each.
        for _ in 0..9 {
            let error = store.create(&key("a"), b"1").await.unwrap_err();
            assert!(error.is_away(), "{error}");
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}

#[test]
fn all_calls_of_a_verb_share_its_time() {
    let fake = Fake::start(|_, _| true);
    let config = Config {
        timeout: Duration::from_millis(600),
        ..fake.config()
    };
    run(async {
        let store = open(&config).unwrap();
        let started = Instant::now();
        for _ in 0..5 {
            assert!(store.get(&key("a")).await.unwrap_err().is_away());
        }
        assert!(
            started.elapsed() < Duration::from_millis(2500),
            "{:?}",
            started.elapsed()
        );
        assert!(
            store
                .create(&key("a"), b"")
                .await
                .unwrap_err()
                .to_string()
                .contains("used up")
        );
        // A resident process comes back to watch, and has time again.
        let started = Instant::now();
        assert!(
            store
                .watch(&key("a"), 0, Duration::ZERO)
                .await
                .unwrap_err()
                .is_away()
        );
        assert!(started.elapsed() > Duration::from_millis(500));
    });
}
