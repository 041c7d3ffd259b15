//! Published ports as a table, targets and samples.

use std::fmt::Write as _;

use super::{AT_ONCE, Found, SAMPLE, Subject};
use crate::inside::Cost;
use crate::scale::report::cell;
use crate::spread::{Spread, milliseconds};
use crate::table::{markdown, megabytes, verdict};

/// What is wanted: milliseconds of a process, the slowest size over the fastest, bytes.
const MOST: f64 = 3.0;
const MOST_GROWTH: f64 = 1.2;
const MOST_MEMORY: u64 = 4_000_000;

/// Everything about `subjects`.
pub fn report(subjects: &[Subject<'_>]) -> Found {
    let heads = [
        "plugin",
        "ports there",
        "ADD 1",
        "DEL 1",
        "ADD 5",
        "DEL 5",
        "rounds",
        "peak MB",
        "programs",
        "connections/s",
        "Gbit/s",
    ];
    let heads = heads.map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(heads)
        .chain(subjects.iter().map(row))
        .collect();
    let mut text = markdown(&rows);
    let _ = write!(
        text,
        "\nmilliseconds from spawn to exit, median (middle half), interleaved; programs: that ADD and DEL of one port start; packets \
         n = {}, {} ms each\n\n",
        subjects[0].gigabits.len(),
        SAMPLE.as_millis(),
    );
    text.push_str(&targets(subjects));
    Found {
        text,
        csv: csv(subjects),
        svg: None,
    }
}

fn row(subject: &Subject<'_>) -> Vec<String> {
    let mut row = vec![subject.name(), subject.ports.to_string()];
    let times = subject.costs.iter().flatten();
    row.extend(times.map(|costs| cell(&walls(costs))));
    row.push(subject.costs[0][0].len().to_string());
    row.push(megabytes(peak(subject)));
    let children = subject.children.map(|count| match count {
        Some(count) => count.to_string(),
        None => "-".to_owned(),
    });
    row.push(children.join(", "));
    row.push(cell(&spread(&subject.connections)));
    row.push(cell(&spread(&subject.gigabits)));
    row
}

fn walls(costs: &[Cost]) -> Spread {
    Spread::of(costs.iter().map(|it| milliseconds(it.wall)).collect())
}

fn spread(samples: &[f64]) -> Spread {
    Spread::of(samples.to_vec())
}

fn peak(subject: &Subject<'_>) -> u64 {
    let all = subject.costs.iter().flatten().flatten();
    all.map(|cost| cost.peak).max().unwrap_or_default()
}

fn targets(subjects: &[Subject<'_>]) -> String {
    let mut lines = Vec::new();
    let ours: Vec<_> = subjects.iter().filter(|it| it.rules.is_none()).collect();
    for (index, count) in AT_ONCE.iter().enumerate() {
        for (place, verb) in ["ADD", "DEL"].iter().enumerate() {
            let medians = ours.iter().map(|it| walls(&it.costs[index][place]).median);
            let (low, high) = ends(medians);
            let said = format!("{high:.2}");
            let what = format!("{verb} of {count}: at most {MOST} ms");
            lines.push(target(&what, high <= MOST, &said));
            let what = format!("{verb} of {count}: flat from 10 to 20,000");
            lines.push(flat(&what, (low, high)));
        }
    }
    let memory = ours.iter().map(|it| peak(it)).max().unwrap_or_default();
    let said = megabytes(memory);
    lines.push(target("peak below 4 MB", memory < MOST_MEMORY, &said));
    let children = ours.iter().flat_map(|it| it.children);
    let none = children.clone().all(|count| count == Some(0));
    let said = format!("{:?}", children.flatten().sum::<u32>());
    lines.push(target("no program is started", none, &said));
    let rates = ours.iter().map(|it| spread(&it.connections).median);
    lines.push(flat("connections: flat", ends(rates)));
    let gigabits = ours.iter().map(|it| spread(&it.gigabits).median);
    lines.push(flat("throughput: flat", ends(gigabits)));
    lines.concat()
}

/// A line about a target.
fn target(what: &str, holds: bool, is: &str) -> String {
    format!("{} {what}: {is}\n", verdict(holds))
}

/// A line about the least and the most.
fn flat(what: &str, (low, high): (f64, f64)) -> String {
    let said = format!("{:.2}", high / low);
    target(what, high / low <= MOST_GROWTH, &said)
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(low, high), value| {
        (low.min(value), f64::max(high, value))
    })
}

fn csv(subjects: &[Subject<'_>]) -> String {
    let mut text = "plugin,ports,verb,at_once,ms\n".to_owned();
    for it in subjects {
        for (index, count) in AT_ONCE.iter().enumerate() {
            for (place, verb) in ["ADD", "DEL"].iter().enumerate() {
                for cost in &it.costs[index][place] {
                    let (name, ports, ms) = (it.name(), it.ports, milliseconds(cost.wall));
                    let _ = writeln!(text, "\"{name}\",{ports},{verb},{count},{ms:.3}");
                }
            }
        }
    }
    text
}
