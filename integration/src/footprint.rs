//! What a network plugin can leave behind on a host, so that "nothing is left" is a comparison.
//!
//! Taken before and after: links, addresses, routes, the whole nftables ruleset, mounts, named network
//! namespaces, and the records of `/run/crosshost`. A lock file and a snapshot
//! are no leftovers: they are small, hold no attachment, and vanish at reboot. Nor is the one mount that
//! makes `/run/crosshost/netns` a place for namespaces.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::host::Host;
use crate::namespace::CLOCKS;
use crate::run::{Finished, run};

/// Everything on a host that an attachment adds to, one line a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    lines: BTreeSet<String>,
}

impl Footprint {
    #[track_caller]
    pub(crate) fn of(host: &Host) -> Footprint {
        Self::taken(|script| host.run(&["sh", "-uc", script]))
    }

    /// The footprint of the machine that the laboratory runs on.
    #[track_caller]
    pub fn of_this_machine() -> Footprint {
        Self::taken(|script| {
            let mut command = Command::new("sh");
            command.args(["-uc", script]);
            run(command)
        })
    }

    /// By what a script prints where `run` runs it.
    #[track_caller]
    pub(crate) fn taken(run: impl Fn(&str) -> Finished) -> Footprint {
        // One process tree for all of it, since each test asks a few times.
        let said = run(LISTS).ok();
        let parts: Vec<_> = said.stdout.split(MARK).collect();
        let [all_links, addresses, routes, rules, mounts, files] = parts[..] else {
            panic!("six lists: {said}")
        };
        let json = |text: &str| text.parse::<Value>().expect("JSON from ip");
        let mut lines = BTreeSet::new();

        for link in array(&json(all_links)) {
            let kind = &link["linkinfo"]["info_kind"];
            lines.insert(format!("link {} {kind} {}", link["ifname"], link["master"]));
        }
        for link in array(&json(addresses)) {
            for address in array(&link["addr_info"]) {
                let length = &address["prefixlen"];
                let line = format!(
                    "address {}/{length} on {}",
                    address["local"], link["ifname"]
                );
                lines.extend((!is_kernels_own(&line)).then_some(line));
            }
        }
        // A host that forwards IPv6, as one does from its first container with IPv6 on, hears anycasts.
        let routes = routes
            .lines()
            .filter(|route| !route.starts_with("anycast "));
        for route in routes.filter(|route| !is_kernels_own(route)) {
            lines.insert(format!("route {}", route.replace(" linkdown", "").trim()));
        }
        let rules = rules.lines().map(|it| format!("nftables {}", it.trim()));
        lines.extend(rules);

        for mount in mounts.lines() {
            let target = mount.split(' ').nth(1).unwrap_or(mount);
            let of_the_lab = target == "/run/netns" || target.starts_with(CLOCKS);
            if target != "/run/crosshost/netns" && !of_the_lab {
                lines.insert(format!("mount {target}"));
            }
        }
        lines.extend(files.lines().map(|file| format!("file {file}")));
        Footprint { lines }
    }

    /// The lines in which two footprints differ: `+` is here and not in `before`, `-` the other way.
    pub fn since(&self, before: &Footprint) -> Vec<String> {
        let more = self
            .lines
            .difference(&before.lines)
            .map(|line| format!("+ {line}"));
        let less = before
            .lines
            .difference(&self.lines)
            .map(|line| format!("- {line}"));
        more.chain(less).collect()
    }

    /// Insists that nothing came and nothing went.
    #[track_caller]
    pub fn assert_same_as(&self, before: &Footprint, what: &str) {
        let difference = self.since(before);
        assert!(
            difference.is_empty(),
            "{what}:\n  {}",
            difference.join("\n  ")
        );
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is nothing at all; no host is like that.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Between two lists.
const MARK: &str = "@@\n";

/// Lists links, addresses, routes, rules, mounts and files. Not all folders are there, of which `find` complains.
const LISTS: &str = "
    ip -json -details link && echo @@ &&
    ip -json address && echo @@ &&
    ip route show table all && echo @@ &&
    nft list ruleset && echo @@ &&
    cat /proc/self/mounts && echo @@ || exit
    find /run/netns /run/crosshost/netns /run/crosshost/journal /run/crosshost/sandbox /run/crosshost/egress \
        /run/crosshost/egress-netns /run/crosshost/foothold ! -type d 2>/dev/null || true";

/// IPv6 link-local addresses and multicast routes come and go with a link's carrier, a while later.
fn is_kernels_own(line: &str) -> bool {
    line.contains("fe80:") || line.contains("ff00::/8")
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// All files below `folder`, as paths relative to it, sorted; none if there is no such folder.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(next) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else {
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                waiting.push(path);
            } else {
                let relative = path.strip_prefix(folder).unwrap_or(&path);
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
