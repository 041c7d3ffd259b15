//! Recovery: what hosts do after the store has lost records. It was emptied, put back to an older snapshot, or replaced by another one.
//!
//! Each host remembers the records that it read last. The host whose sync or ADD comes first writes again what all hosts know: the
//! network and its blocks. Each host writes again what it alone knows: its own record, and the addresses and leases of its containers.
//! Meanwhile hosts forward to a node whose record is not back yet as before (`NetworkSnapshot::recall_nodes`).
//!
//! | file | what |
//! |---|---|
//! | `networks` | the network and its blocks are written again |
//! | `memory` | what a host remembers of a network |
//! | `leases` | the addresses and leases of this host's containers |

mod leases;
pub(crate) mod memory;
mod networks;
