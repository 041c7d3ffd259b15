//! The command line as an operator types it: what each binary says of itself, and that what makes no sense does nothing.

use std::process::Command;

use integration::{Attachment, Backend, Host, Lab, Programs, Running, conflist, workspace};
use serde_json::Value;

const LIMIT: std::time::Duration = std::time::Duration::from_mins(1);

fn said_by(program: &str, arguments: &[&str]) -> integration::Finished {
    let mut command = Command::new(Programs::product(program));
    command.args(arguments).env_clear();
    Running::start(command, b"").wait(LIMIT).ok()
}

/// The first version among the words, as Nomad's client looks for one in what a plugin prints that is started without
/// arguments (`client/fingerprint/plugins_cni.go`).
fn nomads_version(text: &str) -> Option<[u32; 3]> {
    text.split_whitespace().find_map(|word| {
        let numbers = word.strip_prefix('v').unwrap_or(word).split('.');
        let numbers: Vec<u32> = numbers.map(|it| it.parse().ok()).collect::<Option<_>>()?;
        numbers.try_into().ok()
    })
}

#[test]
fn all_binaries_say_the_same_version_and_commit() {
    let own = said_by("crosshost", &["--version"]).stdout;
    let build = own.trim_end().strip_prefix("crosshost ").expect("its name");
    let (version, commit) = build.split_once(' ').expect("version and commit");
    assert_eq!(version, "1.0.0");
    let commit = commit.trim_matches(['(', ')']);
    let log = Command::new("git")
        .args(["cat-file", "-t", commit])
        .current_dir(workspace())
        .output();
    let known = log.is_ok_and(|said| said.stdout == b"commit\n");
    assert!(commit == "unknown" || known, "{own}");
    for plugin in ["overlay", "ipam-kv", "portmap"] {
        let said = said_by(plugin, &["--version"]).stdout;
        assert_eq!(said, format!("{plugin} {build}\n"));
    }
}

/// Nomad's server places jobs of mode `bridge` only on clients whose `portmap` has 0.4.0 or later.
#[test]
fn nomad_finds_a_version_that_it_takes_for_portmap() {
    for plugin in ["overlay", "ipam-kv", "portmap"] {
        let said = said_by(plugin, &[]);
        assert_eq!(said.stdout, "");
        let version = nomads_version(&said.stderr);
        assert!(version.is_some_and(|it| it >= [0, 4, 0]), "{said}");
        assert_eq!(version, nomads_version("CNI portmap plugin v1.0.0"));
    }
}

/// The commands, each with names that it takes and the options that it has.
const COMMANDS: [(&str, &[&str]); 18] = [
    (
        "network create X --subnet 10.9.0.0/24",
        &[
            "--driver",
            "--attachable",
            "--opt",
            "--subnet",
            "--ipv6",
            "--ip-range",
            "--internal",
            "--aux-address",
            "--label",
            "--gateway",
            "--range",
            "--vni",
            "--mtu",
            "--vxlan-port",
            "--egress",
            "--egress-subnet",
            "--block-prefix",
            "--exclude",
            "--reclaim-after",
        ],
    ),
    ("network ls", &["--json", "--quiet", "--filter"]),
    ("network inspect ov_net1", &["--json", "--no-trunc"]),
    ("network rm ov_net1", &[]),
    (
        "network update ov_net1",
        &["--subnet", "--gateway", "--mtu", "--label", "--label-rm"],
    ),
    (
        "network connect ov_net1 c1",
        &["--ip", "--mac", "--interface"],
    ),
    ("network disconnect ov_net1 c1", &[]),
    ("network prune", &["--force", "--dry-run", "--filter"]),
    ("node ls", &["--json", "--filter", "--quiet"]),
    ("node rm docker01", &["--force"]),
    (
        "endpoint ls",
        &["--json", "--local", "--filter", "--quiet", "--no-trunc"],
    ),
    ("port ls", &["--json", "--filter", "--quiet", "--no-trunc"]),
    ("sync", &["--watch"]),
    ("doctor", &["--json"]),
    ("gc", &["--dry-run"]),
    ("completion bash", &[]),
    ("version", &[]),
    ("", &["--version", "--help"]),
];

/// All options with a value that each would take.
const OPTIONS: [&str; 32] = [
    "--attachable",
    "--label-rm a",
    "--ip 10.9.0.7",
    "--mac 02:00:00:00:00:07",
    "--interface eth7",
    "--driver overlay",
    "--opt mtu=1400",
    "--ipv6",
    "--ip-range 10.9.0.0/25",
    "--internal",
    "--aux-address a=10.9.0.9",
    "--label a=b",
    "--subnet 10.8.0.0/24",
    "--gateway 10.9.0.1",
    "--range 10.9.0.2-10.9.0.9",
    "--vni 7",
    "--mtu 1400",
    "--vxlan-port 4790",
    "--egress none",
    "--egress-subnet 172.19.0.0/16",
    "--block-prefix 28",
    "--exclude 10.9.0.7",
    "--reclaim-after 60",
    "--json",
    "--local",
    "--force",
    "--watch",
    "--dry-run",
    "--filter name=x",
    "--quiet",
    "--no-trunc",
    "--version",
];

/// All that crosshost could have written: the host's files, and the store in a directory with the time of each change.
fn written(host: &Host) -> String {
    let list = "for folder in /run/crosshost /var/lib/crosshost /etc/crosshost /dev/shm/store; do
                    [ ! -e $folder ] || find $folder -printf '%p %s %T@\\n'
                done | sort";
    host.run(&["sh", "-euc", list]).ok().stdout
}

#[test]
fn an_option_that_a_command_does_not_have_is_refused_and_nothing_is_touched() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    let create = "network create ov_net1 --subnet 10.0.0.0/24";
    host.crosshost(create).ok();
    let before = written(host);
    assert!(before.contains("ov_net1"), "{before}");
    let mut tried = 0;
    for (command, own) in COMMANDS {
        for option in OPTIONS {
            let (name, _) = option.split_once(' ').unwrap_or((option, ""));
            if own.contains(&name) {
                continue;
            }
            let words: Vec<_> = command
                .split_whitespace()
                .chain(option.split(' '))
                .collect();
            let said = host.crosshost(&words);
            assert_eq!(said.status.code(), Some(2), "{said}");
            assert!(
                said.stderr.contains(name) && said.stdout.is_empty(),
                "{said}"
            );
            tried += 1;
        }
    }
    assert!(tried > 300, "the table was walked: {tried}");
    assert_eq!(written(host), before, "something was touched");
}

#[test]
fn a_dry_run_removes_and_creates_nothing_where_there_is_none() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    host.create_network("web", "10.0.0.0/24");
    for words in [
        "network rm --dry-run web",
        "network rm web --dry-run",
        "node rm --dry-run docker01",
        "node rm docker01 --force --dry-run",
        "network create --dry-run new --subnet 10.1.0.0/24",
        "sync --dry-run",
    ] {
        let said = host.crosshost(&words.split(' ').collect::<Vec<_>>());
        assert_eq!(said.status.code(), Some(2), "{said}");
    }
    let names = |listed: Value| {
        let all = listed.as_array().expect("a list").clone();
        all.iter().map(|it| it["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(host.listed("network ls")), ["web"]);
    assert_eq!(names(host.listed("node ls")), [host.name()]);
    assert_eq!(host.crosshost("gc --dry-run").ok().stdout, "");
}

/// The default store is a directory, which must not be made by a slip of the pen.
#[test]
fn a_command_line_that_makes_no_sense_makes_no_store() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.script("rm /etc/crosshost/config.json");
    let before = written(host);
    for words in [
        "network rm",
        "network destroy a",
        "network",
        "netwrok ls",
        "network create a --gateway 10.0.0.1",
        "network create a --opt encrypted=",
        "network prune --filter id=7",
        "network create a/b --subnet 10.0.0.0/24",
        "network create a --subnet 10.0.0.5/24",
        "network create a --subnet 10.0.0.0/24 --vni 0",
        "network create a --subnet 10.0.0.0/24 --vni 1 --vni 2",
        "network create a --subnet 10.0.0.0/24 --egress none --egress-subnet 172.19.0.0/16",
        "node rm",
        "gc now",
        "sync docker01",
    ] {
        let said = host.crosshost(&words.split(' ').collect::<Vec<_>>());
        assert_eq!(said.status.code(), Some(2), "{said}");
        assert!(!said.stderr.is_empty(), "{said}");
    }
    assert_eq!(written(host), before);
    // A failure is another matter than a command line that makes no sense.
    let said = host.crosshost("network rm a");
    assert_eq!(said.status.code(), Some(1), "{said}");
    let help = host.crosshost(&[]).ok().stdout;
    assert!(
        help.contains("network") && help.contains("doctor"),
        "{help}"
    );
}

/// Writes a record of the store in a directory again, as another one or in its place, with one field changed.
fn rewrite(host: &Host, key: &str, to: &str, field: &str, value: &Value) {
    let folder = host.namespace().path("/dev/shm/store/crosshost/v1");
    let file = |key: &str| folder.join(format!("{key}="));
    let text = std::fs::read_to_string(file(key)).expect("a record");
    let (revision, record) = text.split_once('\n').expect("a revision");
    let mut record: Value = serde_json::from_str(record).expect("JSON");
    record[field] = value.clone();
    std::fs::write(file(to), format!("{revision}\n{record}")).expect("written");
}

/// It may well live: then it registers anew, and whoever removed it wonders.
#[test]
fn a_host_that_was_heard_of_just_now_is_forgotten_with_force_only() {
    let lab = Lab::new(2, Backend::Dir);
    let host = lab.host(1);
    lab.sync();
    let remove = ["node", "rm", "docker02"];
    let said = host.crosshost(&remove).failed();
    assert_eq!(said.status.code(), Some(1), "{said}");
    for word in [
        "node docker02: heard of ",
        "s ago: it lives",
        "crosshost-sync",
        "--force",
    ] {
        assert!(said.stderr.contains(word), "no {word:?} in {said}");
    }
    let known = || host.listed("node ls").as_array().map(Vec::len);
    assert_eq!(known(), Some(2));
    host.crosshost(&[&remove[..], &["--force"]].concat()).ok();
    assert_eq!(known(), Some(1));
    // One that has been silent for long goes by name.
    lab.host(2).sync();
    let key = "nodes/docker02";
    rewrite(host, key, key, "lastContact", &1_700_000_000.into());
    host.crosshost(&remove).ok();
    assert_eq!(known(), Some(1));
    // Nobody can tell when one was heard of whose record cannot be read.
    lab.host(2).sync();
    rewrite(host, key, key, "schema", &2.into());
    host.crosshost(&remove).failed().warns(&["--force"]);
    assert_eq!(known(), Some(2));
    host.crosshost(&[&remove[..], &["--force"]].concat()).ok();
    assert_eq!(known(), Some(1));
}

/// Whoever can write to the store gives names that a terminal would act on, or that forge a row.
#[test]
fn names_of_the_store_do_nothing_to_a_terminal() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&conflist("ov_net1", "10.0.0.0/24"));
    host.sync();
    let attached = Attachment::new(host, "t1", "ov_net1");
    let evil = "evil\u{1b}[2J\u{9b}31m\u{202e}\u{7f}\nforged  192.168.1.99";
    let escaped = "evil\\u{1b}[2J\\u{9b}31m\\u{202e}\\u{7f}\\nforged  192.168.1.99";
    let other = "nodes/docker99";
    rewrite(host, "nodes/docker01", other, "name", &"docker99".into());
    rewrite(host, other, other, "bootID", &evil.into());
    let lease = format!("leases/ov_net1/{}", attached.address);
    rewrite(host, &lease, &lease, "node", &evil.into());
    for (words, rows) in [
        (&["node", "ls"][..], 3),
        (&["endpoint", "ls"], 2),
        (&["network", "ls"], 2),
        (&["network", "inspect", "ov_net1"], 0),
        (&["endpoint", "ls", "--local"], 2),
        (&["doctor"], 0),
    ] {
        let said = host.crosshost(words);
        let shown = said.stdout.clone() + &said.stderr;
        let acts = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!shown.contains(acts), "{words:?}: {shown:?}");
        assert!(!shown.contains("\nforged"), "{words:?}: {shown}");
        assert!(
            rows == 0 || shown.lines().count() == rows,
            "{words:?}: {shown}"
        );
    }
    for words in [&["node", "ls"][..], &["endpoint", "ls"]] {
        host.crosshost(words).ok().says(&[escaped]);
        let listed = host.listed(words).to_string();
        assert!(listed.contains("forged"), "{listed}");
        let words = [words, &["--json"]].concat();
        host.crosshost(&words)
            .ok()
            .says(&["\\u009b31m\\u202e\\u007f\\nforged"]);
    }
}
