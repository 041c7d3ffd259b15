//! The README, typed: its walk-through runs word for word on three hosts that have nothing of ours yet, with the files that
//! it names, and what it shows as answers must come. So a reader never types a command that nobody has run.
//!
//! The language of a fenced block says what it is. `sh`, with a first line `# on docker01, docker02`: typed on these hosts,
//! one after the other; without that line, commands that CI runs. `text`: the answer to the block before, `...` standing
//! for anything. `json FILE`: that file. None: a picture.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use integration::{
    Attachment, Backend, Containerd, Host, Lab, Programs, Running, Runtime, workspace,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(1);

/// The part for who has nerdctl, and the steps of the first walk-through that it shares.
const NERDCTL: &str = "With containerd and nerdctl";
const SHARED: [&str; 4] = [
    "Consul.",
    "Binaries and configuration",
    "The network and the hosts",
    "The files",
];

#[test]
fn the_walk_through_works_as_it_stands() {
    let lab = Lab::new(3, Backend::Dir);
    for host in lab.hosts() {
        strip(host);
    }
    let mut steps = blocks();
    steps.retain(|(part, _)| part != NERDCTL);
    walk(&lab, &steps, spawn);
}

#[test]
fn the_walk_through_with_nerdctl_works_as_it_stands() {
    let lab = Lab::new(3, Backend::Dir);
    let on_hosts = lab.hosts().iter().map(|host| {
        strip(host);
        let runtime = Containerd::start(host);
        // The plugins are where the README has ours put, which is where nerdctl looks by itself.
        runtime.processes().script(&format!(
            "sed -i /cni_path/d /etc/nerdctl/nerdctl.toml
             install -D -t /opt/cni/bin {}/*",
            Programs::REFERENCE
        ));
        runtime
    });
    let on_hosts: Vec<_> = on_hosts.collect();
    let (before, after) = SHARED.split_at(2);
    let parts = [before, &[NERDCTL], after].concat();
    let all = blocks();
    let steps = parts.iter().flat_map(|part| {
        let of_part = all.iter().filter(move |(its, _)| its == part);
        of_part.cloned()
    });
    walk(&lab, &steps.collect::<Vec<_>>(), |host, words| {
        // What stands for ssh finds the other hosts by their process ids, which containerd's own processes do not see.
        if words.iter().any(|word| word.contains("ssh ")) {
            return spawn(host, words);
        }
        let on = on_hosts.iter().find(|it| it.host().name() == host.name());
        on.expect("a runtime").processes().spawn(words)
    });
}

/// Types these blocks of a walk-through, each where it says, and looks that there come the answers, and that nothing is left.
#[track_caller]
fn walk(lab: &Lab, steps: &[(String, Block)], spawn: impl Fn(&Host, &[&str]) -> Running) {
    // Somebody has put a Consul on docker01, unless this machine has one there itself.
    let consul = lab.host(1).namespace().path("/usr/local/bin/consul");
    let _ = std::os::unix::fs::symlink(Programs::consul(), consul);
    let others = lab.hosts().iter().map(|host| {
        let (name, pid) = (host.name(), host.namespace().pid());
        format!("{name}) pid={pid} ;;")
    });
    let others: String = others.collect();
    // Root of docker01 may log in to the others.
    let ssh = format!(
        "#!/bin/sh\ncase $1 in {others} esac\nshift\nexec nsenter -t $pid -m -n -- sh -c \"$*\"\n"
    );
    lab.host(1).write_program("/usr/local/bin/ssh", ssh);
    let untouched = lab.footprints();
    let files: Vec<_> = lab.hosts().iter().map(files_of).collect();
    let start = |host: &Host, text: &str| start(host, text, &spawn);

    let (mut answer, mut staying, mut typed) = (String::new(), Vec::new(), 0);
    for (_, block) in steps {
        match block {
            Block::Typed(places, text) => {
                let (names, stays) = match places.strip_suffix(", in a terminal of its own") {
                    Some(names) => (names, true),
                    None => (&places[..], false),
                };
                for name in names.split(", ") {
                    let host = lab.hosts().iter().find(|host| host.name() == name);
                    let host = host.unwrap_or_else(|| panic!("README: {name} is no host"));
                    if stays {
                        staying.push(start(host, &format!("exec {text}")));
                    } else {
                        answer = start(host, text).wait(LIMIT).ok().stdout;
                    }
                }
                typed += 1;
            }
            Block::Answer(text) => assert_shows(&answer, text),
            Block::OfCi(_) | Block::File(..) | Block::Picture => {}
        }
    }
    assert!(typed >= 8, "the blocks were found: {typed}");
    for service in &mut staying {
        assert!(service.is_alive(), "it stays until the end");
        service.kill();
    }
    lab.assert_same_as(&untouched, "after the walk-through");
    for (host, before) in lab.hosts().iter().zip(files) {
        let mut left = files_of(host);
        // nerdctl keeps locks there, its own network, and a folder for its namespace.
        let of_nerdctl = [".", "nerdctl-", "crosshost-"].map(|it| format!("/etc/cni/net.d/{it}"));
        let is_ours = |file: &String| !of_nerdctl.iter().any(|its| file.starts_with(its));
        left.retain(|file| !before.contains(file) && is_ours(file));
        assert!(left.is_empty(), "{}: {left:?}", host.name());
    }
}

/// The files of a host where ours are put.
fn files_of(host: &Host) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["/opt/cni/bin", "/etc/cni/net.d", "/etc/crosshost"] {
        let files = std::fs::read_dir(host.namespace().path(folder));
        let files = files.into_iter().flatten().flatten();
        found.extend(files.map(|file| format!("{folder}/{}", file.file_name().display())));
    }
    found
}

#[test]
fn other_commands_are_run_by_ci_and_shown_files_are_as_shown() {
    let ci = read(".ci/run");
    let (mut commands, mut files) = (0, 0);
    for (_, block) in blocks() {
        match block {
            Block::OfCi(text) => {
                // The recipe of `make demo` ends in the program that the next test runs.
                for line in text.lines().filter(|line| *line != "make demo") {
                    assert!(ci.lines().any(|run| run == line), "{line}: not in .ci/run");
                    commands += 1;
                }
            }
            Block::File(path, text) => {
                assert_eq!(read(&path), text, "{path}");
                files += 1;
            }
            Block::Typed(..) | Block::Answer(_) | Block::Picture => {}
        }
    }
    assert_eq!((commands, files), (1, 2), "what the README shows");
    // The operator's configuration is the hosts' with another token.
    let operator = read("cni-conf/operator.json").replace("tokens/operator", "token");
    assert_eq!(operator, read("cni-conf/config.json"));
}

#[test]
fn the_demo_ends_well() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.arg("dir");
    Running::start(demo, b"")
        .wait(LIMIT)
        .ok()
        .says(&["Nothing is left"]);
}

#[test]
fn install_is_what_the_readme_says() {
    let said = Command::new("make")
        .args([
            "--dry-run",
            "--no-print-directory",
            "--old-file=build",
            "install",
        ])
        // Of the make that may run this test.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .current_dir(workspace())
        .output()
        .expect("make");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(!said.is_empty());
    assert!(read("README.md").contains(&said), "{said}");
}

#[test]
fn the_shipped_conflist_declares_only_what_is_acted_on() {
    let conflist: Value = serde_json::from_str(&read("cni-conf/overlay.conflist")).expect("JSON");
    let capabilities = &conflist["plugins"][0]["capabilities"];
    assert_eq!(
        *capabilities,
        json!({ "ips": true, "mac": true, "ipRanges": true, "bandwidth": true })
    );

    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&conflist);
    let first = Attachment::new(host, "t1", "ov_net1");
    assert_eq!(first.address.to_string(), "10.0.0.2", "without a wish");
    let range =
        json!({ "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.4", "rangeEnd": "10.0.0.5" });
    for (name, asked, given) in [
        ("t2", json!({ "ips": ["10.0.0.77/24"] }), "10.0.0.77"),
        ("t3", json!({ "mac": "02:11:22:33:44:55" }), "10.0.0.3"),
        ("t4", json!({ "ipRanges": [[range]] }), "10.0.0.4"),
    ] {
        let container = host.container(name);
        let typed = format!(
            "CAP_ARGS='{asked}' CNI_PATH={} {} add ov_net1 {}",
            Programs::cni_path(),
            Programs::cnitool().display(),
            container.netns(),
        );
        start(host, &typed, spawn).wait(LIMIT).ok();
        let address = container.address("eth0").expect("an address");
        assert_eq!(address.to_string(), given, "{asked}");
        let mac = container.link("eth0")["address"].clone();
        assert!(
            asked["mac"].is_null() || asked["mac"] == mac,
            "{asked}: {mac}"
        );
    }
}

#[test]
fn the_tables_of_keys_have_every_key_that_the_code_reads() {
    let tables = read("cni-conf/README.md");
    for (file, read_there) in [
        (
            "crates/cluster/src/config/settings.rs",
            &["StoreSettings", "NodeSettings"][..],
        ),
        (
            "crates/cluster/src/config/conflist.rs",
            &["Conflist", "Segment"],
        ),
        ("crates/overlay/src/config.rs", &["WireOfHost"]),
        (
            "crates/overlay/src/endpoint/bandwidth/asked.rs",
            &["Wire", "Asked"],
        ),
        ("crates/ipam/src/schema.rs", &["Schema"]),
        ("crates/ipam/src/range.rs", &["Range"]),
        (
            "crates/ipam-kv/src/config.rs",
            &["Wire", "WireIpam", "WireIps", "WireArgs"],
        ),
    ] {
        let source = read(file);
        for name in read_there {
            let fields = source.split(&format!("struct {name} {{\n")).nth(1);
            let fields = fields.unwrap_or_else(|| panic!("{file}: no {name}"));
            let lines = fields.lines().take_while(|line| *line != "}");
            let code = lines.map(str::trim).filter(|line| !line.starts_with('/'));
            let keys = code.filter_map(|line| line.split_once(": ")?.0.rsplit(' ').next());
            // What is no key itself: `segment` stands for the keys of overlay, and attributes have colons too.
            let is_key = |key: &&str| {
                *key != "segment"
                    && key
                        .bytes()
                        .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
            };
            let keys: Vec<_> = keys.filter(is_key).map(camel).collect();
            assert!(!keys.is_empty(), "{file}: {name}");
            for key in keys {
                let named = [('`', '`'), ('.', '`'), ('.', '.'), ('`', '.'), ('.', '[')];
                let found = named
                    .iter()
                    .any(|(before, after)| tables.contains(&format!("{before}{key}{after}")));
                assert!(found, "cni-conf/README.md has no {key} ({file}, {name})");
            }
        }
    }
}

/// A field's name as a key.
fn camel(field: &str) -> String {
    let mut words = field.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |key, word| {
        key + &word[..1].to_uppercase() + &word[1..]
    })
}

/// Makes a host one that nobody has prepared: no configuration, and folders for programs that are its own.
fn strip(host: &Host) {
    host.script(&format!(
        "rm /etc/crosshost/config.json
         own=/dev/shm/hosts/{}
         for folder in /opt /usr/local; do
             mkdir -p $own$folder/upper $own$folder/work
             mount -t overlay overlay $folder \
                 -o lowerdir=$folder,upperdir=$own$folder/upper,workdir=$own$folder/work
         done
         rm -rf /opt/cni",
        host.name()
    ));
}

/// Types `text` on `host`, which for once also has a host name of its own, in the folder of the workspace.
fn start(host: &Host, text: &str, spawn: impl Fn(&Host, &[&str]) -> Running) -> Running {
    // Not `current_dir`: who enters a mount namespace starts at its root.
    let typed = format!(
        "echo {} > /proc/sys/kernel/hostname; cd {}\n{text}",
        host.name(),
        workspace().display()
    );
    let shell = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--uts"];
    spawn(host, &[&shell[..], &["--", "sh", "-euc", &typed]].concat())
}

/// Starts a command on a host.
fn spawn(host: &Host, words: &[&str]) -> Running {
    let mut command = host.namespace().command(words[0]);
    command.args(&words[1..]);
    Running::start(command, b"")
}

/// A fenced block of the README.
#[derive(Clone)]
enum Block {
    /// Where it is typed, as the first line says, and the other lines.
    Typed(String, String),
    OfCi(String),
    Answer(String),
    /// Its path and its content.
    File(String, String),
    Picture,
}

impl Block {
    fn new(language: &str, text: String) -> Block {
        let places = text.split_once('\n').and_then(|(first, rest)| {
            let places = first.strip_prefix("# on ")?;
            Some((places.to_owned(), rest.to_owned()))
        });
        let words: Vec<_> = language.split(' ').collect();
        match (&words[..], places) {
            (["sh"], Some((places, text))) => Block::Typed(places, text),
            (["sh"], None) => Block::OfCi(text),
            (["text"], _) => Block::Answer(text),
            (["json", path], _) => Block::File((*path).to_owned(), text),
            ([""], _) => Block::Picture,
            _ => panic!("README: what is a block of {language}?"),
        }
    }
}

/// All blocks, each with the part that it is in: the last heading, or the bold words that a paragraph starts with.
fn blocks() -> Vec<(String, Block)> {
    let (mut blocks, mut part) = (Vec::new(), String::new());
    let mut open: Option<(String, String)> = None;
    for line in read("README.md").lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some((language, text))) => {
                let block = Block::new(language, std::mem::take(text));
                blocks.push((part.clone(), block));
                open = None;
            }
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (None, Some((_, text))) => text.extend([line, "\n"]),
            (None, None) => {
                let bold = |rest: &str| rest.split_once("**").map(|(words, _)| words.to_owned());
                let heading = line.strip_prefix("## ").map(str::to_owned);
                if let Some(name) = heading.or(line.strip_prefix("**").and_then(bold)) {
                    part = name;
                }
            }
        }
    }
    blocks
}

/// Insists that the lines of `shown` came in this order. Spaces count as one, `...` as anything.
fn assert_shows(answer: &str, shown: &str) {
    let single = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut said = answer.lines().map(single);
    for wanted in shown.lines().map(single).filter(|line| !line.is_empty()) {
        let found = said.any(|line| fits(&line, &wanted));
        assert!(
            found,
            "the README shows {wanted:?}, but there came\n{answer}"
        );
    }
}

fn fits(line: &str, wanted: &str) -> bool {
    let (said, wanted): (Vec<_>, Vec<_>) = (line.split(' ').collect(), wanted.split(' ').collect());
    let same = |(said, wanted): (&&str, &&str)| match wanted.split_once("...") {
        Some((head, tail)) => said.starts_with(head) && said.ends_with(tail),
        None => said == wanted,
    };
    said.len() == wanted.len() && said.iter().zip(&wanted).all(same)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}
