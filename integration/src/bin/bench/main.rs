//! `make bench [ROUNDS=n]`: what ADD and DEL cost, beside the reference plugins and beside the kernel's own part.
//!
//! Everything happens in hosts of the laboratory, which go with this process. The tables go to standard output and, with
//! every sample and a plot, to `target/bench`. A missed target does not fail the benchmark, a failing plugin does.
//!
//! The `dir` store and Consul's data are in memory here: no disk is in these numbers.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    reason = "its answer is a table on standard output, and it stops where something broke"
)]

mod contender;
mod inside;
mod measure;
mod plot;
mod table;

use std::path::{Path, PathBuf};
use std::time::Instant;

use integration::{Backend, Lab, workspace};

const ROUNDS: usize = 40;

fn main() {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some(inside::ARGUMENT) {
        return inside::serve().expect("orders from the benchmark");
    }
    let rounds = argument.map_or(ROUNDS, |it| it.parse().expect("bench [ROUNDS]"));
    let floor = beside_this("examples/floor");
    // Before anything is started, so that all of it, Consul too, goes before whatever else this machine is busy with.
    let _ = rustix::process::nice(-15);

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
    let before = load();
    let (samples, lines) = measure::measure(&mut contenders, rounds);
    let after = load();
    contenders.iter_mut().for_each(contender::Contender::finish);
    say("done\n");

    let caption = format!(
        "n = {rounds} each, interleaved; Linux {}, {} CPUs, load {before} before and {after} after",
        kernel(),
        std::thread::available_parallelism().map_or(0, Into::into),
    );
    let text = format!(
        "{}\n{caption}\n\n{}",
        table::tables(&lines),
        table::targets(&lines)
    );
    println!("{text}");
    let folder = workspace().join("target/bench");
    std::fs::create_dir_all(&folder).expect("make target/bench");
    for (name, content) in [
        ("add-del.md", text),
        ("add-del.csv", table::csv(&names, &samples)),
        ("add-del.svg", plot::plot(&lines, &caption)),
    ] {
        let file = folder.join(name);
        std::fs::write(&file, content).expect("write into target/bench");
        println!("{}", file.display());
    }
}

/// A program that the same build has made.
fn beside_this(path: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the benchmark's own file");
    let file = this.parent().unwrap_or(Path::new("")).join(path);
    assert!(
        file.is_file(),
        "{} is missing: run `make bench`",
        file.display()
    );
    file
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    release.unwrap_or_default().trim().to_owned()
}

/// The load of the last minute: with more than there are CPUs, the numbers are the neighbours' too.
fn load() -> String {
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    loads.split(' ').next().unwrap_or_default().to_owned()
}
