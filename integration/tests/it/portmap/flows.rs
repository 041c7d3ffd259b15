//! Clients of UDP and SCTP that never stop sending: what conntrack remembers of a port must not outlive its container.

use std::net::UdpSocket;
use std::time::Duration;

use crate::portmap::published::{Published, at, network};
use integration::{Backend, Container, Lab, until};
use serde_json::json;

/// A socket that answers in a container: what was sent, behind its name.
struct Echo(std::process::Child);

impl Echo {
    fn in_container(container: &Container<'_>) -> Self {
        // A thread of this process could not be ended while it waits.
        let program = format!(
            "use Socket; socket(S, PF_INET, SOCK_DGRAM, 17); bind(S, pack_sockaddr_in(53, INADDR_ANY)) or die;
             syswrite(STDOUT, \"1\"); while (1) {{ my $from = recv(S, my $b, 99, 0); send(S, \"{} $b\", 0, $from); }}",
            container.name()
        );
        let mut command = container.command("perl");
        command
            .args(["-e", &program])
            .stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("perl");
        let mut ready = [0];
        let out = child.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(out, &mut ready).expect("it listens");
        Self(child)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a host track all that comes to it, whatever else is there.
const TRACKS: &str = "nft add table ip watch; nft add chain ip watch in '{ type filter hook input priority 0; }'; nft add rule ip watch in ct state new counter";

/// A client of port 5353 of the first host: one socket, so one connection to conntrack.
fn client(lab: &Lab) -> UdpSocket {
    lab.outside().net().run(|| {
        let client = UdpSocket::bind("203.0.113.9:5000").expect("a socket");
        let to = at(lab.host(1).vtep(), 5353);
        client.connect(to).expect("a route");
        let limit = Some(Duration::from_secs(2));
        client.set_read_timeout(limit).expect("a limit");
        client
    })
}

/// What it is answered, if it is.
fn answer(client: &UdpSocket, what: &str) -> Option<String> {
    let mut answer = [0; 99];
    client.send(what.as_bytes()).ok()?;
    let length = client.recv(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[test]
fn a_client_that_never_stops_reaches_the_next_container() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&network("bridge", "br", 1));
    let asked = json!([{ "hostPort": 5353, "containerPort": 53, "protocol": "udp" }]);
    let client = client(&lab);
    let asks = |what: &str| answer(&client, what);
    // Before there is anybody the host tracks it too, as one of its own.
    host.script(TRACKS);
    assert_eq!(asks("nobody"), None);
    let first = Published::new(host, "first", "br", &asked);
    let echo = Echo::in_container(&first.container);
    assert_eq!(asks("one").as_deref(), Some("first one"));
    first.again("del").ok();
    drop(echo);
    let second = Published::new(host, "second", "br", &asked);
    let _echo = Echo::in_container(&second.container);
    assert_eq!(asks("two").as_deref(), Some("second two"));
    // What the host only forwards to the same port elsewhere is none of its business.
    let tracked = |what: &str| {
        let all = host.run("cat /proc/net/nf_conntrack").ok().stdout;
        // The original direction is the first one.
        let asks = |line: &&str| line.contains(" udp ") && line.contains(" dport=5353 ");
        let udp = all.lines().filter(asks);
        let began = udp.filter_map(|line| line.split_once("src="));
        began.filter(|(_, ends)| ends.starts_with(what)).count()
    };
    let sends = "echo x > /dev/udp/203.0.113.9/5353";
    second.container.run(&["bash", "-c", sends]).ok();
    // Neither is what somebody keeps in a zone of his own, as OVN does.
    host.script("nft add chain ip watch early '{ type filter hook prerouting priority -300; }'; nft add rule ip watch early udp sport 5001 ct zone set 7");
    let zoned = lab
        .outside()
        .net()
        .run(|| UdpSocket::bind("203.0.113.9:5001"));
    let zoned = zoned.expect("a socket");
    zoned.send_to(b"x", at(host.vtep(), 5353)).expect("a route");
    assert_eq!(tracked("203.0.113.9 dst=192.168.1.11 sport=5001 "), 1);
    assert_eq!(tracked("10.1.0."), 1, "its own question");
    // A client of IPv6, which gets no answer.
    let sixth = lab.outside().net().run(|| UdpSocket::bind("[::]:5002"));
    let sixth = sixth.expect("a socket");
    let to = at(&host.address6(), 5353);
    sixth.send_to(b"x", to).expect("a route");
    until(Duration::from_secs(10), "tracked", || tracked("2001:") > 0);
    assert_eq!(tracked("203.0.113.9 "), 2, "the clients");
    second.again("del").ok();
    assert_eq!(tracked("10.1.0."), 1);
    assert_eq!(tracked("2001:"), 0, "of IPv6");
    assert_eq!(tracked("203.0.113.9 "), 1, "the client");
    assert_eq!(tracked("203.0.113.9 dst=192.168.1.11 sport=5001 "), 1);
    assert_eq!(asks("three"), None, "its connection is forgotten with it");
}

/// As on a host with Docker, kube-proxy or firewalld: connections are tracked while our table is away.
#[test]
fn a_client_that_began_while_the_table_was_gone_is_heard_once_it_is_mended() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&network("bridge", "br", 1));
    host.script(TRACKS);
    let asked = json!([{ "hostPort": 5353, "containerPort": 53, "protocol": "udp" }]);
    let first = Published::new(host, "first", "br", &asked);
    let _echo = Echo::in_container(&first.container);
    let client = client(&lab);
    let asks = |what: &str| answer(&client, what);
    host.script("nft delete table inet crosshost");
    assert_eq!(asks("nobody"), None);
    host.sync();
    first.again("check").ok();
    assert_eq!(asks("one").as_deref(), Some("first one"));
}

/// An INIT of SCTP to ARGV: address, source port, port; with its checksum, without which conntrack would not know it.
const INIT: &str = r#"use Socket; my ($to, $from, $port) = @ARGV; my $head = pack("nnN", $from, $port, 0);
    my $chunk = pack("CCnNNnnN", 1, 0, 20, 1, 65536, 1, 1, 1); my $crc = 0xffffffff;
    for my $byte (unpack("C*", $head . pack("V", 0) . $chunk)) {
        $crc ^= $byte; for (1 .. 8) { $crc = ($crc >> 1) ^ ($crc & 1 ? 0x82f63b78 : 0) } }
    socket(S, PF_INET, SOCK_RAW, 132) or die; my $packet = $head . pack("V", $crc ^ 0xffffffff) . $chunk;
    send(S, $packet, 0, pack_sockaddr_in(0, inet_aton($to))) or die"#;
/// Tells where the first packet of SCTP came from and to which port, or nothing within two seconds.
const HEARS: &str = r#"use Socket; $| = 1; socket(S, PF_INET, SOCK_RAW, 132) or die; print "1"; alarm(2);
    my $from = recv(S, my $packet, 999, 0); my (undef, $address) = unpack_sockaddr_in($from);
    print inet_ntoa($address), " ", unpack("n", substr($packet, 22, 2))"#;

/// The kernel needs no sockets of SCTP for this, and may have none: these are packets made by hand.
#[test]
fn packets_of_sctp_reach_whoever_has_the_port_now() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&network("bridge", "br", 1));
    let asked = json!([{ "hostPort": 9999, "containerPort": 99, "protocol": "sctp" }]);
    let heard_in = |published: &Published<'_>| {
        let mut command = published.container.command("perl");
        command
            .args(["-e", HEARS])
            .stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("perl");
        let mut out = child.stdout.take().expect("a pipe");
        let mut ready = [0];
        std::io::Read::read_exact(&mut out, &mut ready).expect("it listens");
        let init = ["perl", "-e", INIT, host.vtep(), "5000", "9999"];
        lab.outside().run(&init).ok();
        let heard = std::io::read_to_string(out).expect("words");
        child.wait().expect("its end");
        heard
    };
    let first = Published::new(host, "first", "br", &asked);
    assert_eq!(heard_in(&first), "203.0.113.9 99");
    let second = Published::new(host, "second", "br", &json!([]));
    assert_eq!(heard_in(&second), "", "it has no port");
    first.again("del").ok();
    second.again("del").ok();
    let third = Published::new(host, "third", "br", &asked);
    assert_eq!(heard_in(&third), "203.0.113.9 99");
    third.again("del").ok();
}
