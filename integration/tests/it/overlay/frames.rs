//! Frames as an attacker with raw sockets makes them, and a listener for what arrives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use integration::{Attachment, Container, Running};

/// Sends a frame from an interface: index, frame in hex, how often, pause in milliseconds, and whether each has a sender of its own.
const SENDER: &str = r#"
    my ($index, $hex, $times, $pause, $many) = @ARGV;
    socket(my $raw, 17, 3, 0) or die $!;
    my $to = pack("SnlSCCa8", 17, 0, $index, 0, 0, 6, "");
    my $frame = pack("H*", $hex);
    for my $at (1 .. $times) {
        substr($frame, 6, 6) = pack("nN", 0x0699, $at) if $many;
        my $sent;
        do { $sent = send($raw, $frame, 0, $to) } until defined $sent or !$!{ENOBUFS};
        defined $sent or die $!;
        select(undef, undef, undef, $pause / 1000) if $pause;
    }
"#;

/// Counts the frames that an interface receives and that contain these bytes, until it is told to end.
const LISTENER: &str = r#"
    my ($index, $hex) = @ARGV;
    my $ends = 0;
    $SIG{TERM} = sub { $ends = 1 };
    socket(my $raw, 17, 3, 0x0300) or die $!;
    setsockopt($raw, 1, 33, pack("l", 1 << 25));
    bind($raw, pack("SnlSCCa8", 17, 3, $index, 0, 0, 0, "")) or die $!;
    my ($wanted, $count) = (pack("H*", $hex), 0);
    print STDERR "listening\n";
    while (1) {
        my $read = "";
        vec($read, fileno($raw), 1) = 1;
        if (select($read, undef, undef, $ends ? 0 : 0.2) < 1) {
            last if $ends;
            next;
        }
        # What the interface itself sends is heard, too (PACKET_OUTGOING).
        my $from = recv($raw, my $frame, 2048, 0);
        next unless defined $from;
        my (undef, undef, undef, undef, $kind) = unpack("SnlSC", $from);
        $count++ if $kind != 4 && index($frame, $wanted) >= 0;
    }
    print $count;
"#;

/// A MAC as bytes.
pub(crate) type Mac = [u8; 6];

/// To all.
pub(crate) const ALL: Mac = [0xff; 6];
/// What frames carry that a listener waits for.
pub(crate) const MARK: &[u8] = b"crosshost-frame!";

/// How a frame is sent.
#[derive(Clone, Copy)]
pub(crate) struct Volley {
    pub(crate) times: u32,
    pub(crate) pause: u32,
    pub(crate) many_senders: bool,
}

/// Once.
pub(crate) const ONCE: Volley = Volley {
    times: 1,
    pause: 0,
    many_senders: false,
};
/// Again and again for longer than a kernel holds on to what it heard of a neighbour.
pub(crate) const INSISTING: Volley = Volley {
    times: 15,
    pause: 100,
    many_senders: false,
};

pub(crate) fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.concat()
}

fn index(container: &Container<'_>, ifname: &str) -> String {
    container.link(ifname)["ifindex"].to_string()
}

/// Sends the frame from the container's interface.
#[track_caller]
pub(crate) fn send(container: &Container<'_>, ifname: &str, frame: &[u8], volley: Volley) {
    let many = if volley.many_senders { "1" } else { "" };
    let (times, pause) = (volley.times.to_string(), volley.pause.to_string());
    let index = index(container, ifname);
    let words: [&str; 8] = [
        "perl",
        "-MErrno",
        "-e",
        SENDER,
        &index,
        &hex(frame),
        &times,
        &pause,
    ];
    container.run(&[&words[..], &[many]].concat()).ok();
}

/// A listener on an interface.
pub(crate) struct Ear(Running);

impl Ear {
    /// Listens from now on for frames with these bytes.
    #[track_caller]
    pub(crate) fn open(container: &Container<'_>, ifname: &str, bytes: &[u8]) -> Self {
        let mut command = container.command("perl");
        let index = index(container, ifname);
        command.args(["-e", LISTENER, &index, &hex(bytes)]);
        let running = Running::start(command, b"");
        integration::until(Duration::from_secs(10), "a listener", || {
            running.stderr_so_far().contains("listening")
        });
        Self(running)
    }

    /// How many there were.
    #[track_caller]
    pub(crate) fn heard(self) -> u64 {
        integration::spend(Duration::from_millis(300));
        self.0.terminate();
        let said = self.0.wait(integration::LIMIT).ok().stdout;
        said.parse().expect("a number")
    }
}

/// The MAC of the container's interface.
pub(crate) fn mac_of(container: &Container<'_>, ifname: &str) -> Mac {
    let text = container.link(ifname)["address"]
        .as_str()
        .expect("a MAC")
        .to_owned();
    let bytes = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"));
    let bytes: Vec<_> = bytes.collect();
    bytes.try_into().expect("six bytes")
}

/// An Ethernet frame, of at least 60 bytes.
pub(crate) fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An ARP message to all: `operation` 1 asks, 2 answers.
pub(crate) fn arp(
    (ether, operation): (Mac, u16),
    (sender_mac, sender): (Mac, Ipv4Addr),
    target: Ipv4Addr,
) -> Vec<u8> {
    let message = [
        &[0, 1, 8, 0, 6, 4][..],
        &operation.to_be_bytes(),
        &sender_mac,
        &sender.octets(),
        &ALL,
        &target.octets(),
    ];
    ethernet(ALL, ether, 0x0806, &message.concat())
}

fn sum(parts: &[&[u8]]) -> u16 {
    let mut total: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or_default();
            total += u32::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    !u16::try_from(total).expect("16 bits")
}

/// An IP packet.
pub(crate) fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = |more: usize| {
        u16::try_from(payload.len() + more)
            .expect("a short one")
            .to_be_bytes()
    };
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut head = [
                &[0x45, 0][..],
                &length(20),
                &[0, 0, 0, 0, 64, protocol, 0, 0],
                &from.octets(),
                &to.octets(),
            ]
            .concat();
            let sum = sum(&[&head]).to_be_bytes();
            head[10..12].copy_from_slice(&sum);
            [&head, payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => [
            &[0x60, 0, 0, 0][..],
            &length(0),
            &[protocol, 255],
            &from.octets(),
            &to.octets(),
            payload,
        ]
        .concat(),
        _ => panic!("of one family"),
    }
}

/// With its checksum, which is two bytes of zeros at `at` so far.
fn summed(from: IpAddr, to: IpAddr, protocol: u8, mut message: Vec<u8>, at: usize) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u32::try_from(message.len())
        .expect("a short one")
        .to_be_bytes();
    let sum = sum(&[
        &octets(from),
        &octets(to),
        &length,
        &[0, 0, 0, protocol],
        &message,
    ]);
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A UDP packet with the mark.
pub(crate) fn udp(from: IpAddr, to: IpAddr, ports: (u16, u16)) -> Vec<u8> {
    let length = u16::try_from(8 + MARK.len()).expect("a short one");
    let message = [
        &ports.0.to_be_bytes()[..],
        &ports.1.to_be_bytes(),
        &length.to_be_bytes(),
        &[0, 0],
        MARK,
    ];
    ip(from, to, 17, &summed(from, to, 17, message.concat(), 6))
}

/// The group of all nodes of a segment, and its MAC.
pub(crate) const ALL_NODES: (Ipv6Addr, Mac) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    [0x33, 0x33, 0, 0, 0, 1],
);

/// A message of ICMP for IPv6 to all nodes.
pub(crate) fn icmp6(ether: Mac, from: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let (from, to) = (from.into(), ALL_NODES.0.into());
    let message = summed(from, to, 58, message.to_vec(), 2);
    ethernet(ALL_NODES.1, ether, 0x86dd, &ip(from, to, 58, &message))
}

/// A neighbour advertisement that overrides what was known.
pub(crate) fn advertisement(ether: Mac, from: Ipv6Addr, target: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let message = [
        &[136, 0, 0, 0, 0x20, 0, 0, 0][..],
        &target.octets(),
        &[2, 1],
        &mac,
    ];
    icmp6(ether, from, &message.concat())
}

/// The container's addresses on the segment.
pub(crate) fn v4(attached: &Attachment<'_>) -> Ipv4Addr {
    let all = super::host_on_segment::addresses(attached).into_iter();
    let mut found = all.filter_map(|it| match it {
        IpAddr::V4(it) => Some(it),
        IpAddr::V6(_) => None,
    });
    found.next().expect("an IPv4 address")
}

pub(crate) fn v6(attached: &Attachment<'_>) -> Ipv6Addr {
    let all = super::host_on_segment::addresses(attached).into_iter();
    let mut found = all.filter_map(|it| match it {
        IpAddr::V6(it) => Some(it),
        IpAddr::V4(_) => None,
    });
    found.next().expect("an IPv6 address")
}
