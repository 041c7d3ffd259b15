//! The table as a picture: for each contender a line from the fastest to the slowest call, a box around the middle half
//! of all calls, a bar at the median. SVG is text, and this needs six of its elements, so it is written by hand.

use std::fmt::Write;

use crate::contender::{OURS, Verb};
use crate::measure::Line;
use crate::table::of_reference;

/// Pixels.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 290.0;
const RIGHT: f64 = 130.0;
const TITLE: f64 = 50.0;
const ROW: f64 = 28.0;
const SCALE: f64 = 46.0;

/// One panel a verb, each with its own scale. `caption` says where and when.
pub fn plot(lines: &[Line], caption: &str) -> String {
    let panels = [Verb::Add, Verb::Del].map(|verb| {
        let rows = lines.iter().filter(|line| line.verb == verb);
        rows.collect::<Vec<_>>()
    });
    let height = |rows: &Vec<&Line>| TITLE + ROW * float(rows.len()) + SCALE;
    let total: f64 = panels.iter().map(height).sum::<f64>() + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" width=\"{WIDTH}\" \
         height=\"{total}\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut top = 0.0;
    for rows in &panels {
        panel(&mut svg, lines, rows, top);
        top += height(rows);
    }
    text(&mut svg, (16.0, total - 14.0), "start", "#666", caption);
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, all: &[Line], rows: &[&Line], top: f64) {
    let slowest = rows.iter().map(|row| row.wall.three_quarters);
    // A single slow call would squeeze everything else: its line runs out of the picture, and says so.
    let (step, ticks) = scale(slowest.fold(0.0, f64::max) * 1.4);
    let end = step * f64::from(ticks);
    let x = |ms: f64| LEFT + (WIDTH - LEFT - RIGHT) * ms.min(end) / end;
    let bottom = top + TITLE + ROW * float(rows.len());

    let verb = rows.first().map_or("", |row| row.verb.name());
    let title = format!("{verb}, milliseconds from fork to exit");
    let _ = writeln!(
        svg,
        "<text x=\"16\" y=\"{}\" font-size=\"17\" font-weight=\"bold\">{title}</text>",
        top + 30.0
    );
    text(
        svg,
        (WIDTH - 16.0, top + 30.0),
        "end",
        "#666",
        "median (of reference)",
    );
    for tick in 0..=ticks {
        let ms = step * f64::from(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>",
            x(ms),
            top + TITLE - 6.0,
        );
        text(
            svg,
            (x(ms), bottom + 18.0),
            "middle",
            "#666",
            &format!("{ms}"),
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let middle = top + TITLE + ROW * (float(number) + 0.5) - 3.0;
        let color = match row.name {
            name if name.starts_with("overlay") => "#1f6fb2",
            name if name.starts_with("bridge") => "#c26a1b",
            _ => "#777777",
        };
        let weight = if row.name == OURS { "bold" } else { "normal" };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" font-weight=\"{weight}\">{}</text>",
            LEFT - 12.0,
            middle + 4.5,
            row.name
        );
        let wall = &row.wall;
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"{color}\" stroke-width=\"1.5\"/>\n\
             <rect x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" height=\"14\" fill=\"{color}\" fill-opacity=\"0.35\"/>\n\
             <rect x=\"{:.1}\" y=\"{}\" width=\"3\" height=\"20\" fill=\"{color}\"/>",
            x(wall.min),
            x(wall.max),
            x(wall.quarter),
            middle - 7.0,
            (x(wall.three_quarters) - x(wall.quarter)).max(1.0),
            x(wall.median) - 1.5,
            middle - 10.0,
        );
        let label = format!("{:.1} ({:.2})", wall.median, of_reference(all, row));
        text(svg, (WIDTH - 16.0, middle + 4.5), "end", "black", &label);
        if wall.max > end {
            text(
                svg,
                (x(end) + 4.0, middle + 4.5),
                "start",
                color,
                &format!("\u{2192}{:.0}", wall.max),
            );
        }
    }
}

pub fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, color: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{words}</text>"
    );
}

/// A round number of milliseconds, and how many of it reach at least to `end`: ten or fewer.
fn scale(end: f64) -> (f64, u8) {
    let steps = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
    let mut all = steps
        .into_iter()
        .flat_map(|step| (1..=10).map(move |ticks| (step, ticks)));
    let enough = all.find(|(step, ticks)| step * f64::from(*ticks) >= end);
    enough.unwrap_or((1000.0, 10))
}

#[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_round_and_reaches_the_end_in_ten_steps_or_fewer() {
        assert_eq!(scale(18.0), (2.0, 9));
        assert_eq!(scale(0.2), (0.5, 1));
        assert_eq!(scale(203.0), (50.0, 5));
    }
}
