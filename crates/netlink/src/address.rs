//! Addresses of links.

use ipnetwork::IpNetwork;

use crate::{Error, Rtnl};

impl Rtnl {
    /// Gives link `index` the address; fine if it has it. IPv6 without duplicate address detection.
    pub async fn add_address(&self, index: u32, address: IpNetwork) -> Result<(), Error> {
        todo!("{index} {address}")
    }

    /// Addresses of link `index`, or of all links: (link index, address with prefix length).
    pub async fn addresses(&self, index: Option<u32>) -> Result<Vec<(u32, IpNetwork)>, Error> {
        todo!("{index:?}")
    }
}
