//! Prints for the operator: aligned columns, or JSON. Nothing else in this binary prints.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "an operator's command speaks to its terminal"
)]

use std::{io::Write as _, process::ExitCode};

use crate::exit::{Exit, ReportFailed};

/// Columns under headings, each as wide as its widest cell. Cells come from the store, the kernel or a file, so everything that a
/// terminal would act on is escaped.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| cni::plain(cell)))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
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
        .map(|row| line(row.each_ref().map(|cell| &**cell)));
    std::iter::once(line(headings)).chain(body).collect()
}

/// The schema of the answers in JSON: `docs/json.md`. It changes when a key goes or changes its meaning, not when one is added.
const SCHEMA: u32 = 1;

/// An answer in JSON as text for a person or a pipe, below the word for what it is. JSON only escapes C0; here everything else that
/// a terminal acts on is escaped, too.
pub fn json(what: &str, value: serde_json::Value) -> String {
    let mut answer = serde_json::json!({ "schema": SCHEMA });
    answer[what] = value;
    let text = format!("{answer:#}\n");
    let escaped = |c: char| match c {
        '\n' => c.to_string(),
        _ if cni::acts(c) => format!("\\u{:04x}", u32::from(c)),
        _ => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// One item a line, for a pipe.
pub fn lines(items: impl IntoIterator<Item = impl ToString>) -> String {
    let line = |item: String| cni::plain(&item).into_owned() + "\n";
    items
        .into_iter()
        .map(|item| line(item.to_string()))
        .collect()
}

/// Prints the answer. It is no error if the reader is gone (`crosshost network ls | head -1`).
pub fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(cni::plain_lines(text).as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => print_error(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// Prints an error, a failed report, or the help that was asked for.
pub fn print_error(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        let text = error.render().to_string();
        if !error.use_stderr() {
            return print(&text);
        }
        eprint!("{}", cni::plain_lines(&text));
    } else if let Some(ReportFailed(answer)) = error.downcast_ref() {
        print(answer);
    } else {
        eprintln!("crosshost: {}", cni::line(error.to_string()));
    }
    Exit::of(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_does_nothing_to_a_terminal_and_is_as_wide_as_it_looks() {
        let rows = [
            ["größe".to_owned(), "x".to_owned()],
            ["a\nb".to_owned(), "\u{1b}[2J\u{202e}".to_owned()],
        ];
        assert_eq!(
            table(["N", "VALUE"], &rows),
            "N      VALUE\ngröße  x\na\\nb   \\u{1b}[2J\\u{202e}\n"
        );
        let value = serde_json::json!({"schema": 1, "name": "a\u{9b}\u{202e}\n\u{1b}ö"});
        let text = json("name", value["name"].clone());
        let escaped = "a\\u009b\\u202e\\n\\u001bö";
        assert_eq!(
            text,
            format!("{{\n  \"schema\": 1,\n  \"name\": \"{escaped}\"\n}}\n")
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }

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
