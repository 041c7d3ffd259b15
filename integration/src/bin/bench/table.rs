//! The numbers as text: a table that reads well as it is and as Markdown, every sample as CSV, and the targets.

use std::fmt::Write;

use crate::contender::{OURS, REFERENCE, Verb};
use crate::measure::{Line, Sample};

/// What is wanted: ADD with both NICs, NAT and Consul takes at most this part of the reference's time without NAT.
const MOST_OF_REFERENCE: f64 = 0.5;
/// What is wanted, in bytes: less than a plugin's file may have (6 MiB), of which a process touches most pages.
const MOST_MEMORY: u64 = 6_000_000;

/// A table a verb.
pub fn tables(lines: &[Line]) -> String {
    [Verb::Add, Verb::Del]
        .map(|verb| table(lines, verb))
        .join("\n")
}

fn table(lines: &[Line], verb: Verb) -> String {
    let mut rows = vec![
        [
            verb.name(),
            "median ms",
            "min",
            "max",
            "of reference",
            "CPU ms",
            "peak RSS MB",
            "programs",
            "threads",
            "system calls",
            "documents read",
            "written",
            "renamed",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for line in lines.iter().filter(|line| line.verb == verb) {
        let did = line.trace.map(|it| {
            let started = [it.programs, it.threads, it.calls];
            [started, [it.read, it.written, it.renamed]].concat()
        });
        let did = did.map_or_else(
            || vec!["-".to_owned(); 6],
            |counts| counts.iter().map(ToString::to_string).collect(),
        );
        let mut row = vec![
            line.name.to_owned(),
            format!("{:.1}", line.wall.median),
            format!("{:.1}", line.wall.min),
            format!("{:.1}", line.wall.max),
            format!("{:.2}", of_reference(lines, line)),
            format!("{:.1}", line.cpu.median),
            megabytes(line.peak),
        ];
        row.extend(did);
        rows.push(row);
    }
    markdown(&rows)
}

/// Rows of equal length as a Markdown table that is aligned as it is; the first row is the head.
pub fn markdown<Row: AsRef<[String]>>(rows: &[Row]) -> String {
    let rows: Vec<&[String]> = rows.iter().map(AsRef::as_ref).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().enumerate().map(|(column, cell)| match column {
            0 => format!("| {cell:<0$} ", width(0)),
            _ => format!("| {cell:>0$} ", width(column)),
        });
        let _ = writeln!(text, "{}|", cells.collect::<String>());
        if number == 0 {
            let rules = (0..row.len()).map(|column| match column {
                0 => format!("| :{:-<1$} ", "", width(0) - 1),
                _ => format!("| {:-<1$}: ", "", width(column) - 1),
            });
            let _ = writeln!(text, "{}|", rules.collect::<String>());
        }
    }
    text
}

/// The median as a part of the warm reference's of the same verb.
pub fn of_reference(lines: &[Line], line: &Line) -> f64 {
    let reference = lines
        .iter()
        .find(|other| other.name == REFERENCE && other.verb == line.verb);
    reference.map_or(f64::NAN, |reference| {
        line.wall.median / reference.wall.median
    })
}

/// Whether the targets hold, one line each.
pub fn targets(lines: &[Line]) -> String {
    let add = lines
        .iter()
        .find(|line| line.name == OURS && line.verb == Verb::Add);
    let part = add.map_or(f64::NAN, |add| of_reference(lines, add));
    let ours = lines.iter().filter(|line| line.name.starts_with("overlay"));
    let peak = ours.map(|line| line.peak).max().unwrap_or(0);
    format!(
        "{}  ADD with both NICs, NAT and Consul at most half of the reference bridge + host-local without NAT: \
         {part:.2} of it\n\
         {}  peak RSS below 6 MB: {} MB\n",
        verdict(part <= MOST_OF_REFERENCE),
        verdict(peak < MOST_MEMORY),
        megabytes(peak),
    )
}

/// The word that a target's line begins with.
pub fn verdict(holds: bool) -> &'static str {
    if holds { "PASS" } else { "MISS" }
}

/// Every sample.
pub fn csv(names: &[&str], samples: &[Sample]) -> String {
    let mut text = "contender,verb,round,wall_us,cpu_us,peak_rss_bytes\n".to_owned();
    for sample in samples {
        let cost = &sample.cost;
        let _ = writeln!(
            text,
            "\"{}\",{},{},{},{},{}",
            names[sample.contender],
            sample.verb.name(),
            sample.round,
            cost.wall.as_micros(),
            cost.cpu.as_micros(),
            cost.peak
        );
    }
    text
}

pub fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{}", tenths / 10, tenths % 10)
}
