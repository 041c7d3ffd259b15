//! What the operator sees: aligned columns, or JSON. The one place of this binary that prints.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an operator's command speaks to its terminal"
)]

use std::{io::Write as _, process::ExitCode};

/// Columns under headings, each as wide as its widest cell.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].len())
            .chain([headings[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let body = rows
        .iter()
        .map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    std::iter::once(line(headings)).chain(body).collect()
}

/// A JSON value as text for a person or a pipe.
pub fn json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// Prints the answer. A reader that went away (`crosshost network ls | head -1`) is no error.
pub fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => complain(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// An answer that tells of something wrong: the command ends like one that failed.
#[derive(Debug)]
pub struct Bad(pub String);

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Bad {}

/// A command line that makes no sense: nothing was read or written.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The exit code of a command line that makes no sense.
const USAGE: u8 = 2;

/// Prints why there is no answer, or the help that was asked for.
pub fn complain(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        let text = error.render().to_string();
        if !error.use_stderr() {
            return print(&text);
        }
        eprint!("{}", cni::plain_lines(&text));
        return ExitCode::from(USAGE);
    }
    if let Some(Bad(answer)) = error.downcast_ref() {
        print(answer);
        return ExitCode::FAILURE;
    }
    eprintln!("crosshost: {}", cni::line(error.to_string()));
    match error.downcast_ref() {
        Some(Usage(_)) => ExitCode::from(USAGE),
        None => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = [
            ["a".to_owned(), "long".to_owned()],
            ["bcd".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            table(["N", "VALUE"], &rows),
            "N    VALUE\na    long\nbcd  x\n"
        );
    }
}
