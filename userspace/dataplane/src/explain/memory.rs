//! Maps in memory: for what no agent has programmed yet, and for tests.

use std::collections::{BTreeMap, HashMap};

use roadstead_abi::{
    Addr, Affinity, AffinityKey, Backend, Be16, CtEntry, CtKey, EndpointSet, NodeConfig, SlotRange, SvcKey, SvcValue,
    check::{filter_bit, salt},
    scope,
};

use roadstead_datapath::select;

use super::{View, ViewError};
use crate::{addresses::Prefix, frontends::EndpointAddress, maglev, node::NodeState};

/// The maps' contents. Whoever fills it sets the filter's bits by [`MemoryView::fill_filter`] at the end.
#[derive(Clone, Debug, Default)]
pub struct MemoryView {
    /// The node's own values.
    pub node: Option<NodeConfig>,
    /// Frontends.
    pub services: BTreeMap<SvcKey, SvcValue>,
    /// Backend ids, from slot 0 on.
    pub slots: Vec<u32>,
    /// Backends by id.
    pub backends: Vec<Backend>,
    /// Addresses that belong to Services alone, with their kind.
    pub vips: BTreeMap<Addr, u32>,
    /// Addresses of this node, with bits of `node_address`.
    pub node_addresses: BTreeMap<Addr, u32>,
    /// Networks: address, prefix length out of 128, bits of `network`.
    pub networks: Vec<(Addr, u32, u32)>,
    /// Source ranges: id, address, prefix length out of 128.
    pub ranges: Vec<(u32, Addr, u32)>,
    /// Flows.
    pub flows: BTreeMap<CtKey, CtEntry>,
    /// Session affinity.
    pub affinities: BTreeMap<AffinityKey, Affinity>,
    /// Words of the filter, by index.
    pub filter: BTreeMap<u32, u64>,
    /// The programs' clock.
    pub now: u32,
    ids: HashMap<EndpointAddress, u32>,
}

/// A frontend as it is compiled, before it has slots.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its key.
    pub key: SvcKey,
    /// Id of the Service's port.
    pub service: u32,
    /// One of `kind`.
    pub kind: u8,
    /// Bits of `svc_flags`.
    pub flags: u16,
    /// How long a client keeps its endpoint, in units of the programs' clock; 0 is none.
    pub affinity: u32,
    /// Endpoints under policy Cluster.
    pub cluster: &'a [EndpointAddress],
    /// Endpoints under policy Local.
    pub local: &'a [EndpointAddress],
    /// Networks that may reach it; `None` lets everybody in.
    pub ranges: Option<&'a [Prefix]>,
    /// Its endpoints are chosen by Maglev tables.
    pub maglev: bool,
}

impl MemoryView {
    /// Appends slots and tells where they are.
    #[must_use = "the slots serve nobody until a frontend names them"]
    pub fn add_slots(&mut self, ids: &[u32]) -> SlotRange {
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let range = SlotRange { base: number(self.slots.len()), count: number(ids.len()) };
        self.slots.extend(ids);
        range
    }

    /// The id of a backend, a new one where it has none; ids begin at 1.
    pub fn backend_id(&mut self, addr: Addr, port: Be16) -> u32 {
        if self.backends.is_empty() {
            self.backends.push(Backend::default());
        }
        let next = u32::try_from(self.backends.len()).unwrap_or(u32::MAX);
        let id = *self.ids.entry((addr, port)).or_insert(next);
        if id == next {
            self.backends.push(Backend { addr, port, reserved: 0 });
        }
        id
    }

    /// Adds a frontend.
    pub fn add_frontend(&mut self, row: &Row<'_>) {
        let (cluster, local) = (self.add_set(row.cluster, row.maglev), self.add_set(row.local, row.maglev));
        let value = SvcValue {
            check: row.key.check().into(),
            service: row.service,
            flags: row.flags,
            kind: row.kind,
            reserved: 0,
            affinity: row.affinity,
            ranges: row.ranges.map_or(0, |ranges| self.add_ranges(ranges)),
            cluster,
            local,
        };
        self.services.insert(row.key, value);
    }

    /// Takes what the maps shall hold about the node.
    pub fn set_node(&mut self, state: &NodeState) {
        self.node = Some(state.config);
        self.node_addresses.clone_from(&state.addresses);
        self.networks = state.networks.iter().map(|(prefix, flags)| (prefix.addr, prefix.bits, *flags)).collect();
    }

    fn add_set(&mut self, endpoints: &[EndpointAddress], with_table: bool) -> EndpointSet {
        let ids: Vec<u32> = endpoints.iter().map(|(addr, port)| self.backend_id(*addr, *port)).collect();
        let mut table = SlotRange::default();
        if with_table && !ids.is_empty() {
            let slots = maglev::table(endpoints).into_iter().filter_map(|index| ids.get(index as usize).copied());
            table = self.add_slots(&slots.collect::<Vec<_>>());
        }
        let mut members = ids;
        members.sort_unstable();
        EndpointSet { members: self.add_slots(&members), table }
    }

    fn add_ranges(&mut self, ranges: &[Prefix]) -> u32 {
        let id = self.ranges.last().map_or(1, |(last, ..)| last + 1);
        // The id alone, where the list is empty, lets nobody in.
        self.ranges.extend(ranges.iter().map(|range| (id, range.addr, range.bits)));
        id
    }

    /// Sets the bits of everything that is worth a lookup.
    pub fn fill_filter(&mut self) {
        let addresses = self.services.keys().filter(|key| key.scope == scope::ADDRESS).map(|key| key.addr);
        let addresses = addresses.chain(self.vips.keys().copied()).chain(self.flows.keys().map(|key| key.dst));
        let frontends = addresses.map(|addr| filter_bit(salt::FRONTEND, &addr, Be16(0)));
        let nodes = self.node_addresses.keys().map(|addr| filter_bit(salt::NODE, addr, Be16(0)));
        let backends = self.backends.iter().map(|backend| filter_bit(salt::BACKEND, &backend.addr, backend.port));
        let flows = self.flows.values().map(|entry| filter_bit(salt::BACKEND, &entry.dst, entry.dport));
        let bits: Vec<u32> = frontends.chain(nodes).chain(backends).chain(flows).collect();
        for bit in bits {
            *self.filter.entry(bit >> 6).or_default() |= 1 << (bit & 63);
        }
    }
}

/// Whether the first bits of two addresses are the same.
fn shares(one: &Addr, other: &Addr, bits: u32) -> bool {
    let (one, other) = (u128::from_be_bytes(one.octets()), u128::from_be_bytes(other.octets()));
    bits == 0 || (one ^ other).leading_zeros() >= bits
}

fn at<T: Copy>(array: &[T], index: u32) -> Option<T> {
    array.get(usize::try_from(index).ok()?).copied()
}

impl View for MemoryView {
    fn node(&self) -> Result<Option<NodeConfig>, ViewError> {
        Ok(self.node)
    }

    fn service(&self, key: &SvcKey) -> Result<Option<SvcValue>, ViewError> {
        Ok(self.services.get(key).copied())
    }

    fn slot(&self, index: u32) -> Result<Option<u32>, ViewError> {
        Ok(at(&self.slots, index))
    }

    fn backend(&self, id: u32) -> Result<Option<Backend>, ViewError> {
        Ok(at(&self.backends, id))
    }

    fn vip(&self, addr: &Addr) -> Result<Option<u32>, ViewError> {
        Ok(self.vips.get(addr).copied())
    }

    fn node_address(&self, addr: &Addr) -> Result<Option<u32>, ViewError> {
        Ok(self.node_addresses.get(addr).copied())
    }

    fn network(&self, addr: &Addr) -> Result<Option<u32>, ViewError> {
        let holding = self.networks.iter().filter(|(network, bits, _)| shares(network, addr, *bits));
        Ok(holding.max_by_key(|(_, bits, _)| *bits).map(|(_, _, flags)| *flags))
    }

    fn range(&self, id: u32, addr: &Addr) -> Result<bool, ViewError> {
        Ok(self.ranges.iter().any(|(of, range, bits)| *of == id && shares(range, addr, *bits)))
    }

    fn flow(&self, key: &CtKey) -> Result<Option<CtEntry>, ViewError> {
        Ok(self.flows.get(key).copied())
    }

    fn affinity(&self, key: &AffinityKey) -> Result<Option<Affinity>, ViewError> {
        Ok(self.affinities.get(key).copied())
    }

    fn client(&self, mark: u32) -> Result<bool, ViewError> {
        Ok(self.flows.keys().any(|key| select::client_mark(&key.dst, key.dport) == mark))
    }

    fn filter(&self, bit: u32) -> Result<bool, ViewError> {
        Ok(self.filter.get(&(bit >> 6)).is_some_and(|word| word >> (bit & 63) & 1 != 0))
    }

    fn now(&self) -> u32 {
        self.now
    }
}
