//! Exit codes: a script can tell a refusal and a finding from a slip, and both from a host at which nobody could look.

use integration::{Backend, Lab};

#[test]
fn each_command_ends_as_its_help_says() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    host.create_network("ov_net1", "10.0.0.0/24");
    let ends = |words: &str, code: i32| {
        let said = host.crosshost(words);
        assert_eq!(said.status.code(), Some(code), "{said}");
        // An answer, and the report of something wrong, go to standard output; what hindered the command does not.
        let is_answer = code == 0 || words.starts_with("doctor");
        assert_eq!(said.stderr.is_empty(), is_answer, "{said}");
    };
    for words in [
        "--help",
        "network create --help",
        "--version",
        "network ls",
        "network inspect ov_net1",
        "node ls",
        "endpoint ls",
        "endpoint ls --local",
        "port ls",
        "sync",
        "gc",
        "completion bash",
        "completion zsh",
        "completion fish",
        "man --out /tmp/man",
    ] {
        ends(words, 0);
    }
    for words in [
        "network create ov_net1 --subnet 10.0.0.0/24",
        "network create ov_net2 --subnet 10.0.0.0/25",
        "network inspect ov_net9",
        "network rm ov_net9",
        "node rm docker09",
        "node rm docker01",
    ] {
        ends(words, 1);
    }
    for words in [
        "network",
        "netwrok ls",
        "node rm",
        "node ls --local",
        "completion csh",
        "man",
        "sync now",
    ] {
        ends(words, 2);
    }
    let needs_the_store = [
        "network ls",
        "network inspect ov_net1",
        "network create ov_net3 --subnet 10.3.0.0/24",
        "network rm ov_net1",
        "node ls",
        "node rm docker01 --force",
        "endpoint ls",
        "sync",
        "gc",
    ];
    host.script("mv /dev/shm/store /dev/shm/elsewhere; echo >/dev/shm/store");
    for words in &needs_the_store[..8] {
        ends(words, 3);
    }
    ends("doctor", 1);
    host.script("rm /dev/shm/store; mv /dev/shm/elsewhere /dev/shm/store");
    ends("node ls", 0);
    host.script("echo '{' >/etc/crosshost/config.json");
    for words in needs_the_store {
        ends(words, 3);
    }
    ends("doctor", 1);
}
