//! A host as the allocator sees it: its documents, locks and clocks. Each write of a document is whole or not at all, and a
//! process can die before or after it.

use std::{any::Any, collections::BTreeSet, rc::Rc};

use async_trait::async_trait;
use cluster::{
    Clock, Error, Host, LeaseOwner, Ledger, LocalLease, LocalLeases, LocalStore, Memory, Noted,
};

use crate::{
    lies::Planted,
    world::{self, Process, World},
};

/// When the calendar begins, in seconds since 1970.
pub const EPOCH: i64 = 1_700_000_000;

/// The host of a process.
pub struct Site {
    pub world: Rc<World>,
    pub process: Rc<Process>,
    pub index: usize,
}

impl Site {
    /// The host's identity in this boot.
    pub fn host(&self) -> Host {
        let host = self.world.host(self.index);
        Host {
            node: host.name.clone(),
            boot_id: format!("{}-boot-{}", host.name, host.boot),
            machine_id: Some(format!("machine-{}", host.name)),
            vtep: None,
            tunnel: None,
            store_ref: None,
            version: None,
            commit: None,
        }
    }

    /// Writes, unless the process is dead or dies before it.
    pub fn write(&self, what: impl FnOnce(&mut world::Host)) {
        let world = &self.world;
        let dies = world.strikes(world.scenario.faults.crash_writing);
        let before = dies && world.chance(500);
        if before {
            world.kill(&self.process);
        }
        if self.process.is_alive() {
            what(&mut world.host_mut(self.index));
        }
        if dies {
            world.kill(&self.process);
        }
    }

    pub async fn while_alive(&self) {
        if !self.process.is_alive() {
            std::future::pending::<()>().await;
        }
    }
}

/// The lock on an attachment without a verb.
struct Idle {
    world: Rc<World>,
    index: usize,
    owner: LeaseOwner,
    id: u64,
}

impl Drop for Idle {
    fn drop(&mut self) {
        let mut host = self.world.host_mut(self.index);
        if host.busy.get(&self.owner) == Some(&self.id) {
            host.busy.remove(&self.owner);
        }
    }
}

#[async_trait(?Send)]
impl LocalStore for Site {
    async fn lock(&self, network: &str) -> Result<Box<dyn Any>, Error> {
        self.while_alive().await;
        let lock = self.world.host(self.index).part(network).lock.clone();
        Ok(Box::new(lock.lock().await))
    }

    async fn lock_claims(&self, network: &str) -> Result<Box<dyn Any>, Error> {
        self.while_alive().await;
        let lock = self.world.host(self.index).part(network).claims.clone();
        Ok(Box::new(lock.lock().await))
    }

    fn lock_idle(&self, _network: &str, owner: &LeaseOwner) -> Result<Option<Box<dyn Any>>, Error> {
        let mut host = self.world.host_mut(self.index);
        if host.busy.contains_key(owner) {
            return Ok(None);
        }
        host.busy.insert(owner.clone(), self.process.id);
        let (world, index, id) = (self.world.clone(), self.index, self.process.id);
        let owner = owner.clone();
        Ok(Some(Box::new(Idle {
            world,
            index,
            owner,
            id,
        })))
    }

    fn ledger(&self, network: &str) -> Result<Option<Ledger>, Error> {
        let mut ledger = self.world.host(self.index).part(network).ledger.clone();
        let planted = self.world.scenario.planted;
        if let Some(ledger) = ledger
            .as_mut()
            .filter(|_| self.world.is_cut_off(self.index))
        {
            Planted::unfence(planted, ledger);
        }
        Ok(ledger)
    }

    fn save_ledger(&self, network: &str, ledger: &Ledger) -> Result<(), Error> {
        let planted = self.world.scenario.planted;
        self.write(|host| {
            let part = host.part_mut(network);
            let mut ledger = ledger.clone();
            Planted::fence(planted, &mut ledger, part.ledger.as_ref());
            part.ledger = Some(ledger);
        });
        Ok(())
    }

    fn remove_ledger(&self, network: &str) -> Result<(), Error> {
        self.write(|host| host.part_mut(network).ledger = None);
        Ok(())
    }

    fn lease(&self, network: &str, owner: &LeaseOwner) -> Result<Noted, Error> {
        let host = self.world.host(self.index);
        let known = host.part(network).local_leases.get(owner).cloned();
        Ok(known.map_or(Noted::Nothing, Noted::Lease))
    }

    fn save_lease(&self, network: &str, local_lease: &LocalLease) -> Result<(), Error> {
        self.write(|host| {
            let local_leases = &mut host.part_mut(network).local_leases;
            local_leases.insert(local_lease.owner(), local_lease.clone());
        });
        Ok(())
    }

    fn remove_lease(&self, network: &str, owner: &LeaseOwner) -> Result<(), Error> {
        self.write(|host| {
            host.part_mut(network).local_leases.remove(owner);
        });
        Ok(())
    }

    fn leases(&self, network: &str) -> Result<LocalLeases, Error> {
        let host = self.world.host(self.index);
        Ok(LocalLeases {
            readable: host.part(network).local_leases.values().cloned().collect(),
            unreadable: Vec::new(),
        })
    }

    fn vnis(&self) -> Result<BTreeSet<u32>, Error> {
        let host = self.world.host(self.index);
        let ledgers = host.parts.values().filter_map(|part| part.ledger.as_ref());
        let vnis = ledgers.filter_map(|ledger| ledger.network.record.vni);
        Ok(vnis.collect())
    }

    fn memory(&self, network: &str) -> Result<Memory, Error> {
        Ok(self.world.host(self.index).part(network).memory.clone())
    }

    fn save_memory(&self, network: &str, memory: &Memory) -> Result<(), Error> {
        self.write(|host| host.part_mut(network).memory = memory.clone());
        Ok(())
    }
}

impl Clock for Site {
    fn uptime(&self) -> u64 {
        let host = self.world.host(self.index);
        let passed = self.world.executor.now() - host.booted;
        (passed + passed * host.drift / 1_000_000) / 1000
    }

    fn unix(&self) -> u64 {
        let host = self.world.host(self.index);
        let now = i64::try_from(self.world.executor.now() / 1000).unwrap_or(i64::MAX);
        u64::try_from(EPOCH + now + host.calendar).unwrap_or(0)
    }
}
