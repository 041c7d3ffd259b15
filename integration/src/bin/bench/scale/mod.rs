//! `make scale [PART=name] [ROUNDS=n]`: what many leases, many hosts and many ADDs at once cost. `docs/scale.md` says
//! what the figures mean; each part prints one of its tables and keeps every sample in `target/bench`.
//!
//! | part | question |
//! |---|---|
//! | `growth` | does an ADD become slower as the pool fills, and what does it take longer than the write that it must do |
//! | `burst` | how long 50 ADDs at once take one host |
//! | `traffic` | what verbs and `crosshost sync` read and write at the store, with few hosts and with many |
//! | `news` | how soon others send to a host that nobody knew, after its first ADD |
//! | `many` | 500 containers, 64 networks, 100 other hosts with ten blocks each: are ADDs flat, and how long is a cold sync |
//! | `path` | what passes between containers of two hosts, beside a VXLAN made by hand and the underlay |
//! | `ports` | does publishing a port, or the way through one, become slower with 20,000 published; beside the reference on both of its backends |
//! | `herd` | what a thousand watching hosts cost a Consul when one of them changes something |

mod burst;
mod curve;
mod growth;
mod herd;
mod many;
mod meter;
mod news;
mod path;
mod ports;
mod report;
mod seed;
mod traffic;
mod watcher;

use std::time::Instant;

use crate::{keep, machine};

/// The word that asks for these parts.
pub const ARGUMENT: &str = "scale";

const PARTS: [&str; 8] = [
    "growth", "burst", "traffic", "news", "many", "path", "ports", "herd",
];

/// What a part has found.
pub struct Found {
    /// Its tables and what they say of the targets.
    pub text: String,
    /// Every sample, with a head.
    pub csv: String,
    /// A picture, where one says more.
    pub svg: Option<String>,
}

/// Runs the part that is named, or all, with its own number of rounds or the given one.
pub fn run(words: &[String]) {
    let number = |word: &String| word.parse::<usize>().ok();
    let rounds = words.iter().find_map(number);
    let named = words.iter().find(|word| number(word).is_none());
    let named = named.filter(|word| *word != "all");
    let chosen = |part: &&str| named.is_none_or(|named| named == part);
    let parts: Vec<_> = PARTS.into_iter().filter(chosen).collect();
    assert!(
        !parts.is_empty(),
        "{named:?}: want one of {PARTS:?}, or all"
    );
    for part in parts {
        let started = Instant::now();
        let say =
            |what: &str| eprintln!("[{:5.1} s] {part}: {what}", started.elapsed().as_secs_f32());
        let before = machine::load();
        let found = match part {
            "growth" => growth(rounds.unwrap_or(60), &say),
            "burst" => burst::run(rounds.unwrap_or(15), &say),
            "traffic" => traffic::run(rounds.unwrap_or(9), &say),
            "news" => news::run(rounds.unwrap_or(60), &say),
            "many" => many::run(rounds.unwrap_or(9), &say),
            "path" => path::run(rounds.unwrap_or(60), &say),
            "ports" => ports::run(rounds.unwrap_or(40), &say),
            _ => herd::run(rounds.unwrap_or(10), &say),
        };
        say("done\n");
        let text = format!(
            "{}\n{}, {}; load {before} before and {} after\n",
            found.text,
            machine::processor(),
            machine::described(),
            machine::load(),
        );
        println!("{text}");
        keep(&format!("scale-{part}.md"), &text);
        keep(&format!("scale-{part}.csv"), &found.csv);
        if let Some(svg) = found.svg {
            keep(&format!("scale-{part}.svg"), &svg);
        }
    }
}

fn growth(rounds: usize, say: &dyn Fn(&str)) -> Found {
    let worlds = growth::worlds();
    let subjects = growth::measure(&worlds, rounds, say);
    report::growth(&subjects, rounds)
}
