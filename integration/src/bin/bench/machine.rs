//! What a reader must know of the machine to make something of its numbers.

use std::path::{Path, PathBuf};

/// A program that the same build has made.
pub fn beside_this(path: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the benchmark's own file");
    let file = this.parent().unwrap_or(Path::new("")).join(path);
    assert!(
        file.is_file(),
        "{} is missing: run `make bench` or `make scale`",
        file.display()
    );
    file
}

/// Kernel and CPUs.
pub fn described() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    let release = release.unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, Into::into);
    format!("Linux {}, {cpus} CPUs", release.trim())
}

/// The model name of the first CPU.
pub fn processor() -> String {
    let known = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = known
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or("unknown")
        .trim_start_matches(['\t', ' ', ':']);
    model.to_owned()
}

/// The load of the last minute: with more than there are CPUs, the numbers are the neighbours' too.
pub fn load() -> String {
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    loads.split(' ').next().unwrap_or_default().to_owned()
}
