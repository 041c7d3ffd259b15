//! Networks that would share addresses, created at the same moment on three hosts: one is made, the others are refused
//! (why that takes a record of its own: docs/decisions/0002-one-record-of-subnets.md).

use std::fs::File;
use std::time::Duration;

use integration::{Backend, Lab, Programs, Running, until};

const EACH: usize = 4;
const LIMIT: Duration = Duration::from_mins(1);
/// Rounds until it is past belief that no two creations met.
const ROUNDS: usize = 3;

#[test]
fn of_overlapping_networks_one_is_made() {
    let lab = Lab::new(3, Backend::Consul);
    let host = lab.host(1);
    host.run("mkfifo /dev/shm/start").ok();
    for _ in 0..ROUNDS {
        // Whoever opens the pipe for reading then waits until its only writer has closed it.
        let pipe = host.namespace().path("/dev/shm/start");
        let gate = File::options().read(true).write(true).open(pipe);
        let mut waiting = Vec::new();
        for host in lab.hosts().iter().cycle().take(3 * EACH) {
            // Each subnet has 10.0.0.0/28 in it. VNIs that crosshost chooses would meet in the lowest free one, and so
            // hide what is tested here.
            let number = waiting.len();
            let mut create = host.namespace().command("sh");
            create.args(["-c", "read -r line < /dev/shm/start; exec \"$@\"", "--"]);
            create
                .arg(Programs::product("crosshost"))
                .args(["network", "create", &format!("n{number}")])
                .args(["--subnet", &format!("10.0.0.0/{}", 16 + number)])
                .args(["--vni", &format!("{}", 5000 + number)]);
            waiting.push(Running::start(create, b""));
        }
        let is_at_the_gate = |one: &Running| {
            let input = std::fs::read_link(format!("/proc/{}/fd/0", one.pid()));
            input.is_ok_and(|it| it.ends_with("dev/shm/start"))
        };
        until(LIMIT, "at the gate", || waiting.iter().all(is_at_the_gate));
        drop(gate.expect("the pipe"));

        let ended = waiting.into_iter().map(|it| it.wait(LIMIT));
        let (made, refused): (Vec<_>, Vec<_>) = ended.partition(|it| it.status.success());
        for one in &refused {
            assert!(one.stderr.contains("overlaps"), "{one}");
        }
        let listed = host.listed("network ls");
        assert_eq!(made.len(), 1, "{listed:#}");
        let name = listed[0]["name"].as_str().expect("a network");
        host.crosshost(&["network", "rm", name]).ok();
    }
}
