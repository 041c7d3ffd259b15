//! One network that cannot be mended on a host, since somebody else has its VNI there: the watcher says so, and looks after the
//! host's other networks as before, whichever comes first.

use std::time::Duration;

use integration::{Attachment, Backend, Host, Lab, Watching, conflist, spend};

const BROKEN: &str = "net_m";
/// Before and behind it by name and by age.
const SOUND: [&str; 2] = ["net_a", "net_z"];
const NETWORKS: [(&str, &str); 3] = [
    (SOUND[0], "10.0.0.0/24"),
    (BROKEN, "10.0.1.0/24"),
    (SOUND[1], "10.0.2.0/24"),
];
/// A repair comes within half a minute.
const REPAIR: Duration = Duration::from_secs(40);
/// A watcher hears of a change in milliseconds; this is for a machine that has much else to do.
const NEWS: Duration = Duration::from_secs(2);

/// Waits until `host` sends to `other` on all sound networks.
#[track_caller]
fn soon(limit: Duration, host: &Host, other: &Host, watcher: &Watching) {
    watcher.until(limit, "on the sound networks", || {
        SOUND.iter().all(|it| host.sends_to(it, other))
    });
}

#[test]
fn a_network_that_cannot_be_mended_holds_up_no_other() {
    let lab = Lab::new(3, Backend::Consul);
    let [one, two, three] = [1, 2, 3].map(|number| lab.host(number));
    for host in [one, two] {
        host.sync();
    }
    for (network, subnet) in NETWORKS {
        one.create_network(network, subnet);
        lab.install(&conflist(network, subnet));
    }
    let attached = NETWORKS.map(|(network, _)| Attachment::new(one, network, network));
    let watcher = one.watch();
    let vni = one.listed(&["network", "inspect", BROKEN])["vni"].to_string();
    let flush = SOUND.map(|network| {
        format!("nsenter --net=/run/crosshost/netns/{network} bridge fdb flush dev vxlan0")
    });
    // Held, so that it does not mend the one before the other is there.
    let damage = format!(
        "nsenter --net=/run/crosshost/netns/{BROKEN} ip link delete vxlan0
         ip link add other type vxlan id {vni} dstport 4789 local {} dev ens3
         {}",
        one.vtep(),
        flush.join("\n")
    );
    watcher.held(one, &damage);
    soon(REPAIR, one, two, &watcher);
    assert_eq!(
        watcher.times_said("VXLAN device other"),
        1,
        "{}",
        watcher.said()
    );

    // The watcher tries to follow the broken one again and again.
    let there = Attachment::new(three, "t3", BROKEN);
    spend(Duration::from_secs(5));
    let others = SOUND.map(|network| Attachment::new(three, network, network));
    soon(NEWS, one, three, &watcher);
    for (here, other) in [(&attached[0], &others[0]), (&attached[2], &others[1])] {
        assert!(here.container.pings(other.address, &[]));
    }
    // A sync of everything does not make its snapshot one that an ADD may rely on.
    let follows = |network: &str| {
        let following = ["grep", "-s", network, "/run/crosshost/watch/following.json"];
        one.run(&following).status.success()
    };
    watcher.hang_up();
    watcher.until(NEWS, "told", || {
        watcher.said().contains("crosshost: sync: ")
    });
    assert!(!follows(BROKEN));

    // And it is mended itself when the other is gone.
    one.script("ip link delete other");
    one.sync();
    assert!(attached[1].container.pings(there.address, &[]));
}
