//! What is said about many samples of the same thing: a median and how far they lie from it. A mean would be the
//! neighbours' work as much as ours: one sample that had to wait for a CPU moves it.

use std::time::Duration;

/// Order statistics.
pub struct Spread {
    pub min: f64,
    pub quarter: f64,
    pub median: f64,
    pub three_quarters: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        // The mean of the two neighbours where the place falls between two.
        let at = |quarters: usize| {
            let place = last * quarters;
            f64::midpoint(values[place / 4], values[place.div_ceil(4)])
        };
        Spread {
            min: values[0],
            quarter: at(1),
            median: at(2),
            three_quarters: at(3),
            max: values[last],
        }
    }
}

/// A time as the tables have it.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_between_the_two_in_the_middle() {
        let of = |values: &[f64]| {
            let it = Spread::of(values.to_vec());
            format!(
                "{} {} {} {} {}",
                it.min, it.quarter, it.median, it.three_quarters, it.max
            )
        };
        assert_eq!(of(&[9.0, 1.0, 2.0, 3.0, 4.0]), "1 2 3 4 9");
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), "1 1.5 2.5 3.5 4");
        assert_eq!(of(&[7.0]), "7 7 7 7 7");
    }
}
