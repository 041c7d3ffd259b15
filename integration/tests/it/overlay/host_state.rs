//! One description of each object that is made on a host: whatever is damaged, `crosshost doctor`, CHECK, `crosshost sync` and the
//! next ADD agree that it is, and afterwards that all is whole.

use crate::doctor_report::ask;
use crate::overlay::host_on_segment::{DUAL, lab, link, network};
use integration::{Attachment, Finished, Host, Lab};
use serde_json::json;

/// What is damaged.
pub(super) struct Damage {
    /// Done in the host's namespace. `$S` enters the sandbox and `$E` the egress bridge's namespace; `$CHP`, `$CHE` and `$CHH` are
    /// the ports, `$PID` is a process in the sandbox.
    does: &'static str,
    /// What doctor and CHECK say of it.
    says: &'static str,
    /// What else mends it, beside sync.
    mended_by: Verbs,
}

/// Which verbs find it on their way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verbs {
    /// The next ADD on the network; CHECK tells.
    Add,
    /// None: an ADD asks the kernel two questions about a sandbox that stands. CHECK tells.
    Nobody,
    /// CHECK itself puts back what belongs to the host as a whole, and so does the next ADD.
    Check,
    /// CHECK puts it back; an ADD does not look.
    CheckAlone,
}

pub(super) const fn damage(does: &'static str, says: &'static str, mended_by: Verbs) -> Damage {
    Damage {
        does,
        says,
        mended_by,
    }
}

/// Bridge, VXLAN device and ports of a network, what it rewrites and forwards by.
const SEGMENT: [Damage; 19] = [
    damage(
        "$S ip link set br0 down",
        "br0 in the sandbox: is down",
        Verbs::Add,
    ),
    damage(
        "$S ip link delete br0",
        "br0 in the sandbox: is gone",
        Verbs::Add,
    ),
    damage(
        "$S ip link set vxlan0 down",
        "vxlan0 in the sandbox: is down",
        Verbs::Add,
    ),
    damage(
        "$S ip link delete vxlan0",
        "vxlan0 in the sandbox: is gone",
        Verbs::Add,
    ),
    damage(
        "$S ip link set vxlan0 nomaster",
        "vxlan0 in the sandbox: was taken off the bridge",
        Verbs::Add,
    ),
    damage(
        "$S ip link set vxlan0 mtu 1300",
        "vxlan0 in the sandbox: has MTU 1300",
        Verbs::Add,
    ),
    damage(
        "$S ip link set vxlan0 type vxlan learning",
        "vxlan0 in the sandbox: has learning true",
        Verbs::Add,
    ),
    damage(
        "$S bridge link set dev vxlan0 learning on",
        "vxlan0 in the sandbox: as a port of the bridge has learning on",
        Verbs::Add,
    ),
    damage(
        "$S bridge link set dev vxlan0 neigh_suppress off",
        "has neigh_suppress off",
        Verbs::Add,
    ),
    damage("$S ip link set $CHP down", "is down", Verbs::Nobody),
    damage(
        "$S ip link set $CHP nomaster",
        "was taken off the bridge",
        Verbs::Nobody,
    ),
    damage(
        "$S ip link set $CHP mtu 1300",
        "has MTU 1300, not 1450",
        Verbs::Nobody,
    ),
    damage(
        "$S sh -c 'echo 1 > /proc/sys/net/ipv6/conf/br0/accept_ra'",
        "net.ipv6.conf.br0.accept_ra in the sandbox: is 1, not 0",
        Verbs::Nobody,
    ),
    damage(
        "$S sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6'",
        "net.ipv6.conf.default.disable_ipv6 in the sandbox: is 0",
        Verbs::Nobody,
    ),
    damage(
        "$S nft add table bridge crosshost",
        "nftables table bridge crosshost in the sandbox",
        Verbs::Nobody,
    ),
    damage(
        "$S bridge fdb delete 00:00:00:00:00:00 dev vxlan0 dst 192.168.1.12",
        "no flooding to 192.168.1.12",
        Verbs::Add,
    ),
    damage(
        "$S bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 192.168.1.99",
        "flooding to 192.168.1.99",
        Verbs::Add,
    ),
    damage(
        "$S ip neighbour flush dev br0 nud permanent",
        "no neighbour",
        Verbs::Add,
    ),
    damage(
        "$S bridge fdb add 02:00:00:00:00:09 dev vxlan0 master static",
        "bridge entry 02:00:00:00:00:09",
        Verbs::Add,
    ),
];

/// The host's own link to the segment.
const HOST_LINK: [Damage; 15] = [
    damage(
        "ip link delete $CHH",
        "in the sandbox: is gone",
        Verbs::Check,
    ),
    damage(
        "ip link set $CHH down; ip link set $CHH name lost",
        "its other end",
        Verbs::Check,
    ),
    damage("ip link set $CHH down", "is down", Verbs::Check),
    damage(
        "ip link set $CHH mtu 1300",
        "has MTU 1300, not 1450",
        Verbs::Check,
    ),
    damage(
        "ip link set $CHH address 02:00:00:00:00:09",
        "has MAC 02:00:00:00:00:09",
        Verbs::Check,
    ),
    damage(
        "ip address flush dev $CHH scope global",
        "lacks address",
        Verbs::Check,
    ),
    damage(
        "ip route delete 10.0.0.0/24",
        "route to 10.0.0.0/24",
        Verbs::Check,
    ),
    damage(
        "ip route replace 10.0.0.0/24 dev $CHH",
        "src 10.0.0.",
        Verbs::Check,
    ),
    damage(
        "echo 1 > /proc/sys/net/ipv4/conf/$CHH/rp_filter",
        "rp_filter: is 1, not 2",
        Verbs::Check,
    ),
    damage(
        "echo 0 > /proc/sys/net/ipv4/conf/$CHH/arp_ignore",
        "arp_ignore: is 0, not 1",
        Verbs::Check,
    ),
    damage(
        "echo 0 > /proc/sys/net/ipv4/conf/$CHH/arp_announce",
        "arp_announce: is 0, not 2",
        Verbs::Check,
    ),
    damage(
        "echo 1 > /proc/sys/net/ipv6/conf/$CHH/accept_ra",
        "accept_ra: is 1, not 0",
        Verbs::Check,
    ),
    damage(
        "$S ip link set $CHH nomaster",
        "was taken off the bridge",
        Verbs::Check,
    ),
    damage(
        "$S ip link set $CHH mtu 1300",
        "has MTU 1300, not 1450",
        Verbs::Check,
    ),
    damage(
        "$S bridge fdb delete $MAC dev $CHH master",
        "has no bridge entry",
        Verbs::Check,
    ),
];

/// The way out of all containers.
const EGRESS: [Damage; 22] = [
    damage(
        "ip link set ch-egress down",
        "ch-egress: is down",
        Verbs::Check,
    ),
    damage(
        "ip link delete ch-egress",
        "ch-egress: is gone",
        Verbs::Check,
    ),
    damage(
        "ip link set ch-egress mtu 1280",
        "ch-egress: has MTU 1280, not 1500",
        Verbs::Check,
    ),
    damage(
        "ip address delete 172.18.0.1/16 dev ch-egress",
        "ch-egress: lacks address 172.18.0.1/16",
        Verbs::Check,
    ),
    damage(
        "ip link set ch-egress down; ip link set ch-egress name lost",
        "its other end ch-egress is gone",
        Verbs::Check,
    ),
    damage(
        "echo 1 > /proc/sys/net/ipv6/conf/ch-egress/accept_ra",
        "accept_ra: is 1, not 0",
        Verbs::Check,
    ),
    damage(
        "echo 1 > /proc/sys/net/ipv6/conf/ch-egress/disable_ipv6",
        "disable_ipv6: is 1, not 0",
        Verbs::Check,
    ),
    damage(
        "$E ip link set br0 down",
        "br0 in the egress namespace: is down",
        Verbs::Check,
    ),
    damage(
        "$E ip link delete br0",
        "br0 in the egress namespace: is gone",
        Verbs::CheckAlone,
    ),
    damage(
        "$E ip link delete uplink",
        "uplink in the egress namespace: is gone",
        Verbs::Check,
    ),
    damage(
        "$E ip link set uplink nomaster",
        "uplink in the egress namespace: was taken off",
        Verbs::Check,
    ),
    damage(
        "$E ip link set uplink down",
        "uplink in the egress namespace: is down",
        Verbs::Check,
    ),
    damage(
        "$E bridge link set dev uplink isolated on",
        "uplink in the egress namespace: as a port of the bridge has isolated on",
        Verbs::Check,
    ),
    damage(
        "$E sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6'",
        "disable_ipv6 in the egress namespace: is 0",
        Verbs::CheckAlone,
    ),
    damage(
        "$E ip link set $CHE nomaster",
        "was taken off the bridge",
        Verbs::CheckAlone,
    ),
    damage("$E ip link set $CHE down", "is down", Verbs::CheckAlone),
    damage(
        "$E ip link set $CHE mtu 1280",
        "has MTU 1280, not 1500",
        Verbs::CheckAlone,
    ),
    damage(
        "$E bridge link set dev $CHE isolated off",
        "has isolated off",
        Verbs::CheckAlone,
    ),
    damage(
        "nft delete table inet crosshost",
        "nftables table inet crosshost",
        Verbs::Check,
    ),
    damage(
        "nft flush set inet crosshost egress4",
        "nftables table inet crosshost",
        Verbs::Check,
    ),
    damage(
        "nft add element inet crosshost egress4 '{ 10.77.0.0/16 comment \"mine\" }'",
        "masquerades 10.77.0.0/16, which is not ours",
        Verbs::Check,
    ),
    damage(
        "nft flush set inet crosshost peers4",
        "does not know what may pass to tunnels and containers",
        Verbs::Check,
    ),
];

pub(super) struct Bench<'h> {
    pub(super) host: &'h Host,
    pub(super) attached: Attachment<'h>,
    pub(super) settings: String,
}

impl<'h> Bench<'h> {
    pub(super) fn new(lab: &'h Lab) -> Self {
        let host = lab.host(1);
        let attached = Attachment::new(host, "t1", "n");
        let _far = Attachment::new(lab.host(2), "far", "n");
        host.sync();
        let settings = format!(
            "S='nsenter --net=/run/crosshost/netns/n'
             E='nsenter --net=/run/crosshost/egress-netns/ch-egress'
             CHP=$($S ip -o link | grep -o 'chp[0-9a-f]*' | head -1)
             CHE=$($E ip -o link | grep -o 'che[0-9a-f]*' | head -1)
             CHH={}; MAC=$(ip -br link show dev $CHH | awk '{{print $3}}')
             T1={netns}; C='nsenter --net={netns}'",
            link(host, "chh"),
            netns = attached.container.netns(),
        );
        Self {
            host,
            attached,
            settings,
        }
    }

    pub(super) fn does(&self, what: &str) {
        let script = format!("{}\n{what}", self.settings);
        self.host.script(&script);
    }

    pub(super) fn check(&self) -> Finished {
        self.host.cnitool("check", "n", "t1", "eth0")
    }

    #[track_caller]
    pub(super) fn is_whole(&self, when: &str) {
        let wrong = ask(self.host).lines("wrong");
        assert!(wrong.is_empty(), "{when}: doctor: {wrong:?}");
        let check = self.check();
        assert!(check.status.success(), "{when}: CHECK: {check}");
        assert_eq!(check.stderr, "", "{when}: CHECK put something back");
    }

    /// Doctor tells of it, and that sync mends it.
    #[track_caller]
    fn suffers(&self, damage: &Damage) {
        self.does(damage.does);
        let wrong = ask(self.host).lines("wrong");
        let told = wrong.iter().any(|line| line.contains(damage.says));
        assert!(told, "{}: doctor: {wrong:?}", damage.does);
        let all = wrong
            .iter()
            .all(|line| line.ends_with("=> \"crosshost sync\""));
        assert!(all, "{}: {wrong:?}", damage.does);
    }

    fn agrees(&self, damage: &Damage, counted: Counted) {
        let Damage {
            does,
            says,
            mended_by,
        } = damage;
        self.suffers(damage);
        if matches!(mended_by, Verbs::Add | Verbs::Nobody) {
            let check = self.check();
            let text = format!("{} {}", check.stdout, check.stderr);
            assert!(!check.status.success(), "{does}: CHECK: {text}");
            assert!(text.contains(says), "{does}: CHECK: {text}");
        } else {
            let said = self.check().ok().stderr;
            assert!(said.contains("put back"), "{does}: CHECK: {said}");
            self.is_whole(&format!("{does}, CHECK"));
            self.suffers(damage);
        }
        let said = self.host.sync().stdout;
        let is_counted = !said.contains(": 0 forwarding");
        assert!(is_counted || counted == Counted::Apart, "{does}: {said}");
        self.is_whole(&format!("{does}, sync"));
        // A second sync has nothing to do.
        let said = self.host.sync().stdout;
        assert!(said.contains(": 0 forwarding"), "{does}: once more: {said}");
        if matches!(mended_by, Verbs::Add | Verbs::Check) {
            self.suffers(damage);
            let next = Attachment::new(self.host, "t2", "n");
            self.is_whole(&format!("{does}, ADD"));
            next.end();
            self.is_whole(&format!("{does}, DEL"));
        }
    }
}

/// Whether sync counts what it mends with the network's entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    WithNetwork,
    Apart,
}

pub(super) fn dual_lab() -> Lab {
    let conf = network(DUAL, &json!({ "hostAccess": true, "egress": "gwbridge" }));
    lab(2, &conf)
}

pub(super) fn bench(damages: &[Damage], counted: Counted) {
    let lab = dual_lab();
    let bench = Bench::new(&lab);
    bench.is_whole("at first");
    for damage in damages {
        bench.agrees(damage, counted);
    }
    bench.attached.detach().ok();
}

#[test]
fn all_agree_on_each_damage_of_a_segment() {
    bench(&SEGMENT, Counted::WithNetwork);
}

#[test]
fn all_agree_on_each_damage_of_the_hosts_own_link() {
    bench(&HOST_LINK, Counted::WithNetwork);
}

#[test]
fn all_agree_on_each_damage_of_the_way_out() {
    bench(&EGRESS, Counted::Apart);
}
