//! What the model looks at: the maps as the programs see them, and the routing table.

use roadstead_abi::{Addr, Affinity, AffinityKey, Backend, CtEntry, CtKey, DropReason, NodeConfig, SvcKey, SvcValue};
use roadstead_datapath::way::Place;

use crate::maps::MapError;

/// Why something could not be looked up. What is not there is no error.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A map.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The routing table.
    #[error("cannot ask the routing table")]
    Routes(#[source] std::io::Error),
}

/// The maps, lookup for lookup as the programs do them.
pub trait View {
    /// The node's own values; `None` before the agent's first write.
    ///
    /// # Errors
    /// [`ViewError`], as all functions here, when the kernel refuses.
    fn node(&self) -> Result<Option<NodeConfig>, ViewError>;
    /// A frontend.
    fn service(&self, key: &SvcKey) -> Result<Option<SvcValue>, ViewError>;
    /// The backend id in a slot.
    fn slot(&self, index: u32) -> Result<Option<u32>, ViewError>;
    /// A backend; a zeroed one is free.
    fn backend(&self, id: u32) -> Result<Option<Backend>, ViewError>;
    /// The kind of an address that belongs to Services alone.
    fn vip(&self, addr: &Addr) -> Result<Option<u32>, ViewError>;
    /// Bits of `node_address` of an address of this node.
    fn node_address(&self, addr: &Addr) -> Result<Option<u32>, ViewError>;
    /// Bits of `network` of the longest network that holds the address.
    fn network(&self, addr: &Addr) -> Result<Option<u32>, ViewError>;
    /// Whether the source ranges of this id hold the address.
    fn range(&self, id: u32, addr: &Addr) -> Result<bool, ViewError>;
    /// The conntrack entry of a tuple.
    fn flow(&self, key: &CtKey) -> Result<Option<CtEntry>, ViewError>;
    /// The backend that a client had.
    fn affinity(&self, key: &AffinityKey) -> Result<Option<Affinity>, ViewError>;
    /// Whether a mark of clients (`select::client_mark`) is set: answers of a flow may go there.
    fn client(&self, mark: u32) -> Result<bool, ViewError>;
    /// Whether a bit of the filter is set.
    fn filter(&self, bit: u32) -> Result<bool, ViewError>;
    /// The programs' clock.
    fn now(&self) -> u32;
}

/// The routing table, as the programs ask it.
pub trait Routes {
    /// Where an address is, and the device towards it (0 for an address of this node); or why it is nowhere.
    ///
    /// # Errors
    /// [`ViewError::Routes`] when the table cannot be asked.
    fn place(&self, source: &Addr, destination: &Addr) -> Result<Result<(Place, u32), DropReason>, ViewError>;
}
