//! From what the maps hold to what they shall hold, in an order that no lookup can catch half done.
//!
//! The order: backends, then slots, then the one write of a frontend that makes a change visible, then what nobody uses
//! any more, after a grace period for programs that still hold an old value. The first state is read back from the
//! maps, so a restart is a comparison like any other and changes nothing that is right. What is known is updated after
//! every single write, so an error in the middle leaves a state to continue from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use roadstead_abi::{Addr, Backend, NodeConfig, SlotRange, SvcKey, SvcValue, limits};

use crate::{
    frontends::{EndpointAddress, Frontend, Frontends, ServicePortName},
    ids::Ids,
    maps::{MapError, Maps},
    slots::FreeSlots,
};

/// How long slots and backends stay after the last frontend that named them has changed. A program runs for
/// microseconds; this only has to be longer.
pub const GRACE: Duration = Duration::from_secs(1);

/// Whether frontends that nobody desires may go: not before every source has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Everything undesired goes.
    Allowed,
    /// What an earlier agent left and this one was never asked for stays, and so do the endpoints of a frontend that has
    /// had none since: a part of the configuration cannot be read, and may be what asks for them.
    Known,
    /// Nothing goes.
    Withheld,
}

/// The maps and what is known of them.
pub struct Reconciler<M> {
    maps: M,
    services: BTreeMap<SvcKey, SvcValue>,
    sets: HashMap<SlotRange, Vec<u32>>,
    /// The same the other way round: frontends with equal endpoints share their slots.
    ranges: HashMap<Vec<u32>, SlotRange>,
    free_slots: FreeSlots,
    backends: Ids<EndpointAddress>,
    ports: Ids<ServicePortName>,
    vips: BTreeMap<Addr, u32>,
    /// What an earlier agent left and nobody has desired since.
    unclaimed: Unclaimed,
    node_port_ips: BTreeSet<Addr>,
    retired_slots: BTreeMap<SlotRange, Instant>,
    retired_backends: BTreeMap<EndpointAddress, Instant>,
}

#[derive(Default)]
struct Unclaimed {
    services: BTreeSet<SvcKey>,
    vips: BTreeSet<Addr>,
}

/// What a round has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Frontends written or removed.
    pub frontends: usize,
}

/// Why a round stopped. All of it is worth another try.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A map operation failed.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A table is full.
    #[error("no free {0} left")]
    Full(&'static str),
}

impl<M: Maps> Reconciler<M> {
    /// Reads back what an earlier agent has programmed.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn recover(maps: M) -> Result<Self, MapError> {
        let services: BTreeMap<SvcKey, SvcValue> = maps.services()?.into_iter().collect();
        let vips: BTreeMap<Addr, u32> = maps.vips()?.into_iter().collect();
        let mut reconciler = Self {
            unclaimed: Unclaimed { services: services.keys().copied().collect(), vips: vips.keys().copied().collect() },
            services,
            vips,
            node_port_ips: maps.node_port_ips()?.into_iter().collect(),
            maps,
            sets: HashMap::new(),
            ranges: HashMap::new(),
            free_slots: FreeSlots::new(limits::SLOTS),
            backends: Ids::default(),
            ports: Ids::default(),
            retired_slots: BTreeMap::new(),
            retired_backends: BTreeMap::new(),
        };
        // Whose they were shows when the frontend is desired again.
        for value in reconciler.services.values() {
            reconciler.ports.reserve(value.service);
        }
        reconciler.recover_sets()?;
        Ok(reconciler)
    }

    fn recover_sets(&mut self) -> Result<(), MapError> {
        let ranges: BTreeSet<SlotRange> = self
            .services
            .values()
            .flat_map(|value| [value.cluster.members, value.local.members])
            .filter(|r| r.count > 0)
            .collect();
        for range in ranges {
            // Ranges that overlap were written by a broken agent; their frontends are written anew.
            if !self.free_slots.claim(range) {
                continue;
            }
            let ids = self.maps.slots(range)?;
            for &id in &ids {
                let backend = self.maps.backend(id)?;
                if backend.port.0 != 0 {
                    self.backends.claim((backend.addr, backend.port), id);
                }
            }
            self.ranges.insert(ids.clone(), range);
            self.sets.insert(range, ids);
        }
        Ok(())
    }

    /// Brings the maps to the desired state.
    ///
    /// # Errors
    /// The first operation that failed, after everything else has been tried: one Service that cannot be programmed, or
    /// a table that is full, keeps no other change from being made. Call again with the same or a newer state.
    pub fn apply(&mut self, desired: &Frontends, removal: Removal, now: Instant) -> Result<Changes, ReconcileError> {
        let mut changes = Changes::default();
        let mut outcome = self.retire_expired(now).map_err(ReconcileError::from);
        for (key, frontend) in &desired.by_key {
            // Its slices may be in the part that cannot be read.
            let is_unsure = frontend.cluster.is_empty() && self.unclaimed.services.contains(key);
            if removal == Removal::Known && is_unsure {
                continue;
            }
            match self.put_frontend(key, frontend) {
                Ok(written) => {
                    changes.frontends += usize::from(written);
                    self.unclaimed.services.remove(key);
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        // After the frontends: where an address belongs to Services, what has no frontend is refused.
        for (addr, kind) in &desired.vips {
            outcome = outcome.and(self.put_vip(addr, u32::from(*kind)).map_err(ReconcileError::from));
        }
        self.unclaimed.vips.retain(|addr| !desired.vips.contains_key(addr));
        if removal == Removal::Allowed {
            self.unclaimed = Unclaimed::default();
        }
        if removal != Removal::Withheld {
            let removed = self.remove_undesired(desired).map_err(ReconcileError::from);
            changes.frontends += removed.as_ref().copied().unwrap_or(0);
            outcome = outcome.and(removed.map(drop));
        }
        self.retire_unused(now);
        outcome.map(|()| changes)
    }

    /// Whether something waits for the end of its grace period.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        !self.retired_slots.is_empty() || !self.retired_backends.is_empty()
    }

    /// Whether a flow of the Service port with this id may go on to the endpoint: it still answers, or nobody knows,
    /// because what an earlier agent left is not claimed yet.
    #[must_use]
    pub fn may_go_on(&self, desired: &Frontends, port: u32, endpoint: &EndpointAddress) -> bool {
        match self.ports.name(port) {
            Some(name) => desired.serving.get(name).is_some_and(|serving| serving.contains(endpoint)),
            None => {
                let of_port = |key| self.services.get(key).is_some_and(|value| value.service == port);
                self.unclaimed.services.iter().any(of_port)
            }
        }
    }

    /// Writes the node's own entry and the addresses that serve node ports.
    ///
    /// # Errors
    /// As [`Reconciler::apply`].
    pub fn apply_node(&mut self, node: &NodeConfig, serving: &BTreeSet<Addr>) -> Result<(), ReconcileError> {
        self.maps.put_node(node)?;
        for addr in serving.difference(&self.node_port_ips.clone()) {
            self.maps.put_node_port_ip(addr)?;
            self.node_port_ips.insert(*addr);
        }
        for addr in self.node_port_ips.clone().difference(serving) {
            self.maps.remove_node_port_ip(addr)?;
            self.node_port_ips.remove(addr);
        }
        Ok(())
    }

    /// The Service port of an id, for the labels of counters.
    #[must_use]
    pub fn port_name(&self, id: u32) -> Option<&ServicePortName> {
        self.ports.name(id)
    }

    /// The backend of an id, for the labels of counters.
    #[must_use]
    pub fn backend_name(&self, id: u32) -> Option<&EndpointAddress> {
        self.backends.name(id)
    }

    /// The numbers from which on no Service port and no backend has its id.
    #[must_use]
    pub fn ids_end(&self) -> (u32, u32) {
        (self.ports.end(), self.backends.end())
    }

    /// Frontends, backends and slots in use.
    #[must_use]
    pub fn fill(&self) -> [(&'static str, usize); 3] {
        let slots = self.sets.values().map(Vec::len).sum();
        [("frontends", self.services.len()), ("backends", self.backends.len()), ("slots", slots)]
    }

    fn put_vip(&mut self, addr: &Addr, kind: u32) -> Result<(), MapError> {
        if self.vips.get(addr) != Some(&kind) {
            self.maps.put_vip(addr, kind)?;
            self.vips.insert(*addr, kind);
        }
        Ok(())
    }

    /// Whether the frontend had to be written.
    fn put_frontend(&mut self, key: &SvcKey, frontend: &Frontend) -> Result<bool, ReconcileError> {
        let cluster = self.backend_ids(&frontend.cluster)?;
        let local = self.backend_ids(&frontend.local)?;
        let value = SvcValue {
            check: u32::from(key.check()),
            service: self.port_id(key, &frontend.port)?,
            flags: frontend.flags,
            kind: frontend.kind,
            reserved: 0,
            affinity: 0,
            ranges: 0,
            cluster: roadstead_abi::EndpointSet {
                members: self.slot_range(key, &cluster)?,
                table: SlotRange::default(),
            },
            local: roadstead_abi::EndpointSet { members: self.slot_range(key, &local)?, table: SlotRange::default() },
        };
        if self.services.get(key) == Some(&value) {
            return Ok(false);
        }
        self.maps.put_service(key, &value)?;
        self.services.insert(*key, value);
        Ok(true)
    }

    /// The id of a Service port: kept over a restart by what the maps hold for its frontend.
    fn port_id(&mut self, key: &SvcKey, port: &ServicePortName) -> Result<u32, ReconcileError> {
        if let Some(id) = self.ports.id(port) {
            return Ok(id);
        }
        if let Some(value) = self.services.get(key)
            && self.ports.claim(port.clone(), value.service)
        {
            return Ok(value.service);
        }
        self.ports.assign(port.clone(), u32::MAX).ok_or(ReconcileError::Full("service id"))
    }

    fn backend_ids(&mut self, endpoints: &[EndpointAddress]) -> Result<Vec<u32>, ReconcileError> {
        endpoints.iter().map(|endpoint| self.backend_id(endpoint)).collect()
    }

    fn backend_id(&mut self, endpoint: &EndpointAddress) -> Result<u32, ReconcileError> {
        if let Some(id) = self.backends.id(endpoint) {
            self.retired_backends.remove(endpoint);
            return Ok(id);
        }
        let id = self.backends.assign(*endpoint, limits::BACKENDS).ok_or(ReconcileError::Full("backend"))?;
        let backend = Backend { addr: endpoint.0, port: endpoint.1, reserved: 0 };
        if let Err(error) = self.maps.put_backend(id, &backend) {
            self.backends.release(endpoint);
            return Err(error.into());
        }
        Ok(id)
    }

    /// A range that holds these ids: the frontend's own, one that another frontend has, or a new one.
    fn slot_range(&mut self, key: &SvcKey, ids: &[u32]) -> Result<SlotRange, ReconcileError> {
        if ids.is_empty() {
            return Ok(SlotRange::default());
        }
        let own = self.services.get(key).into_iter().flat_map(|value| [value.cluster.members, value.local.members]);
        if let Some(range) = own.into_iter().find(|range| self.sets.get(range).is_some_and(|held| held == ids)) {
            return Ok(range);
        }
        if let Some(range) = self.ranges.get(ids).copied() {
            self.retired_slots.remove(&range);
            return Ok(range);
        }
        let count = u32::try_from(ids.len()).map_err(|_| ReconcileError::Full("slot"))?;
        let range = self.free_slots.take(count).ok_or(ReconcileError::Full("slot"))?;
        if let Err(error) = self.maps.put_slots(range.base, ids) {
            self.free_slots.give_back(range);
            return Err(error.into());
        }
        self.ranges.insert(ids.to_vec(), range);
        self.sets.insert(range, ids.to_vec());
        Ok(range)
    }

    fn remove_undesired(&mut self, desired: &Frontends) -> Result<usize, MapError> {
        let (services, vips) = (&self.unclaimed.services, &self.unclaimed.vips);
        let is_stale = |key: &&SvcKey| !desired.by_key.contains_key(key) && !services.contains(key);
        let is_stale_vip = |addr: &&Addr| !desired.vips.contains_key(addr) && !vips.contains(addr);
        let stale: Vec<_> = self.services.keys().filter(is_stale).copied().collect();
        let stale_vips: Vec<_> = self.vips.keys().filter(is_stale_vip).copied().collect();
        for key in &stale {
            self.maps.remove_service(key)?;
            self.services.remove(key);
        }
        for addr in &stale_vips {
            self.maps.remove_vip(addr)?;
            self.vips.remove(addr);
        }
        let names: BTreeSet<_> = desired.by_key.values().map(|frontend| &frontend.port).collect();
        self.ports.retain(|port| names.contains(port));
        Ok(stale.len())
    }

    /// Marks ranges and backends that no frontend names, to be freed after the grace period.
    fn retire_unused(&mut self, now: Instant) {
        let used: BTreeSet<SlotRange> =
            self.services.values().flat_map(|value| [value.cluster.members, value.local.members]).collect();
        for range in self.sets.keys().filter(|range| !used.contains(range)) {
            self.retired_slots.entry(*range).or_insert(now);
        }
        let named = self.named_backends();
        for endpoint in self.backends.names().filter(|endpoint| !named.contains(endpoint)) {
            self.retired_backends.entry(*endpoint).or_insert(now);
        }
    }

    fn retire_expired(&mut self, now: Instant) -> Result<(), MapError> {
        let is_due = |since: &Instant| now.saturating_duration_since(*since) >= GRACE;
        for (range, _) in self.retired_slots.extract_if(.., |_, since| is_due(since)) {
            // Two equal sets may have been recovered; the index holds one of them.
            if let Some(ids) = self.sets.remove(&range)
                && self.ranges.get(&ids) == Some(&range)
            {
                self.ranges.remove(&ids);
            }
            self.free_slots.give_back(range);
        }
        let due: Vec<_> =
            self.retired_backends.iter().filter(|(_, since)| is_due(since)).map(|(endpoint, _)| *endpoint).collect();
        for endpoint in due {
            if let Some(id) = self.backends.id(&endpoint) {
                self.maps.put_backend(id, &Backend::default())?;
                self.backends.release(&endpoint);
            }
            self.retired_backends.remove(&endpoint);
        }
        Ok(())
    }

    /// Endpoints that some frontend names now.
    fn named_backends(&self) -> BTreeSet<EndpointAddress> {
        let used: BTreeSet<SlotRange> =
            self.services.values().flat_map(|value| [value.cluster.members, value.local.members]).collect();
        let ids = used.iter().filter_map(|range| self.sets.get(range)).flatten();
        ids.filter_map(|id| self.backends.name(*id)).copied().collect()
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
