//! The growth of an ADD as tables, targets, samples and curves.

use std::fmt::Write;

use super::Found;
use super::curve::{Curve, plot};
use super::growth::{Kind, Subject};
use crate::inside::Cost;
use crate::spread::{Spread, milliseconds};
use crate::table::{markdown, megabytes, verdict};

/// What is wanted, in milliseconds over the bare write.
const MOST_MORE: f64 = 2.0;
/// What is wanted: the slowest size over the fastest.
const MOST_GROWTH: f64 = 1.2;
/// What is wanted, in bytes.
const MOST_MEMORY: u64 = 4_000_000;

/// What is said of one subject.
struct Line<'s> {
    subject: &'s Subject<'s>,
    wall: Spread,
    /// Over the bare write of the same round and world.
    more: Option<Spread>,
}

/// Everything about `subjects`, each measured `rounds` times.
pub fn growth(subjects: &[Subject<'_>], rounds: usize) -> Found {
    let lines: Vec<Line> = subjects.iter().map(|it| line(it, subjects)).collect();
    let text = format!(
        "{}\n{}\nmilliseconds from spawn to exit: median (middle half); more: than the bare write of the same round; n = {rounds} each, interleaved\n\n{}",
        times(&lines),
        memory(&lines),
        targets(&lines)
    );
    Found {
        text,
        csv: csv(subjects),
        svg: Some(curves(&lines, rounds)),
    }
}

fn line<'s>(subject: &'s Subject<'s>, all: &[Subject<'_>]) -> Line<'s> {
    let walls = |of: &Subject| {
        of.costs
            .iter()
            .map(|it| milliseconds(it.wall))
            .collect::<Vec<_>>()
    };
    let own = walls(subject);
    let bare = all
        .iter()
        .find(|it| it.kind == Kind::Bare && it.leases == subject.leases);
    let is_ours = matches!(subject.kind, Kind::Others | Kind::Own);
    let more = bare.filter(|_| is_ours).map(|bare| {
        let pairs = own.iter().zip(walls(bare));
        Spread::of(pairs.map(|(ours, bare)| ours - bare).collect())
    });
    Line {
        subject,
        wall: Spread::of(own),
        more,
    }
}

fn of<'l>(lines: &'l [Line], kind: Kind) -> impl Iterator<Item = &'l Line<'l>> {
    lines.iter().filter(move |line| line.subject.kind == kind)
}

fn sizes(lines: &[Line]) -> Vec<u32> {
    of(lines, Kind::Bare)
        .map(|line| line.subject.leases)
        .collect()
}

/// A median with its middle half, to three digits.
pub fn cell(spread: &Spread) -> String {
    let Spread {
        quarter,
        median,
        three_quarters,
        ..
    } = spread;
    let digits = match median.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{median:.digits$} ({quarter:.digits$}-{three_quarters:.digits$})")
}

fn times(lines: &[Line]) -> String {
    let head = [
        "leases",
        "bare write",
        "ipam-kv, leases of others",
        "more",
        "ipam-kv, own leases",
        "more",
        "host-local",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for leases in sizes(lines) {
        let at = |kind| of(lines, kind).find(|line| line.subject.leases == leases);
        let wall = |kind| at(kind).map_or("-".to_owned(), |line| cell(&line.wall));
        let more = |kind| {
            let more = at(kind).and_then(|line| line.more.as_ref());
            more.map_or("-".to_owned(), cell)
        };
        rows.push([
            leases.to_string(),
            wall(Kind::Bare),
            wall(Kind::Others),
            more(Kind::Others),
            wall(Kind::Own),
            more(Kind::Own),
            wall(Kind::HostLocal),
        ]);
    }
    markdown(&rows)
}

/// Peak memory, and the first ADD on a host that knows nothing: it alone reads leases.
fn memory(lines: &[Line]) -> String {
    let head = [
        "leases",
        "peak RSS MB: bare write",
        "ipam-kv, of others",
        "ipam-kv, own",
        "host-local",
        "first ADD, of others: MB",
        "ms",
        "first ADD, own: MB",
        "ms",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for leases in sizes(lines) {
        let at = |kind| of(lines, kind).find(|line| line.subject.leases == leases);
        let peak =
            |kind| at(kind).map_or("-".to_owned(), |line| megabytes(peak(&line.subject.costs)));
        let first = |kind| at(kind).and_then(|line| line.subject.first);
        let first_peak = |kind| first(kind).map_or("-".to_owned(), |cost| megabytes(cost.peak));
        let first_wall = |kind| {
            let wall = |cost: Cost| format!("{:.0}", milliseconds(cost.wall));
            first(kind).map_or("-".to_owned(), wall)
        };
        rows.push([
            leases.to_string(),
            peak(Kind::Bare),
            peak(Kind::Others),
            peak(Kind::Own),
            peak(Kind::HostLocal),
            first_peak(Kind::Others),
            first_wall(Kind::Others),
            first_peak(Kind::Own),
            first_wall(Kind::Own),
        ]);
    }
    let floor = of(lines, Kind::Nothing)
        .map(|line| peak(&line.subject.costs))
        .max();
    format!(
        "{}\nno figure can be below {} MB: the kernel counts what the process that starts a plugin has; first ADD: n = 1\n",
        markdown(&rows),
        megabytes(floor.unwrap_or(0))
    )
}

fn peak(costs: &[Cost]) -> u64 {
    costs.iter().map(|cost| cost.peak).max().unwrap_or(0)
}

fn targets(lines: &[Line]) -> String {
    let mut text = String::new();
    for (kind, whose) in [(Kind::Others, "of other hosts"), (Kind::Own, "of its own")] {
        let more = of(lines, kind).filter_map(|line| line.more.as_ref());
        let most = more.map(|it| it.median).fold(f64::NEG_INFINITY, f64::max);
        let walls: Vec<f64> = of(lines, kind).map(|line| line.wall.median).collect();
        let fastest = walls.iter().copied().fold(f64::INFINITY, f64::min);
        let growth = walls.iter().copied().fold(0.0, f64::max) / fastest;
        let _ = writeln!(
            text,
            "{}  leases {whose}: ADD at most 2 ms more than the bare write: {most:.2} at most\n\
             {}  leases {whose}: flat within 20 %: slowest size / fastest = {growth:.2}",
            verdict(most <= MOST_MORE),
            verdict(growth <= MOST_GROWTH),
        );
    }
    let ours = lines.iter().filter(|line| line.more.is_some());
    let warm = ours
        .clone()
        .map(|line| peak(&line.subject.costs))
        .max()
        .unwrap_or(0);
    let first = ours
        .filter_map(|line| line.subject.first)
        .map(|cost| cost.peak)
        .max();
    let first = first.unwrap_or(0);
    let _ = writeln!(
        text,
        "{}  peak RSS of ipam-kv ADD below 4 MB: {} MB\n{}  the same of the first ADD on a host: {} MB",
        verdict(warm < MOST_MEMORY),
        megabytes(warm),
        verdict(first < MOST_MEMORY),
        megabytes(first),
    );
    text
}

fn csv(subjects: &[Subject<'_>]) -> String {
    let mut text = "kind,leases,round,wall_us,cpu_us,peak_rss_bytes\n".to_owned();
    for subject in subjects {
        for (round, cost) in subject.costs.iter().enumerate() {
            let _ = writeln!(
                text,
                "{:?},{},{round},{},{},{}",
                subject.kind,
                subject.leases,
                cost.wall.as_micros(),
                cost.cpu.as_micros(),
                cost.peak
            );
        }
    }
    text
}

fn curves(lines: &[Line], rounds: usize) -> String {
    let named = [
        (Kind::HostLocal, "host-local", "#c26a1b"),
        (Kind::Own, "ipam-kv, own leases", "#123f66"),
        (Kind::Others, "ipam-kv, leases of others", "#1f6fb2"),
        (Kind::Bare, "bare conditional write", "#777777"),
    ];
    let curves = named.map(|(kind, name, color)| Curve {
        name,
        color,
        points: of(lines, kind)
            .map(|line| {
                let Spread {
                    quarter,
                    median,
                    three_quarters,
                    ..
                } = line.wall;
                (
                    f64::from(line.subject.leases),
                    [quarter, median, three_quarters],
                )
            })
            .collect(),
    });
    let caption = format!("medians and middle halves of {rounds}, both scales logarithmic");
    plot(
        "ADD of an IPAM plugin, milliseconds",
        "leases in the pool",
        &caption,
        &curves,
    )
}
