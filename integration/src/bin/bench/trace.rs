//! What a program does beside taking time: `strace` counts its execs and system calls, and those of all its children.

use std::path::Path;

use integration::Host;

use crate::inside::Order;

/// Where strace puts its table, in the memory of the host that it ran on.
const COUNTS: &str = "/dev/shm/strace";

/// The same order under `strace`. `None` if there is no strace.
pub fn traced(plain: Order) -> Option<Order> {
    let strace = Path::new("/usr/bin/strace");
    if !strace.is_file() {
        return None;
    }
    let options = ["-f", "-c", "-U", "calls,errors,name", "-o", COUNTS, "--"];
    let mut arguments: Vec<String> = options.map(str::to_owned).into();
    arguments.push(plain.program.display().to_string());
    arguments.extend(plain.arguments);
    Some(Order {
        program: strace.to_owned(),
        arguments,
        ..plain
    })
}

/// Successful execs and all system calls of the last order that was traced on this host.
pub fn counts(host: &Host) -> Option<(u32, u32)> {
    let counts = std::fs::read_to_string(host.namespace().path(COUNTS));
    let counts = counts.expect("what strace counted");
    Some((counted("execve", &counts)?, counted("total", &counts)?))
}

/// The calls named `name` that succeeded, by strace's table of calls, errors (blank if none) and names.
fn counted(name: &str, table: &str) -> Option<u32> {
    let mut rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.len() >= 2 && row.last() == Some(&name))?;
    let calls: u32 = row[0].parse().ok()?;
    let failed = if name == "execve" && row.len() == 3 {
        row[1].parse().ok()?
    } else {
        0
    };
    Some(calls - failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_execs_are_no_execs_but_are_calls() {
        let table = "    calls    errors syscall\n--------- --------- ------\n        5         3 execve\n       30           mmap\n\
                     --------- --------- ------\n       35         3 total\n";
        assert_eq!(counted("execve", table), Some(2));
        assert_eq!(counted("total", table), Some(35));
        assert_eq!(counted("clone3", table), None);
    }
}
