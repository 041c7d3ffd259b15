//! A watcher hears of the store, or somebody is told that it does not: its connection dies without a word, the host moves to
//! another address, the settings change.

use std::time::Duration;

use crate::doctor_report::ask;
use integration::{Attachment, Backend, Host, Lab, conflist, stays};

const NETWORK: &str = "ov_net1";
/// The kernel gives a dead connection up after 25 s, and the next is begun a second or two later.
const DEAD: Duration = Duration::from_secs(50);
/// What is heard is heard in milliseconds.
const NEWS: Duration = Duration::from_secs(5);

fn lab() -> Lab {
    let lab = Lab::new(3, Backend::Consul);
    for host in &lab.hosts()[..2] {
        host.sync();
    }
    lab.host(1).create_network(NETWORK, "10.0.0.0/24");
    lab.install(&conflist(NETWORK, "10.0.0.0/24"));
    lab
}

/// The tunnel address of a host as the store has it.
fn registered(lab: &Lab, host: &Host) -> String {
    let nodes = lab.host(2).listed("node ls");
    let all = nodes.as_array().expect("a list");
    let own = all.iter().find(|node| node["name"] == host.name());
    own.map(|node| node["vtep"].to_string()).unwrap_or_default()
}

#[test]
fn a_connection_whose_address_is_gone_is_given_up() {
    let lab = lab();
    let [one, three] = [1, 3].map(|number| lab.host(number));
    let _t1 = Attachment::new(one, "t1", NETWORK);
    // The store is spoken to from another address than the tunnels', so that nothing else tells.
    one.script(
        "ip address add 192.168.1.211/24 dev ens3
         ip route add 192.168.1.5/32 dev ens3 src 192.168.1.211",
    );
    let watcher = one.watch();
    one.script("ip address delete 192.168.1.211/24 dev ens3");
    let _t3 = Attachment::new(three, "t3", NETWORK);
    watcher.until(DEAD, "sending to docker03", || one.sends_to(NETWORK, three));
}

#[test]
fn a_host_that_moves_to_another_address_is_known_by_it_at_once_and_hears() {
    let lab = lab();
    let [one, three] = [1, 3].map(|number| lab.host(number));
    one.underlay("ens3");
    let _t1 = Attachment::new(one, "t1", NETWORK);
    let watcher = one.watch();
    one.script(
        "ip address delete 192.168.1.11/24 dev ens3
         ip address add 192.168.1.111/24 dev ens3
         ip route add default via 192.168.1.1",
    );
    watcher.until(Duration::from_secs(20), "known", || {
        registered(&lab, one).contains("192.168.1.111")
    });
    let _t3 = Attachment::new(three, "t3", NETWORK);
    watcher.until(NEWS, "sending to docker03", || one.sends_to(NETWORK, three));
}

#[test]
fn a_reload_reads_the_settings_anew_and_goes_to_the_store_that_they_name() {
    let lab = lab();
    let [one, three] = [1, 3].map(|number| lab.host(number));
    let _t1 = Attachment::new(one, "t1", NETWORK);
    let watcher = one.watch();
    let proxy = lab.consul().proxy();
    one.configure(&proxy.url());
    let queries = || {
        let asked = proxy.take().into_iter();
        asked.filter(|it| it.target.contains("recurse=")).count()
    };
    let long = Duration::from_secs(2);
    stays(long, "silent: its queries are long", || queries() == 0);
    watcher.hang_up();
    let address = proxy.url().replace("consul://", "");
    watcher.until(NEWS, "told", || {
        let said = watcher.said();
        let mut lines = said.lines();
        lines.any(|line| line.contains("settings read again") && line.contains(&address))
    });
    let _t3 = Attachment::new(three, "t3", NETWORK);
    watcher.until(NEWS, "sending to docker03", || one.sends_to(NETWORK, three));
    assert!(queries() > 0, "it listens where the settings say");

    // One that cannot be read is told, and what runs goes on.
    one.write("/etc/crosshost/config.json", "{");
    watcher.hang_up();
    watcher.until(NEWS, "told", || watcher.times_said("settings:") > 0);
    assert!(watcher.is_alive());
    one.configure(&lab.store_url());
    watcher.hang_up();
    watcher.until(NEWS, "back", || {
        watcher.times_said("settings: works again") > 0
    });
}

#[test]
fn doctor_says_of_a_watcher_that_it_hears_nothing() {
    let lab = lab();
    let one = lab.host(1);
    let _t1 = Attachment::new(one, "t1", NETWORK);
    let watcher = one.watch();
    let runs = |line: &String| line.contains("watcher: runs");
    assert!(ask(one).lines("ok").iter().any(runs));
    // For all that is started from now on ten minutes have gone by, in which the watcher wrote nothing.
    one.namespace().let_pass(600);
    let mend = ask(one).wrong(&["watcher", "heard nothing from the store"]);
    assert_eq!(mend, "systemctl reload crosshost-sync");
    assert!(watcher.is_alive());
}
