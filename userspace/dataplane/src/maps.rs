//! The maps as the reconciler sees them: a trait, which the kernel's maps stand behind, and in tests fakes that fail by
//! order.

use std::sync::Arc;

use roadstead_abi::{Addr, Backend, NodeConfig, SlotRange, SvcKey, SvcValue};

use crate::addresses::Prefix;
pub use crate::kernel_maps::{FlowMaps, KernelMaps, open};

/// Maps that hold the state of Services. Every write of an element is visible at once and whole; functions that write
/// many of them only save system calls.
pub trait Maps {
    /// All frontends.
    ///
    /// # Errors
    /// [`MapError`], as all functions here, when the kernel refuses.
    fn services(&self) -> Result<Vec<(SvcKey, SvcValue)>, MapError>;
    /// Inserts or replaces a frontend.
    fn put_service(&mut self, key: &SvcKey, value: &SvcValue) -> Result<(), MapError>;
    /// Inserts or replaces frontends, in order.
    fn put_services(&mut self, entries: &[(SvcKey, SvcValue)]) -> Result<(), Stopped> {
        one_by_one(entries, |(key, value)| self.put_service(key, value))
    }
    /// Removes a frontend; one that is not there is no error.
    fn remove_service(&mut self, key: &SvcKey) -> Result<(), MapError>;
    /// The backend ids in a range.
    fn slots(&self, range: SlotRange) -> Result<Vec<u32>, MapError>;
    /// Writes backend ids from a slot on.
    fn put_slots(&mut self, base: u32, ids: &[u32]) -> Result<(), MapError>;
    /// Writes several sets of backend ids, each from its first slot on.
    fn put_sets(&mut self, sets: &[(u32, Arc<[u32]>)]) -> Result<(), Stopped> {
        one_by_one(sets, |(base, ids)| self.put_slots(*base, ids))
    }
    /// A backend by id; a zeroed one is free.
    fn backend(&self, id: u32) -> Result<Backend, MapError>;
    /// The backends with ids below `end`.
    fn backends(&self, end: u32) -> Result<Vec<Backend>, MapError> {
        (0..end).map(|id| self.backend(id)).collect()
    }
    /// Writes a backend.
    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError>;
    /// Writes backends, in order.
    fn put_backends(&mut self, backends: &[(u32, Backend)]) -> Result<(), Stopped> {
        one_by_one(backends, |(id, backend)| self.put_backend(*id, backend))
    }
    /// All addresses of Services.
    fn vips(&self) -> Result<Vec<(Addr, u32)>, MapError>;
    /// Inserts or replaces an address.
    fn put_vip(&mut self, addr: &Addr, kind: u32) -> Result<(), MapError>;
    /// Inserts or replaces addresses, in order.
    fn put_vips(&mut self, vips: &[(Addr, u32)]) -> Result<(), Stopped> {
        one_by_one(vips, |(addr, kind)| self.put_vip(addr, *kind))
    }
    /// Removes an address; one that is not there is no error.
    fn remove_vip(&mut self, addr: &Addr) -> Result<(), MapError>;
    /// All source ranges, with the ids of their lists.
    fn ranges(&self) -> Result<Vec<(u32, Prefix)>, MapError>;
    /// Adds a range to the list of an id.
    fn put_range(&mut self, id: u32, range: &Prefix) -> Result<(), MapError>;
    /// Removes one; one that is not there is no error.
    fn remove_range(&mut self, id: u32, range: &Prefix) -> Result<(), MapError>;
    /// All networks and what they are ([`roadstead_abi::network`]).
    fn networks(&self) -> Result<Vec<(Prefix, u32)>, MapError>;
    /// Inserts or replaces a network.
    fn put_network(&mut self, network: &Prefix, flags: u32) -> Result<(), MapError>;
    /// Removes one; one that is not there is no error.
    fn remove_network(&mut self, network: &Prefix) -> Result<(), MapError>;
    /// All addresses of the node and what they do ([`roadstead_abi::node_address`]).
    fn node_addresses(&self) -> Result<Vec<(Addr, u32)>, MapError>;
    /// Inserts or replaces one.
    fn put_node_address(&mut self, addr: &Addr, flags: u32) -> Result<(), MapError>;
    /// Removes one; one that is not there is no error.
    fn remove_node_address(&mut self, addr: &Addr) -> Result<(), MapError>;
    /// The whole filter.
    fn filter(&self) -> Result<Vec<u64>, MapError>;
    /// Writes words of the filter, by their places.
    fn put_filter(&mut self, words: &[(u32, u64)]) -> Result<(), MapError>;
    /// Writes the node's entry.
    fn put_node(&mut self, node: &NodeConfig) -> Result<(), MapError>;
}

/// A map operation that the kernel refused; worth another try.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} map {map}")]
pub struct MapError {
    /// Name of the map.
    pub map: &'static str,
    /// What was tried.
    pub operation: &'static str,
    /// The kernel's answer.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Several writes ended at one that was refused. The writes after it have not been tried.
#[derive(Debug, thiserror::Error)]
#[error("{written} elements were written before one was refused")]
pub struct Stopped {
    /// How many were written; the next one was refused.
    pub written: usize,
    /// Why.
    #[source]
    pub error: MapError,
}

pub(crate) fn one_by_one<T>(items: &[T], mut write: impl FnMut(&T) -> Result<(), MapError>) -> Result<(), Stopped> {
    for (written, item) in items.iter().enumerate() {
        write(item).map_err(|error| Stopped { written, error })?;
    }
    Ok(())
}
