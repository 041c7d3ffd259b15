//! Several runtimes, or one that repeats itself, call at the same moment for the same attachments: one ADD of each wins,
//! the others are told that it exists and take nothing from it, and a DEL beside them leaves nothing or a whole attachment.

use std::time::Duration;

use crate::store_reader;
use integration::{Attachment, Backend, Container, Finished, Lab, Running, conflist, netconf};
use serde_json::Value;

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
const CONTAINERS: usize = 4;
const RUNTIMES: usize = 3;
const ROUNDS: usize = 3;
const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn on_the_embedded_store() {
    at_once(Backend::Dir);
}

#[test]
fn on_consul() {
    at_once(Backend::Consul);
}

fn at_once(backend: Backend) {
    let lab = Lab::new(1, backend);
    let host = lab.host(1);
    host.install(&conflist(NETWORK, SUBNET));
    let near = Attachment::new(host, "near", NETWORK);
    let containers: Vec<_> = (0..CONTAINERS)
        .map(|number| host.container(&format!("t{number}")))
        .collect();
    let untouched = lab.footprints();
    let leased = || store_reader::leased(&lab, NETWORK);
    let before = leased();

    for round in 0..ROUNDS {
        for (container, adds) in containers.iter().zip(all(&containers, &["ADD"])) {
            let what = format!("round {round}, {}", container.name());
            let (won, lost): (Vec<_>, Vec<_>) =
                adds.into_iter().partition(|add| add.status.success());
            assert_eq!(won.len(), 1, "{what}: {lost:?}");
            for add in lost {
                add.refused(100, &[container.name()]);
            }
            let address = integration::address_of(&won[0].json(), "eth0");
            assert_eq!(container.address("eth0"), Some(address), "{what}");
            assert!(near.container.pings(address, &[]), "{what}: {address}");
        }
        assert_eq!(
            leased().len(),
            before.len() + CONTAINERS,
            "a lease for each"
        );

        for del in all(&containers, &["DEL"]).into_iter().flatten() {
            del.ok();
        }
        lab.assert_same_as(&untouched, &format!("round {round}, all DELs at once"));
        assert_eq!(leased(), before);

        // In whatever order these come: what stands at the end is whole, or nothing stands.
        let calls = all(&containers, &["ADD", "DEL"]);
        for (container, calls) in containers.iter().zip(calls) {
            for call in calls.into_iter().filter(|call| !call.status.success()) {
                call.refused(100, &[container.name()]);
            }
            if let Some(address) = container.address("eth0") {
                assert!(near.container.pings(address, &[]), "{address}");
                assert!(leased().contains(&address.to_string()), "{address}");
            }
        }
        for del in all(&containers, &["DEL"]).into_iter().flatten() {
            del.ok();
        }
        lab.assert_same_as(&untouched, &format!("round {round}, ADDs beside DELs"));
        assert_eq!(leased(), before);
    }
}

/// These verbs by each runtime, of all containers at the same moment; what was said of each container.
fn all(containers: &[Container<'_>], verbs: &[&str]) -> Vec<Vec<Finished>> {
    let mut started: Vec<Vec<Running>> = containers.iter().map(|_| Vec::new()).collect();
    for _ in 0..RUNTIMES {
        for verb in verbs {
            for (container, calls) in containers.iter().zip(&mut started) {
                calls.push(start(container, verb));
            }
        }
    }
    let wait = |calls: Vec<Running>| calls.into_iter().map(|call| call.wait(LIMIT)).collect();
    started.into_iter().map(wait).collect()
}

fn start(container: &Container<'_>, verb: &str) -> Running {
    let conf: Value = netconf(NETWORK, SUBNET, "1.0.0");
    container.call(verb, &conf).start()
}
