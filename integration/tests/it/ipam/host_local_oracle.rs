//! `ipam-kv` beside the plugin whose words it takes: Debian's `host-local` 1.1.1 gets the same configurations, which a seed
//! makes, and must answer the same: the same addresses, gateways and routes, or both refuse. Where ours differs on purpose,
//! a named rule of `oracle/rules.rs` says so.
//!
//! `SEED=n` plays one seed and prints what was sent and what came; `CASES=n` plays so many.

#![allow(clippy::print_stdout, reason = "says what it measured")]

use std::collections::BTreeMap;

use super::oracle::case::{Case, RESOLVER};
use super::oracle::rules::{Answer, RULES, Step, rule};
use super::oracle::subnet::Subnet;
use integration::{Backend, Call, Finished, Host, Lab};
use serde_json::Value;

/// How many cases a test run plays.
const CASES: u64 = 1000;
const WORKERS: u64 = 2;

#[test]
fn the_same_configuration_means_the_same() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.container("t1");
    host.write(
        RESOLVER,
        "; a comment\nnameserver 192.0.2.53\nnameserver  fd00::53 # near\n\ndomain example.org\n\
         search a.example.org\nsearch b.example.org c\noptions ndots:2 timeout:1\nsortlist 10.0.0.0\n",
    );
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect(name))
    };
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CASES").unwrap_or(CASES),
    };
    let told = number("SEED").is_some();
    let (mut used, mut wrong) = (BTreeMap::<&str, u64>::new(), Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let seeds = seeds.clone();
                scope.spawn(move || {
                    let mine = seeds.filter(|seed| seed % WORKERS == worker);
                    mine.map(|seed| (seed, play(host, seed, told)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for worker in workers {
            for (seed, played) in worker.join().expect("a worker") {
                match played {
                    Ok(rules) => rules
                        .into_iter()
                        .for_each(|rule| *used.entry(rule).or_default() += 1),
                    Err(why) => wrong.push((seed, why)),
                }
            }
        }
    });
    wrong.sort();
    let first: Vec<_> = wrong
        .iter()
        .take(25)
        .map(|(seed, why)| format!("SEED={seed}: {why}"))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of the seeds:\n{}",
        wrong.len(),
        first.join("\n")
    );
    if std::env::var("SEED").is_err() && std::env::var("CASES").is_err() {
        let idle = RULES.iter().filter(|rule| !used.contains_key(*rule));
        assert_eq!(idle.count(), 0, "a rule that nothing needs: {used:#?}");
    }
}

/// Plays one case on both; the rules that were needed, or where the answers part.
fn play(host: &Host, seed: u64, told: bool) -> Result<Vec<&'static str>, String> {
    let case = Case::of(seed, &format!("/run/oracle/{seed}"));
    let (mut rules, mut refused_before) = (Vec::new(), false);
    for (at, (verb, container)) in [
        ("ADD", "c1"),
        ("ADD", "c1"),
        ("ADD", "c2"),
        ("DEL", "c1"),
        ("ADD", "c3"),
    ]
    .into_iter()
    .enumerate()
    {
        let call = |call: Call| {
            let call = call
                .id(container)
                .netns(case.netns)
                .env("CNI_ARGS", &case.args);
            answer(&call.stdin(case.sent.clone()).run())
        };
        let blocks = blocks(host, seed);
        let theirs = call(host.reference("host-local", verb));
        let ours = call(host.call("ipam-kv", verb));
        if told {
            println!(
                "{verb} {container} {} {}\n theirs {theirs:?}\n ours   {ours:?}",
                case.sent, case.args
            );
        }
        let same = match (&theirs, &ours) {
            (Answer::Refused(_), Answer::Refused(_)) => true,
            (theirs, ours) => theirs == ours,
        };
        if !same {
            let step = Step {
                case: &case,
                theirs: &theirs,
                ours: &ours,
                blocks: &blocks,
                refused_before,
            };
            match rule(&step) {
                Some(rule) => rules.push(rule),
                None => {
                    return Err(format!(
                        "step {at}, {verb} {container}: {} {}\n theirs {theirs:?}\n ours   {ours:?}",
                        case.sent, case.args
                    ));
                }
            }
        }
        if matches!(theirs, Answer::Refused(_)) && at == 0 || !same {
            break;
        }
        refused_before |= matches!(theirs, Answer::Refused(_));
    }
    Ok(rules)
}

/// The blocks of the case's network: of its data directory alone, and of this host alone.
fn blocks(host: &Host, seed: u64) -> Vec<Subnet> {
    let folder = format!("/dev/shm/store/crosshost/data/-2frun-2foracle-2f{seed}/v1/blocks/net");
    let files = std::fs::read_dir(host.namespace().path(&folder));
    let names = files.into_iter().flatten().flatten();
    names
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            Subnet::of(&name.trim_end_matches('=').replace('_', "/"))
        })
        .collect()
}

/// What a plugin said, without what is empty.
fn answer(said: &Finished) -> Answer {
    if said.stdout.trim().is_empty() && said.status.success() {
        return Answer::Given(Value::Null);
    }
    let mut json = said.json();
    if !said.status.success() {
        return Answer::Refused(json["msg"].as_str().unwrap_or_default().to_owned());
    }
    prune(&mut json);
    Answer::Given(json)
}

/// Takes out what is `null`, `[]` or `{}`: the reference prints `"dns":{}`, and that is the same as nothing.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, value| {
                !(value.is_null()
                    || value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(serde_json::Map::is_empty))
            });
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}
