//! Published ports, in the same table `inet crosshost`.
//!
//! A port is an element of a map. So the cost of a packet does not depend on the number of ports, and neither does the cost
//! to add or remove one. The caller holds a lock against other callers; each change carries the generation of the rules that
//! it was decided by.

mod conditions;
mod entry;
mod rules;
mod skeleton;

use std::collections::BTreeSet;

pub use conditions::{Condition, Conditional, Conditions, parse as conditions};
pub use entry::{Element, Elements, Entry, HostPort, Key};

use crate::channel::Channel;
use crate::error::Error;
use crate::{Nft, Status};

/// Up to this many elements are read one by one; more by reading their whole sets.
pub const FEW: usize = 300;

/// What the table has, or should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// The elements in the scope that was asked for.
    pub elements: Elements,
    /// All conditions.
    pub conditions: Conditions,
    /// Whether each map has its completeness marker, an element that no packet matches and that is lost if a program empties
    /// the map. With it, the maps have everything that was put there.
    pub is_complete: bool,
}

/// Which elements are read.
#[derive(Debug, Clone)]
pub enum Scope {
    /// Those with these keys.
    Keys(BTreeSet<Key>),
    /// Those with these keys, and all ports that are bound to one address.
    KeysAndBound(BTreeSet<Key>),
    /// All.
    All,
}

/// The part of the table that is about ports, in the network namespace in which the calling thread was at [`Ports::open`].
#[derive(Debug)]
pub struct Ports(Nft);

impl Ports {
    /// Opens the socket. Nothing is asked of the kernel yet.
    pub fn open() -> Result<Self, Error> {
        Nft::open().map(Self)
    }

    /// Makes chains and maps complete, whatever they were before; returns whether they were incomplete.
    pub fn ensure(&mut self) -> Result<bool, Error> {
        self.0.make(&skeleton::skeleton(), &[])
    }

    /// Compares chains and maps with what they should be. Changes nothing.
    pub fn status(&mut self) -> Result<Status, Error> {
        self.0.compare(&skeleton::skeleton())
    }

    /// Reads the elements in a scope.
    pub fn read(&mut self, scope: &Scope) -> Result<Published, Error> {
        self.0.decide(|channel| {
            let (found, ..) = published(channel, scope)?;
            Ok((vec![], found))
        })
    }

    /// Replaces what is in the scope by what `wanted` returns for it, atomically; an error of `wanted` changes nothing. It
    /// may be called several times, if other programs change rules meanwhile. Returns whether that was a change.
    pub fn update<E>(
        &mut self,
        scope: &Scope,
        mut wanted: impl FnMut(&Published) -> Result<Published, E>,
    ) -> Result<Result<bool, E>, Error> {
        self.0.decide(|channel| {
            let (found, markers, handles) = published(channel, scope)?;
            let wanted = match wanted(&found) {
                Ok(wanted) => wanted,
                Err(refused) => return Ok((vec![], Err(refused))),
            };
            if let Some(held) = wanted.elements.values().find(|it| !it.has_room()) {
                return Err(Error::Unfit {
                    what: "published port",
                    name: held.text.clone(),
                    why: "too many networks of one container publish it",
                });
            }
            let rules = (found.conditions, handles);
            let mut changes = entry::changes(&found.elements, &wanted.elements);
            if wanted.is_complete {
                changes.extend(entry::changes(&markers, &entry::markers()));
            }
            changes.extend(conditions::changes(&rules, &wanted.conditions));
            let differs = !changes.is_empty();
            Ok((changes, Ok(differs)))
        })
    }

    /// Removes everything about ports, and the table if it is empty then; true if there was something.
    pub fn remove(&mut self) -> Result<bool, Error> {
        self.0.remove_part(&skeleton::skeleton())
    }
}

/// What is in this scope, with the markers, and the handles of the conditions' rules.
fn published(
    channel: &mut Channel,
    scope: &Scope,
) -> Result<(Published, Elements, Vec<u64>), Error> {
    let (elements, markers) = elements(channel, scope)?;
    let (conditions, handles) = conditions::all(channel)?;
    let is_complete = markers == entry::markers();
    let found = Published {
        elements,
        conditions,
        is_complete,
    };
    Ok((found, markers, handles))
}

/// What is in this scope, and the markers.
fn elements(channel: &mut Channel, scope: &Scope) -> Result<(Elements, Elements), Error> {
    let mut found = match scope {
        Scope::Keys(keys) => at(channel, keys)?,
        Scope::KeysAndBound(keys) => {
            let mut found = at(channel, keys)?;
            found.extend(within(channel, entry::bound_sets())?);
            found
        }
        Scope::All => within(channel, entry::all_sets())?,
    };
    let markers: BTreeSet<_> = entry::markers().into_keys().collect();
    found.retain(|key, _| !markers.contains(key));
    Ok((found, at(channel, &markers)?))
}

fn within(
    channel: &mut Channel,
    sets: impl IntoIterator<Item = &'static str>,
) -> Result<Elements, Error> {
    let mut found = Elements::new();
    for set in sets {
        found.extend(entry::all(channel, set)?);
    }
    Ok(found)
}

fn at(channel: &mut Channel, keys: &BTreeSet<Key>) -> Result<Elements, Error> {
    let mut found = Elements::new();
    if keys.len() <= FEW {
        for key in keys {
            if let Some(held) = entry::find(channel, key)? {
                found.insert(key.clone(), held);
            }
        }
    } else {
        let sets: BTreeSet<_> = keys.iter().map(Key::set).collect();
        for set in sets {
            let all = entry::all(channel, set)?;
            found.extend(all.into_iter().filter(|(key, _)| keys.contains(key)));
        }
    }
    Ok(found)
}
