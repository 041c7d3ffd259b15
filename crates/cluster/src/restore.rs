//! What a store forgot, told to it again: it was emptied, or restored from an old snapshot.
//!
//! A host remembers the news that it read last. Blocks are never deleted while their network lives, so a block that is
//! in its memory and not in the store was forgotten, whoever owns it; so was a change of one that the store has with
//! fewer changes, and so was a network on which the host has containers. All of that is written again as it was, before
//! the host does anything else. What the store has with as many changes or more counts more than what a host remembers.
//!
//! The store's revisions tell nothing here: one that was put in the place of another counts anew, from wherever it is.

use store::{Entry, Op};

use crate::{
    ATTEMPTS, CHUNK, Cluster, Error, Network, NetworkSpec, NetworkState, News, Stored,
    records::{VniRecord, encode, subnets},
};

impl Cluster<'_> {
    /// Writes again what of `memory` the store has forgotten; whether there was anything. `news` are the store's, and
    /// are brought up to date.
    pub async fn restore(&self, name: &str, memory: &News, news: &mut News) -> Result<bool, Error> {
        let Some(remembered) = &memory.network else {
            return Ok(false);
        };
        let mut forgotten = false;
        for _ in 0..ATTEMPTS {
            if let Some(present) = &news.network
                && !present.record.is_same(&remembered.record)
            {
                return Ok(forgotten);
            }
            let mut ops = Vec::new();
            for (block, known) in memory.blocks.readable() {
                let key = self.layout.block(name, *block)?;
                let value = encode(&known.record.unpinned())?;
                match news.blocks.get(block) {
                    None => ops.push(Op::Create { key, value }),
                    Some(Stored::Readable(present)) if known.record.is_newer(&present.record) => {
                        ops.push(Op::Swap {
                            key,
                            value,
                            revision: present.revision,
                        });
                    }
                    Some(_) => {}
                }
            }
            if ops.is_empty() && news.network.is_some() {
                return Ok(forgotten);
            }
            forgotten = true;
            // The network last: while it is absent nobody can claim what is not yet written again.
            let mut written = true;
            for chunk in ops.chunks(CHUNK) {
                written &= self.done(chunk).await?.is_some();
            }
            if written && news.network.is_none() {
                self.recreate(&remembered.record).await?;
            }
            *news = self.news(name).await?;
        }
        Err(Error::Contended(
            self.layout.network(name)?.as_str().to_owned(),
        ))
    }

    /// The record of a network that the store has forgotten, with all that is claimed with it.
    async fn recreate(&self, network: &Network) -> Result<bool, Error> {
        let (all, own) = (self.layout.subnets()?, self.layout.network(&network.name)?);
        let vnis = self.layout.vnis()?;
        let entries = self
            .store
            .read(&[all.clone(), own.clone(), vnis.clone()])
            .await?;
        if entries.iter().any(|entry| entry.key == own) {
            return Ok(false);
        }
        let network = Network {
            state: NetworkState::Ready,
            ..network.clone()
        };
        let spec = NetworkSpec {
            name: network.name.clone(),
            ranges: network.ranges.clone(),
            ..NetworkSpec::default()
        };
        let (subnets_op, _) =
            self.swap_subnets(entries.iter().find(|e| e.key == all), |record| {
                crate::networks::refuse_overlap(&spec, record)?;
                record
                    .networks
                    .insert(network.name.clone(), subnets(&network.ranges));
                Ok(())
            })?;
        let mut ops = vec![
            subnets_op,
            Op::Create {
                key: own,
                value: encode(&network)?,
            },
        ];
        // Where its record alone was lost the network has its identifier still.
        let is_its = |entry: &Entry| match Stored::<VniRecord>::of(entry) {
            Stored::Readable(taken) => taken.record.network == network.name,
            Stored::Opaque(_) => true,
        };
        let vni = network.vni.map(|vni| self.layout.vni(vni)).transpose()?;
        let kept = entries
            .iter()
            .find(|entry| Some(&entry.key) == vni.as_ref());
        if let Some(key) = vni.filter(|_| !kept.is_some_and(is_its)) {
            let value = encode(&VniRecord {
                network: network.name.clone(),
            })?;
            ops.push(Op::Create { key, value });
        }
        Ok(self.done(&ops).await?.is_some())
    }
}
