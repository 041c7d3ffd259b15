//! Writes that are made, but whose answers never arrive: a proxy before a real agent delivers requests and cuts the connection.
//! The client must neither write twice, nor lose its own write, nor take another's for its own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use store::{Config, Entry, Outcome, Store, open};

use crate::agent::{Agent, NEW, OLD};
use crate::conformance::{check, create, delete, done, key, run, swap, texts};
use crate::fake::{Fake, Request};

/// Passes requests on to `agent`. The first `lost` answers to writes are not passed back; before their connections are cut,
/// `meanwhile` happens.
fn proxy(agent: &Agent, lost: usize, meanwhile: impl Fn() + Send + Sync + 'static) -> Fake {
    let (port, lost) = (agent.port, AtomicUsize::new(lost));
    Fake::start(move |request, stream| {
        let answer = pass_on(port, request);
        let is_write = request.body.windows(3).any(|word| word == b"cas");
        let less = |lost: usize| lost.checked_sub(1);
        if is_write
            && lost
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                .is_ok()
        {
            meanwhile();
            return false;
        }
        let _ = stream.write_all(&answer);
        // The agent was asked to close its side, and says so in the answer.
        false
    })
}

/// The agent's whole answer.
fn pass_on(port: u16, request: &Request) -> Vec<u8> {
    let mut upstream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = String::from_utf8(request.bytes()).unwrap();
    upstream
        .write_all(
            request
                .replacen("\r\n", "\r\nConnection: close\r\n", 1)
                .as_bytes(),
        )
        .unwrap();
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).unwrap();
    let _ = upstream.shutdown(Shutdown::Both);
    answer
}

fn opened(config: &Config) -> Box<dyn Store> {
    open(config).unwrap()
}

fn on_both(test: impl Fn(&Agent)) {
    for binary in [NEW, OLD] {
        test(&Agent::plain(binary));
    }
}

#[test]
fn ones_own_write_is_recognised() {
    on_both(|agent| {
        run(async {
            let direct = opened(&agent.config());
            let through = |lost| proxy(agent, lost, || ());
            let [a, b, c, d] = ["a", "b", "c", "d"].map(key);

            let proxy = through(2);
            let revision = opened(&proxy.config())
                .create(&a, b"1")
                .await
                .unwrap()
                .expect("it was ours");
            assert_eq!(direct.get(&a).await.unwrap().unwrap().revision, revision);
            // Two attempts of which the second conflicts, the one that got through, and a read.
            assert_eq!(proxy.requests.load(Ordering::SeqCst), 4);

            let b_revision = direct.create(&b, b"1").await.unwrap().unwrap();
            let d_revision = direct.create(&d, b"1").await.unwrap().unwrap();
            let ops = [
                check(&d, d_revision),
                swap(&a, "2", revision),
                delete(&b, b_revision),
                create(&c, "2"),
            ];
            let revisions = done(opened(&through(1).config()).apply(&ops).await);
            let entries = direct
                .read(&[a.clone(), b.clone(), c.clone()])
                .await
                .unwrap();
            assert_eq!(texts(&entries), [("a", "2"), ("c", "2")]);
            let written = entries[0].revision;
            assert!(
                written > revision && revisions == [0, written, 0, written],
                "{revisions:?}"
            );

            assert!(
                opened(&through(1).config())
                    .delete(&a, written)
                    .await
                    .unwrap()
            );
            assert_eq!(direct.get(&a).await.unwrap(), None);
        });
    });
}

#[test]
fn anothers_write_is_not_taken_for_ones_own() {
    on_both(|agent| {
        run(async {
            let direct = opened(&agent.config());
            let a = key("a");
            // Even if it wrote the same.
            let theirs = direct.create(&a, b"same").await.unwrap().unwrap();
            let proxy = proxy(agent, 1, || ());
            assert_eq!(
                opened(&proxy.config()).create(&a, b"same").await.unwrap(),
                None
            );
            let entry = direct.get(&a).await.unwrap().unwrap();
            assert_eq!(
                entry,
                Entry {
                    key: a,
                    value: b"same".into(),
                    revision: theirs
                }
            );
        });
    });
}

#[test]
fn a_write_that_was_overwritten_since() {
    on_both(|agent| {
        run(async {
            let (a, b) = (key("a"), key("b"));
            let config = agent.config();
            let overwrite = move || {
                run(async {
                    let other = opened(&config);
                    let entry = other.get(&key("a")).await.unwrap().unwrap();
                    other
                        .swap(&entry.key, b"theirs", entry.revision)
                        .await
                        .unwrap()
                        .unwrap();
                });
            };
            // Alone, it is gone: to say "conflict" is to say how things are.
            let alone = proxy(agent, 1, overwrite.clone());
            assert_eq!(
                opened(&alone.config()).create(&a, b"ours").await.unwrap(),
                None
            );
            let direct = opened(&agent.config());
            let entry = direct.get(&a).await.unwrap().unwrap();
            assert_eq!(entry.value, b"theirs");

            // Of two, one is still there: the transaction was done, and must not pass for undone.
            let both = proxy(agent, 1, overwrite);
            let ops = [swap(&a, "ours", entry.revision), create(&b, "ours")];
            let outcome = opened(&both.config()).apply(&ops).await.unwrap();
            let there = direct.get(&b).await.unwrap().unwrap();
            assert_eq!(outcome, Outcome::Done(vec![there.revision; 2]));
        });
    });
}

#[test]
fn a_write_without_any_answer_is_an_error_in_time() {
    on_both(|agent| {
        run(async {
            let silent = proxy(agent, usize::MAX, || ());
            let config = Config {
                timeout: Duration::from_secs(1),
                ..silent.config()
            };
            let started = Instant::now();
            let error = opened(&config).create(&key("a"), b"1").await.unwrap_err();
            assert!(
                error.is_away() && started.elapsed() < Duration::from_secs(5),
                "{error}"
            );
            // It happened all the same, once. A writer that repeats it with the present state finds that out.
            assert!(
                opened(&agent.config())
                    .get(&key("a"))
                    .await
                    .unwrap()
                    .is_some()
            );
        });
    });
}
