//! Reading the programs' counters.

use roadstead_abi::{DropReason, map_names};

use crate::maps::{FlowMaps, MapError};

/// One counter of packets or connections that were not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCount {
    /// Why.
    pub reason: DropReason,
    /// Id of the Service's port, 0 where none is known.
    pub service: u32,
    /// Sum over all CPUs since the maps were made.
    pub count: u64,
}

/// All drop counters.
///
/// # Errors
/// When the map cannot be read.
pub fn drops(flows: &FlowMaps) -> Result<Vec<DropCount>, MapError> {
    let failed = |source| MapError { map: map_names::DROPS, operation: "read", source: Box::new(source) };
    let mut counts = Vec::new();
    for element in flows.drops.iter() {
        let (key, per_cpu) = element.map_err(failed)?;
        // A reason of a later version is not ours to name.
        let Some(reason) = DropReason::ALL.into_iter().find(|reason| *reason as u32 == key.reason) else { continue };
        counts.push(DropCount { reason, service: key.service, count: per_cpu.iter().sum() });
    }
    Ok(counts)
}
