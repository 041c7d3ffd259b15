//! Curves over powers of ten, as SVG by hand like the other plot: what grows is seen as a slope.

use std::fmt::Write;

use crate::plot::text;

/// Pixels.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 220.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 70.0;

/// One line of the plot.
pub struct Curve {
    pub name: &'static str,
    pub color: &'static str,
    /// Place on the lower axis; lower quarter, median and upper quarter on the other.
    pub points: Vec<(f64, [f64; 3])>,
}

/// All of them in one picture. Values are above 0.
pub fn plot(title: &str, lower: &str, caption: &str, curves: &[Curve]) -> String {
    let places = curves
        .iter()
        .flat_map(|it| it.points.iter().map(|point| point.0));
    let values = curves
        .iter()
        .flat_map(|it| it.points.iter().flat_map(|point| point.1));
    let (first, last) = decades(places);
    let (low, high) = decades(values);
    let x = |place: f64| LEFT + (WIDTH - LEFT - RIGHT) * part(place, first, last);
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part(value, low, high);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"30\" font-size=\"17\" font-weight=\"bold\">{title}</text>\n"
    );
    let mut grid = |from: (f64, f64), to: (f64, f64)| {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            svg,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
        );
    };
    for power in first..=last {
        let place = x(10_f64.powi(power));
        grid((place, TOP), (place, HEIGHT - BOTTOM));
    }
    for power in low..=high {
        let place = y(10_f64.powi(power));
        grid((LEFT, place), (WIDTH - RIGHT, place));
    }
    for power in first..=last {
        let place = (x(10_f64.powi(power)), HEIGHT - BOTTOM + 20.0);
        text(&mut svg, place, "middle", "#666", &spelled(power));
    }
    for power in low..=high {
        let place = (LEFT - 8.0, y(10_f64.powi(power)) + 4.5);
        text(&mut svg, place, "end", "#666", &spelled(power));
    }
    text(
        &mut svg,
        (WIDTH - RIGHT, HEIGHT - BOTTOM + 40.0),
        "end",
        "#666",
        lower,
    );
    text(&mut svg, (16.0, HEIGHT - 12.0), "start", "#666", caption);
    let mut lowest_label = f64::INFINITY;
    let mut labelled: Vec<&Curve> = curves.iter().filter(|it| !it.points.is_empty()).collect();
    let end = |curve: &Curve| curve.points.last().map_or(0.0, |point| y(point.1[1]));
    labelled.sort_by(|one, other| end(other).total_cmp(&end(one)));
    for curve in labelled {
        line(&mut svg, curve, &x, &y);
        // Beside the curve's end, but never over the label below.
        let place = (end(curve) + 4.5).min(lowest_label - 16.0);
        lowest_label = place;
        let from = curve.points.last().map_or(0.0, |point| x(point.0));
        text(
            &mut svg,
            (from + 10.0, place),
            "start",
            curve.color,
            curve.name,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, curve: &Curve, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) {
    let color = curve.color;
    let mut path = String::new();
    for (place, [quarter, median, three_quarters]) in &curve.points {
        let (across, height) = (x(*place), y(*median));
        let _ = write!(path, "{across:.1},{height:.1} ");
        let _ = writeln!(
            svg,
            "<line x1=\"{across:.1}\" x2=\"{across:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\" stroke-width=\"5\" \
             stroke-opacity=\"0.35\"/>\n<circle cx=\"{across:.1}\" cy=\"{height:.1}\" r=\"3.5\" fill=\"{color}\"/>",
            y(*quarter),
            y(*three_quarters),
        );
    }
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
        path.trim_end()
    );
}

/// The powers of ten around all `values`, at least one apart.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
    for value in values {
        (low, high) = (low.min(value), high.max(value));
    }
    let power = |rounded: f64| (-9..=9).find(|it| f64::from(*it) >= rounded).unwrap_or(9);
    let low = power(low.log10().floor());
    (low, power(high.log10().ceil()).max(low + 1))
}

/// How far a value is on the way from 10^`low` to 10^`high`.
fn part(value: f64, low: i32, high: i32) -> f64 {
    (value.log10() - f64::from(low)) / f64::from(high - low)
}

fn spelled(power: i32) -> String {
    let value = 10_f64.powi(power);
    let digits = format!("{value}");
    match digits.as_bytes() {
        [.., b'0', b'0', b'0'] => format!("{},000", &digits[..digits.len() - 3]),
        _ => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axes_hold_all_values() {
        assert_eq!(decades([3.0, 180.0].into_iter()), (0, 3));
        assert_eq!(decades([10.0, 100_000.0].into_iter()), (1, 5));
        assert_eq!(decades([2.0, 3.0].into_iter()), (0, 1));
        assert_eq!(decades([0.5, 1.0].into_iter()), (-1, 0));
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(spelled(5), "100,000");
        assert_eq!(spelled(2), "100");
        assert_eq!(spelled(-1), "0.1");
    }
}
