//! What a program does beside taking time: `strace` tells which programs and threads it starts, how many system calls all of them
//! make, and which documents they read, write and rename.

use std::collections::HashMap;
use std::path::Path;

use integration::Host;

use crate::inside::Order;

/// Where strace puts its lines, in the memory of the host that it ran on.
const LINES: &str = "/dev/shm/strace";
/// Below these are the documents: ours, and those of the reference plugins.
const DOCUMENTS: [&str; 2] = ["/run/crosshost/", "/var/lib/cni/"];
/// Names of lock files, which nobody reads.
const LOCKS: [&str; 2] = ["/locks/", "/lock\""];

/// What a program and all that it started did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Programs that were started, itself among them.
    pub programs: u32,
    /// Threads beside the first one of each process.
    pub threads: u32,
    /// System calls.
    pub calls: u32,
    /// Documents that were opened to be read.
    pub read: u32,
    /// Documents that were opened to be written.
    pub written: u32,
    /// Documents that were renamed.
    pub renamed: u32,
}

/// The same order under `strace`. `None` if there is no strace.
pub fn traced(plain: Order) -> Option<Order> {
    let strace = Path::new("/usr/bin/strace");
    if !strace.is_file() {
        return None;
    }
    let options = [
        "-f",
        "-qq",
        "-s",
        "1",
        "-e",
        "signal=none",
        "-o",
        LINES,
        "--",
    ];
    let mut arguments: Vec<String> = options.map(str::to_owned).into();
    arguments.push(plain.program.display().to_string());
    arguments.extend(plain.arguments);
    Some(Order {
        program: strace.to_owned(),
        arguments,
        ..plain
    })
}

/// What the last order did that was traced on this host.
pub fn of_last(host: &Host) -> Trace {
    let lines = std::fs::read_to_string(host.namespace().path(LINES));
    counted(&lines.expect("what strace saw"))
}

/// By lines like `17 openat(AT_FDCWD, "/run/x", O_RDONLY) = 3`, where a call during which another thread is seen has two:
/// `17 close(3 <unfinished ...>` and `17 <... close resumed>) = 0`.
fn counted(lines: &str) -> Trace {
    let mut trace = Trace::default();
    let mut unfinished = HashMap::new();
    for line in lines.lines() {
        let Some((thread, said)) = line.trim_start().split_once(' ') else {
            continue;
        };
        let said = said.trim_start();
        if said.starts_with("<... ") {
            let begun = unfinished.remove(thread).unwrap_or_default();
            trace.add(begun, said);
            continue;
        }
        trace.calls += 1;
        match said.strip_suffix(" <unfinished ...>") {
            Some(begun) => drop(unfinished.insert(thread, begun)),
            None => trace.add(said, said),
        }
    }
    trace
}

impl Trace {
    /// A call by its beginning and its end, if it succeeded.
    fn add(&mut self, begun: &str, ended: &str) {
        let result = ended.rsplit_once(" = ").map_or("", |(_, result)| result);
        if result.is_empty() || result.starts_with(['-', '?']) {
            return;
        }
        let (name, arguments) = begun.split_once('(').unwrap_or_default();
        let is_document = DOCUMENTS.iter().any(|it| arguments.contains(it))
            && !LOCKS.iter().any(|it| arguments.contains(it));
        match name {
            "execve" => self.programs += 1,
            "clone" | "clone3" if arguments.contains("CLONE_THREAD") => self.threads += 1,
            "rename" | "renameat" | "renameat2" if is_document => self.renamed += 1,
            "openat" if is_document && !arguments.contains("O_DIRECTORY") => {
                if arguments.contains("O_RDONLY") {
                    self.read += 1;
                } else {
                    self.written += 1;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_a_call_and_nothing_else() {
        let lines = r#"7 execve("/bin/overlay", ["o"...], 0x7 /* 9 vars */) = 0
7 openat(AT_FDCWD, "/run/crosshost/news/n.json", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)
7 openat(AT_FDCWD, "/run/crosshost/locks/n", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3
7 openat(AT_FDCWD, "/var/lib/cni/networks/n/lock", O_RDONLY|O_CREAT) = 3
7 openat(AT_FDCWD, "/run/crosshost/news/n.json", O_RDONLY|O_CLOEXEC <unfinished ...>
8 execve("/no", ["n"...], 0x7 /* 9 vars */) = -1 ENOENT (No such file or directory)
7 <... openat resumed>)       = 4
7 openat(AT_FDCWD, "/run/crosshost/news", O_RDONLY|O_DIRECTORY) = 4
7 openat(AT_FDCWD, "/run/crosshost/news/.n", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 4
7 rename("/run/crosshost/news/.n", "/run/crosshost/news/n.json") = 0
7 clone3({flags=CLONE_VM|CLONE_FS|CLONE_THREAD, parent_tid=[9]}, 88) = 9
7 clone3({flags=CLONE_VFORK, exit_signal=SIGCHLD}, 88) = 10
7 exit_group(0) = ?
"#;
        let counted = counted(lines);
        let wanted = Trace {
            programs: 1,
            threads: 1,
            calls: 12,
            read: 1,
            written: 1,
            renamed: 1,
        };
        assert_eq!(counted, wanted);
    }
}
