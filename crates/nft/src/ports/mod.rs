//! Published ports: what packets to a port of this host become, in the same table `inet crosshost`.
//!
//! A port is an element of a map, so that a packet's way does not depend on how many there are, and neither does the work to
//! add or remove one. Who uses this holds a lock against others of its kind; against the rest of the host each change is made
//! under the generation of the rules that it was decided by.

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

/// So many places are looked at one by one; more of them by reading their sets.
pub const FEW: usize = 300;

/// What was found, or is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// At the places that were asked for.
    pub elements: Elements,
    /// All of them.
    pub conditions: Conditions,
    /// Whether no map has lost what was in it since this was made so: each has a marker, an element that no packet meets, and who
    /// empties the map takes it along.
    pub is_complete: bool,
}

/// Where to look.
#[derive(Debug, Clone)]
pub enum Scope {
    /// There.
    Keys(BTreeSet<Key>),
    /// There, and at all ports of one address.
    KeysAndBound(BTreeSet<Key>),
    /// Everywhere.
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

    /// Makes chains and maps complete, whatever they were before; whether they were not.
    pub fn ensure(&mut self) -> Result<bool, Error> {
        self.0.make(&skeleton::skeleton())
    }

    /// Compares chains and maps, without touching.
    pub fn status(&mut self) -> Result<Status, Error> {
        self.0.compare(&skeleton::skeleton())
    }

    /// What there is.
    pub fn read(&mut self, scope: &Scope) -> Result<Published, Error> {
        self.0.decide(|channel| {
            let (found, ..) = published(channel, scope)?;
            Ok((vec![], found))
        })
    }

    /// Makes of what there is at these places what `wanted` makes of it, in one step; what is refused changes nothing. It may
    /// be asked several times, if others change the host's rules meanwhile.
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
                    why: "shared by more networks of its container than can be noted",
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

    /// Removes all that is about ports, and the table if nothing else is in it; true if there was something.
    pub fn remove(&mut self) -> Result<bool, Error> {
        self.0.remove_part(&skeleton::skeleton())
    }
}

/// What is in this scope; with the markers, and the handles of the conditions.
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
