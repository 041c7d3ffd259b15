//! Upgrades: binaries of one version exchanged for those of another, host by host, under running containers and watchers, and
//! back again. No packet is lost, each version works with what the other made, and DEL of either leaves nothing.
//!
//! The earlier versions are built from the history (`make deps`, part `previous`): 86dc1f2, the last one whose node records say
//! no version, and 505b5ca, the last one whose egress bridge was an interface of the host.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use integration::{
    Attachment, Backend, Footprint, Host, Lab, OUTSIDE, Programs, Running, Server, Watching,
    conflist, end_all, spend, tcp_get, until,
};
use serde_json::{Value, json};

const NETWORK: &str = "ov_net1";
const GATEWAY: &str = "gw_net1";
const SUBNET: &str = "10.0.0.0/24";
/// The version before the one under test.
const EARLIER: &str = "86dc1f2";
/// One with another form of egress.
const ON_HOST: &str = "505b5ca";
/// For what comes by itself, on a machine that has much else to do.
const SOON: Duration = Duration::from_mins(1);

/// The network with what has state of its own: IPv6, published ports.
fn dual_stack() -> Value {
    let mut list = conflist(NETWORK, &format!("{SUBNET} fd00::/64"));
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    let plugins = list["plugins"].as_array_mut();
    plugins.expect("plugins").push(portmap);
    list
}

/// A network whose gateway the host is, and on which it has an address of its own.
fn by_gateway() -> Value {
    let mut list = conflist(GATEWAY, "10.1.0.0/24");
    list["plugins"][0]["egress"] = "gateway".into();
    list["plugins"][0]["hostAccess"] = true.into();
    list
}

/// Echo requests that go on until [`Pinging::end`].
struct Pinging {
    what: String,
    begun: Instant,
    running: Running,
}

impl Pinging {
    fn start(from: &Attachment<'_>, to: IpAddr) -> Pinging {
        let mut command = from.container.command("ping");
        command.args(["-n", "-q", "-i", "0.1", &to.to_string()]);
        Pinging {
            what: format!("{} to {to}", from.container.name()),
            begun: Instant::now(),
            running: Running::start(command, b""),
        }
    }

    /// How many were not answered. The last one may still be under way.
    fn end(self) -> usize {
        // Enough of them to say something.
        until(SOON, "a second old", || {
            self.begun.elapsed() > Duration::from_secs(1)
        });
        self.running.interrupt();
        let said = self.running.wait(Duration::from_secs(10)).stdout;
        let number = |word: &str| -> usize {
            let before = said.split(word).next().unwrap_or_default();
            let number = before.rsplit([' ', '\n']).find(|it| !it.is_empty());
            number
                .and_then(|it| it.parse().ok())
                .unwrap_or_else(|| panic!("{}: {said}", self.what))
        };
        let (sent, answered) = (number(" packets transmitted"), number(" received"));
        assert!(sent > 5, "{}: it ran: {said}", self.what);
        (sent - answered).saturating_sub(1)
    }
}

/// Insists that nothing was lost.
#[track_caller]
fn assert_none_lost(pings: Vec<Pinging>) {
    let lost: Vec<_> = pings
        .into_iter()
        .map(|ping| (ping.what.clone(), ping.end()))
        .filter(|(_, lost)| *lost > 0)
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

/// Runs each command that the doctor of this host advises, as an operator would who pastes it; what it said.
#[track_caller]
fn follow_the_doctor(host: &Host) -> String {
    let said = host.crosshost("doctor").stdout;
    for line in said.lines() {
        let Some((_, advice)) = line.split_once("; run: ") else {
            continue;
        };
        // What starts the unit is what this test does itself.
        let advice = advice.split("  #").next().unwrap_or_default().trim();
        if advice.is_empty() || advice.starts_with("systemctl") {
            continue;
        }
        let script = format!("PATH={}:$PATH; {advice}", host.programs().display());
        let done = host.run(&["sh", "-c", &script]);
        assert!(done.status.success(), "{line}: {done}");
    }
    // The laboratory's Consul has no access control; `store::access` is about that.
    let is_open = |line: &&str| line.contains("without a token");
    let others = said.lines().filter(|line| !is_open(line));
    others.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(attached: &Attachment<'_>) {
    let (host, container) = (attached.host(), attached.container.name());
    host.cnitool("check", &attached.network, container, "eth0")
        .ok();
}

/// It reaches the outside as its host, and all the others.
#[track_caller]
fn reaches(one: &Attachment<'_>, others: &[&Attachment<'_>]) {
    let name = one.container.name();
    let seen = one.container.tcp_get(OUTSIDE).expect(name);
    assert_eq!(seen, one.host().vtep(), "{name}");
    // A container's `lo` may be down.
    for other in others.iter().filter(|it| it.address != one.address) {
        let answered = one.container.pings(other.address, &[]);
        assert!(answered, "{name} to {}", other.container.name());
    }
}

fn folder(commit: Option<&str>) -> Option<PathBuf> {
    commit.map(Programs::previous)
}

/// Exchanges the binaries of one host under a watcher and containers of the other version, and does there what operators and
/// runtimes do. `gone` is a container of the other version that is removed by this one; returned is one of this version.
#[track_caller]
fn exchange<'h>(
    host: &'h Host,
    commit: Option<&str>,
    watcher: &mut Watching,
    (stay, gone): (&[&Attachment<'_>], &Attachment<'_>),
    name: &str,
) -> Attachment<'h> {
    host.exchange_programs(folder(commit));
    let own = stay.iter().find(|it| it.host().name() == host.name());
    let own = own.expect("a container of this host");
    // Beside the watcher of the other version.
    check(own);
    check(gone);
    host.cnitool("status", NETWORK, own.container.name(), "eth0")
        .ok();
    let new = Attachment::new(host, name, NETWORK);
    reaches(&new, stay);
    check(&new);
    follow_the_doctor(host);
    if commit.is_some() {
        // It does not know all chains of the table, and would leave them as they are.
        host.script("nft delete table inet crosshost");
    }
    host.sync();
    host.crosshost("gc").ok();
    // The watcher of this version.
    watcher.stop().ok();
    *watcher = host.watch();
    let said = follow_the_doctor(host);
    assert!(!said.lines().any(|it| it.starts_with("wrong")), "{said}");
    check(own);
    gone.detach().ok();
    let again = gone.detach();
    assert!(again.status.success(), "twice: {again}");
    gone.container.remove();
    reaches(&new, stay);
    reaches(own, stay);
    let endpoints = host.listed("endpoint ls");
    let endpoints = endpoints.as_array().expect("endpoints").len();
    assert!(endpoints > 2 * stay.len(), "of both families: {endpoints}");
    new
}

/// What the store has below the network's and the node's keys.
fn keys(lab: &Lab) -> Vec<String> {
    let (status, said) = lab.consul().request("GET", "/v1/kv/crosshost/?keys", "");
    assert!(status == 200 || status == 404, "{status} {said}");
    serde_json::from_str(&said).unwrap_or_default()
}

#[test]
fn hosts_change_their_version_one_by_one_and_back_and_no_packet_is_lost() {
    let lab = Lab::new(3, Backend::Consul);
    for host in lab.hosts() {
        host.exchange_programs(folder(Some(EARLIER)));
        host.sync();
        host.install(&dual_stack());
        host.install(&by_gateway());
    }
    let before = lab.footprints();
    let hosts = lab.hosts();
    let stay: Vec<_> = ["s1", "s2", "s3"]
        .iter()
        .zip(hosts)
        .map(|(name, host)| Attachment::new(host, name, NETWORK))
        .collect();
    let stay: Vec<&Attachment<'_>> = stay.iter().collect();
    let pods: Vec<_> = ["w1", "w2", "w3"]
        .iter()
        .zip(hosts)
        .map(|(name, host)| Attachment::new(host, name, GATEWAY))
        .collect();
    // One of them is reached by a port of its host.
    let published = hosts[0].container("p1");
    let ports =
        json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] });
    let asked = hosts[0].cnitool_asking("add", NETWORK, ("p1", "eth0"), &ports);
    asked.ok();
    let at = |address: &str| address.parse().expect("an address");
    let _server = Server::start(published.net(), at("0.0.0.0:80"), |mut caller| {
        let _ = write!(caller, "published");
    });
    let is_published = || {
        let said = tcp_get(&lab.outside().net(), at("192.168.1.11:8080"));
        assert_eq!(said.expect("the published port"), "published");
    };
    let mut going: Vec<_> = ["g1", "g2", "g3"]
        .iter()
        .zip(hosts)
        .map(|(name, host)| Attachment::new(host, name, NETWORK))
        .collect();
    let mut watchers: Vec<_> = hosts.iter().map(Host::watch).collect();
    is_published();

    let outside: IpAddr = "203.0.113.9".parse().expect("an address");
    let pods: Vec<&Attachment<'_>> = pods.iter().collect();
    let mut pings = Vec::new();
    for all in [&stay, &pods] {
        for from in all {
            let others = all.iter().filter(|to| to.address != from.address);
            let others = others.map(|to| to.address).chain([outside]);
            pings.extend(others.map(|to| Pinging::start(from, to)));
        }
    }

    for (round, commit) in [None, Some(EARLIER), None].into_iter().enumerate() {
        for (number, host) in hosts.iter().enumerate() {
            let name = format!("n{round}{number}");
            let what = (&stay[..], &going[number]);
            let new = exchange(host, commit, &mut watchers[number], what, &name);
            going[number] = new;
            check(pods[number]);
            reaches(pods[number], &pods);
            is_published();
            // Every host reads what all wrote, whatever its version.
            for reader in hosts {
                let nodes = reader.listed("node ls");
                assert_eq!(nodes.as_array().expect("nodes").len(), 3, "{nodes}");
                reader.crosshost(&["network", "inspect", NETWORK]).ok();
            }
        }
        let nodes = hosts[0].listed("node ls");
        for node in nodes.as_array().into_iter().flatten() {
            let says_it = node["version"].is_string() && node["commit"].is_string();
            assert_eq!(says_it, commit.is_none(), "after round {round}: {nodes}");
        }
    }
    assert_none_lost(pings);

    // The last words are of both versions: each removes what the other made as well.
    hosts[1].exchange_programs(folder(Some(EARLIER)));
    for watcher in &mut watchers {
        watcher.stop().ok();
    }
    end_all(stay.iter().chain(&pods).copied().chain(&going));
    hosts[0].cnitool("del", NETWORK, "p1", "eth0").ok();
    published.remove();
    // The earlier version does not know all chains of the table: a sync of this one removes the others.
    hosts[1].exchange_programs(folder(None));
    hosts[1].sync();
    lab.assert_same_as(&before, "when all containers are gone");
    for network in [NETWORK, GATEWAY] {
        hosts[0].crosshost(&["network", "rm", network]).ok();
    }
    let mut left = keys(&lab);
    // The note by which no host restores what was removed.
    left.retain(|key| !key.starts_with("crosshost/v1/removed/"));
    let is_ours = |key: &String| [NETWORK, GATEWAY].iter().any(|it| key.contains(it));
    assert!(!left.iter().any(is_ours), "{left:?}");
}

#[test]
fn an_egress_bridge_that_an_earlier_version_made_on_the_host_is_kept_until_it_is_empty() {
    let lab = Lab::new(2, Backend::Dir);
    for host in lab.hosts() {
        host.exchange_programs(folder(Some(ON_HOST)));
        host.sync();
        host.install(&conflist(NETWORK, SUBNET));
    }
    let before: Vec<Footprint> = lab.footprints();
    let [one, two] = [1, 2].map(|number| lab.host(number));
    let (old, far) = (
        Attachment::new(one, "old", NETWORK),
        Attachment::new(two, "far", NETWORK),
    );
    let outside: IpAddr = "203.0.113.9".parse().expect("an address");
    let pings = [
        Pinging::start(&old, outside),
        Pinging::start(&old, far.address),
    ];

    one.exchange_programs(None);
    let said = follow_the_doctor(one);
    let is_told =
        |line: &str| line.starts_with("note") && line.contains("as an earlier version made it");
    assert!(said.lines().any(is_told), "{said}");
    one.sync();
    let said = follow_the_doctor(one);
    assert!(
        !said.contains("way out: "),
        "nothing is wrong with it: {said}"
    );
    let mut watcher = one.watch();
    check(&old);
    let new = Attachment::new(one, "new", NETWORK);
    check(&new);
    for attached in [&old, &new] {
        reaches(attached, &[&far]);
    }
    let kind = || {
        let link = one.run("ip -json -details link show ch-egress");
        link.ok().json()[0]["linkinfo"]["info_kind"].clone()
    };
    assert_eq!(kind(), "bridge", "it has the form that it had");
    assert_none_lost(pings.into());

    // What somebody damages is mended in that form. The watcher is held, or it would mend it before doctor looks.
    let pid = watcher.pid();
    one.script(&format!("kill -STOP {pid}; ip link delete ch-egress"));
    one.crosshost("doctor").failed();
    one.script(&format!("kill -CONT {pid}"));
    one.sync();
    assert_eq!(kind(), "bridge");
    for attached in [&old, &new] {
        reaches(attached, &[&far]);
        check(attached);
    }
    // Back again, both versions go on with both containers.
    watcher.stop().ok();
    one.exchange_programs(folder(Some(ON_HOST)));
    let back = Attachment::new(one, "back", NETWORK);
    for attached in [&old, &new, &back] {
        reaches(attached, &[&far]);
    }
    new.detach().ok();
    one.exchange_programs(None);
    reaches(&back, &[&far, &old]);
    old.detach().ok();
    reaches(&back, &[&far]);
    back.detach().ok();

    // Empty: the next one is made as this version makes it.
    let again = Attachment::new(one, "again", NETWORK);
    assert_eq!(kind(), "veth");
    reaches(&again, &[&far]);
    check(&again);
    again.detach().ok();
    two.exchange_programs(None);
    far.detach().ok();
    for attached in [&old, &far, &new, &back, &again] {
        attached.container.remove();
    }
    lab.assert_same_as(&before, "when all containers are gone");
}

#[test]
fn a_layout_of_the_future_is_neither_added_to_nor_repaired_and_del_works() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&dual_stack());
    host.sync();
    let before = lab.footprints();
    let attached = Attachment::new(host, "t1", NETWORK);
    let path = "/run/crosshost/layout.json";
    let written = host.run(&["cat", path]).ok().json();
    assert_eq!(written["layout"], 1, "{written}");
    assert!(written["version"].is_string() && written["commit"].is_string());
    let mut watcher = host.watch();
    let outside: IpAddr = "203.0.113.9".parse().expect("an address");
    let pings = vec![Pinging::start(&attached, outside)];

    let future = json!({ "layout": 2, "version": "9.1.0", "commit": "cafe0001", "other": true });
    host.write(path, future.to_string());
    let words = ["layout 2", "9.1.0 (cafe0001)", "layouts up to 1"];
    let container = host.container("t2");
    let commands = [&["sync"][..], &["gc"], &["doctor"]];
    let refused = commands.map(|words| host.crosshost(words).failed());
    let add = host.cnitool("add", NETWORK, "t2", "eth0").failed();
    for said in refused.iter().chain([&add]) {
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(words.iter().all(|it| text.contains(it)), "{text}");
    }
    watcher.hang_up();
    watcher.until(SOON, "told", || watcher.times_said("layout 2") > 0);
    // What the kernel tells it changes nothing: it neither spins nor stops to hear signals.
    host.script("ip link set ch-egress alias touched");
    let begun = watcher.cpu();
    spend(Duration::from_secs(2));
    let spent = watcher.cpu().saturating_sub(begun);
    assert!(spent < Duration::from_millis(500), "{spent:?} of 2 s");
    watcher.stop().ok();
    for plugin in dual_stack()["plugins"].as_array().expect("plugins") {
        let mut conf = plugin.clone();
        conf["cniVersion"] = "1.1.0".into();
        conf["name"] = NETWORK.into();
        let name = plugin["type"].as_str().expect("a type");
        host.call(name, "STATUS")
            .conf(&conf)
            .run()
            .refused(50, &words);
    }
    let ipam = integration::ipamconf(NETWORK, json!({ "subnet": SUBNET }));
    host.call("ipam-kv", "STATUS")
        .conf(&ipam)
        .run()
        .refused(50, &words);
    // CHECK neither judges nor mends, so that no runtime destroys the container.
    let mtu = |mtu: &str| format!("ip link set ch-egress mtu {mtu}");
    host.script(&mtu("1400"));
    check(&attached);
    let link = host.run("ip -json link show ch-egress");
    assert_eq!(link.ok().json()[0]["mtu"], 1400);
    host.script(&mtu("1500"));
    assert_none_lost(pings);
    attached.detach().ok();
    for gone in [&attached.container, &container] {
        gone.remove();
    }
    lab.assert_same_as(&before, "when its container is gone");
}

/// Earlier versions took a conflist with a store of its own beside the one of the host's configuration.
#[test]
fn what_an_earlier_version_made_with_a_second_store_is_given_back_to_it() {
    const SECOND: &str = "ov_net2";
    let lab = Lab::new(1, Backend::Consul);
    let host = lab.host(1);
    host.exchange_programs(folder(Some(EARLIER)));
    let mut second = conflist(SECOND, "10.2.0.0/24");
    second["plugins"][0]["store"] = json!({ "prefix": "other" });
    second["plugins"][0]["vni"] = 4098.into();
    host.install(&conflist(NETWORK, SUBNET));
    host.install(&second);
    let one = Attachment::new(host, "t1", NETWORK);
    let two = Attachment::new(host, "t2", SECOND);

    host.exchange_programs(folder(None));
    let third = host.container("t3");
    let said = host.cnitool("add", SECOND, third.name(), "eth0").failed();
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(text.contains("prefix other"), "{text}");
    let said = host.crosshost("sync").failed().stderr;
    assert!(
        said.contains("prefix other") && said.contains(SECOND),
        "{said}"
    );
    check(&one);
    check(&two);
    two.detach().ok();
    let (_, left) = lab.consul().request("GET", "/v1/kv/other/?keys", "");
    assert!(
        left.contains(SECOND) && !left.contains("/leases/") && !left.contains("/acks/"),
        "{left}"
    );
    host.sync();
    check(&one);
    one.detach().ok();
}
