//! `make bench [ROUNDS=n]`: what ADD and DEL cost, beside the reference plugins and beside the kernel's own part.
//! `make scale [PART=name] [ROUNDS=n]`: what becomes of that with many leases, hosts and ADDs at once (`scale`).
//!
//! Everything happens in hosts of the laboratory, which go with this process. The tables go to standard output and, with
//! every sample and a plot, to `target/bench`. A missed target does not fail the benchmark, a failing plugin does.
//!
//! The `dir` store and Consul's data are in memory here: no disk is in these numbers.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "its answer is a table on standard output, and it stops where something broke"
)]

mod contender;
mod inside;
mod machine;
mod measure;
mod plot;
mod scale;
mod spread;
mod table;
mod trace;

use std::time::Instant;

use integration::{Backend, Lab, workspace};

const ROUNDS: usize = 40;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|it| it == inside::ARGUMENT) {
        return inside::serve().expect("orders from the benchmark");
    }
    // Before anything is started, so that all of it, Consul too, goes before whatever else this machine is busy with.
    let _ = rustix::process::nice(-15);
    match arguments.split_first() {
        Some((word, rest)) if word == scale::ARGUMENT => scale::run(rest),
        rounds => add_and_del(rounds.map_or(ROUNDS, |it| it.0.parse().expect("bench [ROUNDS]"))),
    }
}

fn add_and_del(rounds: usize) {
    let floor = machine::beside_this("examples/floor");
    let started = Instant::now();
    let say = |what: &str| eprintln!("[{:5.1} s] {what}", started.elapsed().as_secs_f32());
    say("ten hosts in three worlds, one with a Consul");
    let (consul, dir) = (Lab::new(3, Backend::Consul), Lab::new(3, Backend::Dir));
    let plain = Lab::new(4, Backend::Dir);
    let mut contenders = contender::line_up(&consul, &dir, &plain, &floor);
    let names: Vec<_> = contenders.iter().map(|it| it.name).collect();
    say("containers, and a resident for each warm contender");
    for contender in &mut contenders {
        // The resident, one a round, and one to be traced.
        contender.prepare(rounds + 2);
    }
    say(&format!("{rounds} rounds of {} contenders", names.len()));
    let before = machine::load();
    let (samples, lines) = measure::measure(&mut contenders, rounds);
    let after = machine::load();
    contenders.iter_mut().for_each(contender::Contender::finish);
    say("done\n");

    let caption = format!(
        "n = {rounds} each, interleaved; {}, load {before} before and {after} after",
        machine::described(),
    );
    let text = format!(
        "{}\n{caption}\n\n{}",
        table::tables(&lines),
        table::targets(&lines)
    );
    println!("{text}");
    keep("add-del.md", &text);
    keep("add-del.csv", &table::csv(&names, &samples));
    keep("add-del.svg", &plot::plot(&lines, &caption));
}

/// Writes a file into `target/bench` and says where it is.
fn keep(name: &str, content: &str) {
    let folder = workspace().join("target/bench");
    std::fs::create_dir_all(&folder).expect("make target/bench");
    let file = folder.join(name);
    std::fs::write(&file, content).expect("write into target/bench");
    println!("{}", file.display());
}
