//! Every backend passes the one suite.

use store::mem::{Fault, Mem};
use store::{Config, Store, open};
use tempfile::TempDir;

use crate::agent::{Agent, NEW, OLD};
use crate::conformance::{Bench, key, run, suite};

#[test]
fn mem_conforms() {
    let mem = Mem::new();
    suite(&Bench {
        open: Box::new(move || Box::new(mem.clone())),
        restart: Box::new(|| ()),
    });
}

#[test]
fn dir_conforms() {
    let dir = TempDir::new().unwrap();
    let config = Config {
        url: Some(format!("dir://{}/store", dir.path().display())),
        ..Config::default()
    };
    suite(&Bench {
        open: Box::new(move || open(&config).unwrap()),
        restart: Box::new(|| ()),
    });
}

#[test]
fn consul_1_20_1_conforms() {
    consul_conforms(NEW);
}

#[test]
fn consul_1_8_7_conforms() {
    consul_conforms(OLD);
}

fn consul_conforms(binary: &str) {
    let agent = Agent::plain(binary);
    let config = agent.config();
    suite(&Bench {
        open: Box::new(move || open(&config).unwrap()),
        restart: Box::new(move || agent.restart()),
    });
}

/// Reads are many: they must not be entries in the cluster's log.
#[test]
fn a_read_does_not_go_through_raft() {
    const READS: u64 = 50;
    for binary in [NEW, OLD] {
        let agent = Agent::plain(binary);
        let log_index = || {
            let output = agent.command().arg("info").output().unwrap();
            let info = String::from_utf8(output.stdout).unwrap();
            let line = info
                .lines()
                .find_map(|line| line.trim().strip_prefix("last_log_index = "));
            line.unwrap().parse::<u64>().unwrap()
        };
        run(async {
            let store = open(&agent.config()).unwrap();
            store.create(&key("a"), b"1").await.unwrap().unwrap();
            let before = log_index();
            for _ in 0..READS {
                assert_eq!(store.read(&[key("a"), key("b")]).await.unwrap().len(), 1);
            }
            // Consul itself writes now and then.
            assert!(log_index() < before + READS / 5);
        });
    }
}

#[test]
fn mem_suffers_on_command() {
    run(async {
        let mem = Mem::new();
        mem.set_fault(Some(Fault::Away));
        assert!(mem.create(&key("a"), b"1").await.unwrap_err().is_away());
        mem.set_fault(Some(Fault::LostAnswers));
        assert!(mem.create(&key("a"), b"1").await.unwrap_err().is_away());
        mem.set_fault(None);
        assert_eq!(mem.get(&key("a")).await.unwrap().unwrap().value, b"1");
        assert_eq!(mem.calls(), 3);
    });
}
