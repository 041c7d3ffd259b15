//! `docs/errors.md` explains every code of the table, in the table's words, and no other.

use cni::code;

#[test]
fn every_code_has_its_row_in_the_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
    let document = std::fs::read_to_string(path).unwrap();
    let is_row = |line: &&str| {
        let cell = line.strip_prefix("| ");
        cell.is_some_and(|cell| cell.starts_with(|c: char| c.is_ascii_digit()))
    };
    let rows: Vec<&str> = document.lines().filter(is_row).collect();
    assert_eq!(rows.len(), code::ALL.len(), "a row for each code");
    for (row, (code, plugins, meaning)) in rows.iter().zip(code::ALL) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [number, by, explained, _todo] = cells[..] else {
            panic!("{row}: four cells");
        };
        assert_eq!(
            (number, by),
            (format!("| {code}").as_str(), *plugins),
            "{row}"
        );
        let rest = explained.strip_prefix(meaning);
        let is_whole = rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric));
        assert!(is_whole, "{row}: begins with {meaning:?}");
    }
    assert!(code::ALL.is_sorted_by(|a, b| a.0 < b.0), "each code once");
}
