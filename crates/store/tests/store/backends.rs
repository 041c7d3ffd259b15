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
