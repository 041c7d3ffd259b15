//! Hosts whose owners have other things in mind: a firewall that forwards nothing, strict source checks, somebody who flushes
//! all rules, a host that does not forward. The segment works all the while, since it lives in its sandbox; the way out works,
//! or `crosshost doctor` says what stops it, and the command that it names, run as it is, lets the packets through.

use std::time::Duration;

use crate::doctor_report::{Findings, ask};
use integration::{Attachment, Backend, Host, Lab, OUTSIDE, OUTSIDE6, conflist};

const NETWORK: &str = "ov_net1";
/// A repair comes within half a minute.
const REPAIR: Duration = Duration::from_secs(40);

/// Two hosts that know each other.
fn lab() -> Lab {
    Lab::with_network(
        2,
        Backend::Dir,
        &conflist(NETWORK, "10.0.0.0/24 fd00:1::/64"),
    )
}

/// A container on each host of a network that works.
struct Pair<'lab> {
    host: &'lab Host,
    t1: Attachment<'lab>,
    t2: Attachment<'lab>,
}

impl<'lab> Pair<'lab> {
    #[track_caller]
    fn new(lab: &'lab Lab) -> Self {
        let host = lab.host(1);
        let t1 = Attachment::new(host, "t1", NETWORK);
        let t2 = Attachment::new(lab.host(2), "t2", NETWORK);
        let pair = Pair { host, t1, t2 };
        host.sync();
        pair.talks("before anything happened");
        pair
    }

    /// The segment works in both directions, for packets of any size.
    #[track_caller]
    fn talks(&self, when: &str) {
        for (from, to) in [(&self.t1, &self.t2), (&self.t2, &self.t1)] {
            for size in ["56", "4000"] {
                let said = from.container.ping(to.address, &["-s", size]);
                assert!(said.status.success(), "{when}: {said}");
            }
        }
    }

    fn leaves(&self) -> bool {
        let heard = self.t1.container.tcp_get(OUTSIDE);
        heard.is_ok_and(|heard| heard == self.host.vtep())
    }

    fn leaves_by_ipv6(&self) -> bool {
        let heard = self.t1.container.tcp_get(OUTSIDE6);
        heard.is_ok_and(|heard| heard == self.host.address6())
    }

    /// Nothing goes out, the doctor says so with these words, and what it names lets it out again.
    #[track_caller]
    fn is_cured(&self, words: &[&str]) -> String {
        self.talks("with no way out");
        assert!(!self.leaves(), "nothing is stopped");
        let mend = ask(self.host).wrong(words);
        self.host.script(&mend);
        assert!(self.leaves(), "still no way out after {mend}");
        self.talks("after the cure");
        mend
    }

    fn end(self) {
        self.t1.detach().ok();
        self.t2.detach().ok();
    }
}

#[test]
fn a_healthy_host_has_nothing_wrong() {
    let lab = lab();
    let pair = Pair::new(&lab);
    let before = pair.host.footprint();
    for host in lab.hosts() {
        ask(host).assert_well();
    }
    pair.host
        .crosshost("doctor")
        .ok()
        .says(&["ok     network ov_net1: forwards"]);
    pair.host.assert_same_as(&before, "after a look");
    pair.end();
}

/// As Docker's daemon leaves a host, with iptables-nft and its own chain for others.
#[test]
fn a_policy_of_iptables_is_named_and_its_cure_works() {
    let lab = lab();
    let pair = Pair::new(&lab);
    let host = pair.host.namespace();
    host.script(
        "iptables-nft -P FORWARD DROP
         iptables-nft -N DOCKER-USER
         iptables-nft -A FORWARD -j DOCKER-USER
         iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    );
    let mend = pair.is_cured(&["chain FORWARD", "table ip filter", "stops", "policy drop"]);
    assert!(mend.contains("-I DOCKER-USER -i ch-egress"), "{mend}");
    ask(pair.host).assert_well();
    // A host that has no such chain is told of the one that it has. IPv6 has a table of its own.
    host.script("iptables-nft -F; iptables-nft -X; ip6tables-nft -P FORWARD DROP; iptables-nft -S");
    assert!(!pair.leaves_by_ipv6());
    let mend = pair.is_cured(&["table ip filter", "IPv4", "policy drop"]);
    assert!(mend.contains("iptables-nft -I FORWARD"), "{mend}");
    let mend = ask(pair.host).wrong(&["table ip6 filter", "IPv6", "policy drop"]);
    host.script(&mend);
    assert!(pair.leaves_by_ipv6(), "after {mend}");
    ask(pair.host).assert_well();
    pair.end();
}

/// A table that nft made, also one under another name and with a rule at its end instead of a policy.
#[test]
fn chains_made_by_nft_are_named_and_their_cures_work() {
    let lab = lab();
    let pair = Pair::new(&lab);
    let host = pair.host.namespace();
    let filter = |table: &str, chain: &str, policy: &str| {
        format!(
            "nft add table {table}
             nft 'add chain {table} {chain} {{ type filter hook forward priority 0; policy {policy}; }}'"
        )
    };
    host.script(&filter("ip filter", "FORWARD", "drop"));
    pair.is_cured(&["chain FORWARD", "table ip filter", "policy drop"]);
    host.script("nft delete table ip filter");
    assert!(pair.leaves());

    host.script(&filter("inet mine", "routed", "accept"));
    host.script(
        "nft add rule inet mine routed ct state established,related accept
         nft add rule inet mine routed iifname lan0 accept
         nft add rule inet mine routed reject with icmpx admin-prohibited",
    );
    let mend = pair.is_cured(&["chain routed", "inet mine", "reject in chain routed"]);
    assert!(
        mend.starts_with("nft insert rule inet mine routed"),
        "{mend}"
    );
    ask(pair.host).assert_well();

    // What looks at more than is known of our packets is no more than a hint, and what works is not called wrong.
    host.script("nft flush chain inet mine routed; nft add rule inet mine routed ip saddr 192.0.2.0/24 drop");
    let found = ask(pair.host);
    found.assert_well();
    found.noted(&["inet mine", "may stop"]);
    assert!(pair.leaves());
    pair.end();
}

/// Of firewalld, which takes its table back whenever it reloads, the words are its own: there is no daemon here to hear them.
#[test]
fn a_table_of_firewalld_is_left_to_it() {
    let lab = lab();
    let pair = Pair::new(&lab);
    pair.host.script(
        "nft add table inet firewalld
         nft 'add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }'
         nft add rule inet firewalld filter_FORWARD ct state established,related accept
         nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
    );
    assert!(!pair.leaves());
    pair.talks("behind firewalld");
    let mend = ask(pair.host).wrong(&["filter_FORWARD", "inet firewalld", "reject"]);
    assert_eq!(
        mend,
        "firewall-cmd --zone=trusted --change-interface=ch-egress"
    );
    pair.end();
}

/// Of the older iptables only its own program can read the rules.
#[test]
fn a_table_of_the_older_iptables_is_a_hint_and_its_cure_works() {
    let lab = lab();
    let pair = Pair::new(&lab);
    pair.host.script("iptables-legacy -P FORWARD DROP");
    pair.talks("behind the older iptables");
    assert!(!pair.leaves());
    let found = ask(pair.host);
    found.assert_well();
    let mend = found.noted(&["iptables-legacy", "may stop the containers' way out"]);
    pair.host.script(&mend);
    assert!(pair.leaves(), "after {mend}");
    pair.end();
}

/// A host that lets in what it knows, as most do: tunnels are not in what it knows.
#[test]
fn an_input_chain_that_drops_tunnels_is_named_and_its_cure_works() {
    let lab = lab();
    let pair = Pair::new(&lab);
    pair.host.script(
        "nft add table inet host
         nft 'add chain inet host input { type filter hook input priority 0; policy drop; }'
         nft add rule inet host input ct state established,related accept
         nft add rule inet host input iif lo accept
         nft add rule inet host input icmp type echo-request accept
         nft add rule inet host input tcp dport 22 accept",
    );
    assert!(!pair.t2.container.pings(pair.t1.address, &[]));
    let mend = ask(pair.host).wrong(&["chain input", "inet host", "UDP to port 4789"]);
    pair.host.script(&mend);
    pair.talks("after the cure");
    ask(pair.host).assert_well();
    pair.end();
}

/// Strict source checks are no obstacle, but where the way to a host is not the way that its packets come.
#[test]
fn strict_source_checks_stop_nothing_but_what_comes_by_another_way() {
    let lab = lab();
    for host in lab.hosts() {
        host.script("for conf in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $conf; done");
    }
    let pair = Pair::new(&lab);
    let host = pair.host.namespace();
    assert!(pair.leaves());
    host.script("for conf in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $conf; done");
    assert!(pair.leaves());
    pair.talks("with strict source checks");
    ask(pair.host).assert_well();

    // A second cable, by which this host sends to the other one what is answered by the first.
    let other = lab.host(2).run("ip -json link show ens3");
    let other = other.ok().json()[0]["address"].clone();
    lab.router().script(&format!(
        "ip link add aside master underlay up type veth peer name ens4 netns {}",
        host.pid()
    ));
    host.script(&format!(
        "echo 1 > /proc/sys/net/ipv4/conf/ens4/arp_ignore
         ip link set ens4 up
         ip neighbour add 192.168.1.12 lladdr {other} dev ens4
         ip route add 192.168.1.12 dev ens4 src 192.168.1.11"
    ));
    assert!(!pair.t2.container.pings(pair.t1.address, &[]));
    let mend = ask(pair.host).wrong(&["rp_filter", "ens3", "192.168.1.12"]);
    host.script(&mend);
    pair.talks("after the cure");
    ask(pair.host).assert_well();
    pair.end();
}

/// `br_netfilter` is on here, as Docker and kubelet leave it: the host's firewall sees the frames of its bridges, not of ours.
#[test]
fn frames_of_the_segment_are_out_of_reach_of_br_netfilter() {
    let lab = lab();
    let pair = Pair::new(&lab);
    let host = pair.host.namespace();
    host.script(
        "for conf in /proc/sys/net/bridge/bridge-nf-call-*tables; do echo 1 > $conf; done
         iptables-nft -P FORWARD DROP
         iptables-nft -t raw -I PREROUTING -s 10.0.0.0/24 -j DROP
         iptables-legacy -P FORWARD DROP",
    );
    let other = Attachment::new(pair.host, "t3", NETWORK);
    pair.talks("with br_netfilter");
    assert!(pair.t1.container.pings(other.address, &[]), "on one host");
    ask(pair.host).wrong(&["chain FORWARD", "policy drop"]);
    other.detach().ok();
    pair.end();
}

#[test]
fn flushed_rules_cost_the_way_out_until_a_sync_or_the_watcher_comes_by() {
    let lab = lab();
    let pair = Pair::new(&lab);
    pair.host.script("nft flush ruleset");
    let mend = pair.is_cured_by_sync(&["table inet crosshost", "gone or changed"]);
    assert_eq!(mend, "crosshost sync");

    let watcher = pair.host.watch();
    assert!(ask(pair.host).ok_lines().contains("watcher: runs"));
    // Or a repair that is under way finds one half of the damage as its own and the other as the network's.
    watcher.settle();
    let before = watcher.times_said("is mended");
    pair.host.script("nft flush ruleset");
    pair.talks("without rules");
    watcher.until(REPAIR, "mended", || {
        watcher.times_said("is mended") > before
    });
    assert!(pair.leaves(), "still no way out: {}", watcher.said());
    ask(pair.host).assert_well();
    drop(watcher);
    pair.end();
}

impl Pair<'_> {
    /// The same where it is this host's own that broke.
    #[track_caller]
    fn is_cured_by_sync(&self, words: &[&str]) -> String {
        self.talks("with no way out");
        assert!(!self.leaves(), "nothing is stopped");
        let mend = ask(self.host).wrong(words);
        let words: Vec<_> = mend.split(' ').skip(1).collect();
        self.host.crosshost(&words).ok();
        assert!(self.leaves(), "still no way out after {mend}");
        ask(self.host).assert_well();
        mend
    }
}

#[test]
fn a_host_that_does_not_forward_is_made_to_and_made_to_again() {
    let lab = lab();
    let off = "echo 0 > /proc/sys/net/ipv4/ip_forward";
    lab.host(1).script(off);
    let pair = Pair::new(&lab);
    assert!(pair.leaves(), "an ADD turns it on");
    pair.host.script(off);
    pair.is_cured_by_sync(&["net.ipv4.ip_forward is 0"]);
    pair.host
        .script("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
    ask(pair.host).wrong(&["net.ipv6.conf.all.forwarding is 0"]);
    pair.host.sync();
    assert!(pair.leaves_by_ipv6());
    ask(pair.host).assert_well();
    pair.end();
}

/// What somebody broke in the sandbox is told, and told no more when it is mended.
#[test]
fn a_broken_sandbox_is_told() {
    let lab = lab();
    let pair = Pair::new(&lab);
    let inside = |script: &str| {
        let netns = "nsenter --net=/run/crosshost/netns/ov_net1 --";
        pair.host.script(&format!("{netns} {script}"));
    };
    for (damage, words) in [
        ("ip link set br0 down", "br0 in the sandbox: is down"),
        ("ip link delete vxlan0", "vxlan0 in the sandbox: is gone"),
        (
            "ip link set vxlan0 mtu 1300",
            "vxlan0 in the sandbox: has MTU",
        ),
        (
            "bridge fdb del 00:00:00:00:00:00 dev vxlan0 dst 192.168.1.12",
            "has no flooding to 192.168.1.12",
        ),
        (
            "sh -c 'ip link set $(ip -br link | grep ^chp | cut -d@ -f1) nomaster'",
            "off the bridge",
        ),
        (
            "sh -c 'ip link set $(ip -br link | grep ^chp | cut -d@ -f1) mtu 1300'",
            "has MTU 1300",
        ),
    ] {
        inside(damage);
        let mend = ask(pair.host).wrong(&[words]);
        assert_eq!(mend, "crosshost sync", "{damage}");
        pair.host.sync();
        ask(pair.host).assert_well();
        pair.talks(damage);
    }
    pair.end();
}

impl Findings {
    /// What is well, as one text.
    fn ok_lines(&self) -> String {
        self.lines("ok").join("\n")
    }
}
