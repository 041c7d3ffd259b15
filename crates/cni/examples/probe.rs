//! A plugin for the tests of this crate: a real process that does what its configuration's key `probe` says.

use cni::{Call, CniResult, ContainerId, Delegate, Error, IfName, Plugin, Tell, run};
use serde::Deserialize;
use std::process::ExitCode;

struct Probe;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conf {
    probe: Orders,
    ipam: Ipam,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Orders {
    panic: bool,
    panic_in_thread: bool,
    fail: bool,
    vni: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ipam {
    r#type: String,
}

/// Obeys, and says which call it got on standard error.
fn obey(call: &Call) -> Result<Conf, Error> {
    let conf: Conf = call.conf.decode()?;
    let netns = call.netns.as_ref().map(|p| p.display().to_string());
    #[allow(clippy::print_stderr, reason = "what the tests look at")]
    {
        eprintln!(
            "{} netns={netns:?} vni={}",
            call.command.as_str(),
            conf.probe.vni
        );
    }
    assert!(!conf.probe.panic, "as ordered");
    if conf.probe.panic_in_thread {
        let _ = std::thread::spawn(|| panic!("as ordered")).join();
    }
    if conf.probe.fail {
        return Err(Error::new(123, "as ordered").with_details("by the test"));
    }
    Ok(conf)
}

impl Plugin for Probe {
    const NAME: &str = "probe";

    fn add(&self, call: &Call, tell: Tell<'_>) -> Result<(), Error> {
        let conf = obey(call)?;
        if !conf.ipam.r#type.is_empty() {
            return tell(&Delegate::find(call, &conf.ipam.r#type)?.add()?);
        }
        match &call.conf.prev_result {
            Some(previous) => tell(previous),
            None => tell(&CniResult::default()),
        }
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        obey(call).map(|_| ())
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        obey(call).map(|_| ())
    }

    fn gc(&self, call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
        obey(call)?;
        #[allow(clippy::print_stderr, reason = "what the tests look at")]
        {
            eprintln!("valid={}", valid.len());
        }
        Ok(())
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        obey(call).map(|_| ())
    }
}

fn main() -> ExitCode {
    run(Probe)
}
