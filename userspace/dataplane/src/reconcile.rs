//! From what the maps hold to what they shall hold, in an order that no lookup can catch half done.
//!
//! The order: backends, then slots, source ranges and filter, then the one write of a frontend that makes a change
//! visible, then what nobody uses any more, after a grace period for programs that still hold an old value. The first
//! state is read back from the maps and compared with the first delta, which holds everything, so a restart is a
//! comparison like any other and changes nothing that is right. After that only what a delta names is looked at, and
//! what failed before: it stays pending until it is done. What is known is updated after every write, so an error in the
//! middle leaves a state to continue from. How frontends are written is told in `plan.rs`.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use roadstead_abi::{Addr, Backend, EndpointSet, SlotRange, SvcKey, SvcValue, svc_flags};
use roadstead_model::IpFamily;

use crate::{
    addresses::Prefix,
    filter::{self, Bits, Filter},
    frontends::{Delta, EndpointAddress, Frontend, Port, ServicePortName},
    hash::{Map, Set},
    ids::Ids,
    maps::{MapError, Maps, Stopped},
    node::HeldNode,
    slots::Sets,
};

/// How long slots, source ranges and backends stay after the last frontend that named them has changed. A program runs for
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

/// Networks that may reach a frontend, sorted.
pub(crate) type RangeList = Arc<[Prefix]>;

/// The maps and what is known of them.
pub struct Reconciler<M> {
    pub(crate) maps: M,
    pub(crate) services: Map<SvcKey, SvcValue>,
    pub(crate) vips: Map<Addr, u32>,
    pub(crate) sets: Sets,
    /// Held by sets.
    pub(crate) backends: Ids<EndpointAddress>,
    /// Held by frontends, as the following and the sets.
    pub(crate) ports: Ids<ServicePortName>,
    pub(crate) ranges: Ids<RangeList>,
    /// The ports of an id as they were last desired, by family.
    pub(crate) serving: Map<(u32, IpFamily), Arc<Port>>,
    pub(crate) filter: Filter,
    pub(crate) node: HeldNode,
    /// What an earlier agent left and nobody has desired since.
    pub(crate) unclaimed: Unclaimed,
    pub(crate) pending: Pending,
    pub(crate) retired: VecDeque<Retired>,
    /// Since when nobody names a list of source ranges.
    pub(crate) unused_ranges: Map<u32, Instant>,
    /// Backends that no set has any more, to be zeroed.
    pub(crate) doomed: Vec<u32>,
    /// Counts writes of frontends.
    pub(crate) writes: u16,
    /// It has been told that tables find no room.
    pub(crate) lacks_room: bool,
}

/// What is to be done still.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) frontends: Map<SvcKey, Option<Frontend>>,
    pub(crate) vips: Map<Addr, Option<u8>>,
}

/// What nobody names since a moment.
pub(crate) struct Retired {
    since: Instant,
    what: Unused,
}

enum Unused {
    Slots(SlotRange),
    Ranges(u32),
}

/// Frontends with the ids of their ports, and how often each id is among them; addresses of Services.
#[derive(Default)]
pub(crate) struct Unclaimed {
    services: Map<SvcKey, u32>,
    ports: Map<u32, u32>,
    vips: Set<Addr>,
}

/// What a round has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// One call of [`Reconciler::apply`].
pub(crate) struct Round {
    pub(crate) now: Instant,
    pub(crate) changes: Changes,
    outcome: Result<(), ReconcileError>,
}

impl Round {
    fn new(now: Instant) -> Self {
        Self { now, changes: Changes::default(), outcome: Ok(()) }
    }

    /// The first failure is told.
    pub(crate) fn failed(&mut self, error: ReconcileError) {
        if self.outcome.is_ok() {
            self.outcome = Err(error);
        }
    }
}

impl<M: Maps> Reconciler<M> {
    /// Takes a delta, and brings the maps to it and to what is still pending. The first delta holds everything.
    ///
    /// # Errors
    /// The first operation that failed, after everything else has been tried: one Service that cannot be programmed, or
    /// a table that is full, keeps no other change from being made. Call again with the next delta or an empty one.
    pub fn apply(&mut self, delta: Delta, removal: Removal, now: Instant) -> Result<Changes, ReconcileError> {
        let mut round = Round::new(now);
        if let Err(error) = self.free_expired(now) {
            round.failed(error.into());
        }
        let (puts, gone) = self.take_frontends(delta.frontends, removal);
        self.put_frontends(&puts, &mut round);
        // After the frontends: where an address belongs to Services, what has no frontend is refused.
        let gone_vips = self.take_vips(delta.vips, &mut round);
        if removal == Removal::Withheld {
            self.pending.frontends.extend(gone.into_iter().map(|key| (key, None)));
            self.pending.vips.extend(gone_vips.into_iter().map(|addr| (addr, None)));
        } else {
            self.remove(gone, gone_vips, removal, &mut round);
        }
        round.outcome.map(|()| round.changes)
    }

    /// Splits what is to be done into frontends to put and keys to remove. What must wait stays pending.
    fn take_frontends(
        &mut self,
        mut work: Vec<(SvcKey, Option<Frontend>)>,
        removal: Removal,
    ) -> (Vec<(SvcKey, Frontend)>, Vec<SvcKey>) {
        if !self.pending.frontends.is_empty() {
            let mut pending = std::mem::take(&mut self.pending.frontends);
            work.iter().for_each(|(key, _)| _ = pending.remove(key));
            work.extend(pending);
        }
        let (mut puts, mut gone) = (Vec::with_capacity(work.len()), Vec::new());
        for (key, frontend) in work {
            // Its slices may be in the part that cannot be read.
            let is_empty = |frontend: &Frontend| frontend.port.flags & svc_flags::HAS_ENDPOINTS == 0;
            let is_unsure = removal == Removal::Known && self.unclaimed.services.contains_key(&key);
            match frontend {
                Some(frontend) if is_unsure && is_empty(&frontend) => {
                    self.pending.frontends.insert(key, Some(frontend));
                }
                Some(frontend) => puts.push((key, frontend)),
                None => gone.push(key),
            }
        }
        (puts, gone)
    }

    /// Writes addresses of Services; those that no more are any.
    fn take_vips(&mut self, mut work: Vec<(Addr, Option<u8>)>, round: &mut Round) -> Vec<Addr> {
        if !self.pending.vips.is_empty() {
            let mut pending = std::mem::take(&mut self.pending.vips);
            work.iter().for_each(|(addr, _)| _ = pending.remove(addr));
            work.extend(pending);
        }
        let gone = work.iter().filter(|(_, kind)| kind.is_none()).map(|(addr, _)| *addr).collect();
        let wanted: Vec<_> = work.into_iter().filter_map(|(addr, kind)| Some((addr, kind?))).collect();
        for (addr, _) in &wanted {
            self.unclaimed.vips.remove(addr);
            self.filter.add_frontend(addr);
        }
        let is_new = |(addr, kind): &(Addr, u8)| self.vips.get(addr) != Some(&u32::from(*kind));
        let puts: Vec<_> = wanted.into_iter().filter(is_new).map(|(addr, kind)| (addr, u32::from(kind))).collect();
        if let Err(error) = self.filter.write(&mut self.maps) {
            self.keep_vips(&puts);
            round.failed(error.into());
        } else {
            self.put_vips(&puts, round);
        }
        gone
    }

    fn put_vips(&mut self, puts: &[(Addr, u32)], round: &mut Round) {
        let mut rest = puts;
        while !rest.is_empty() {
            let result = self.maps.put_vips(rest);
            let written = result.as_ref().map_or_else(|stopped| stopped.written, |()| rest.len());
            let (done, left) = rest.split_at(written.min(rest.len()));
            self.vips.extend(done.iter().copied());
            let Err(Stopped { error, .. }) = result else { return };
            let (refused, left) = left.split_at(left.len().min(1));
            self.keep_vips(refused);
            round.failed(error.into());
            rest = left;
        }
    }

    fn keep_vips(&mut self, vips: &[(Addr, u32)]) {
        let kept = vips.iter().map(|(addr, kind)| (*addr, u8::try_from(*kind).ok()));
        self.pending.vips.extend(kept);
    }

    fn remove(&mut self, mut gone: Vec<SvcKey>, mut gone_vips: Vec<Addr>, removal: Removal, round: &mut Round) {
        if removal == Removal::Allowed {
            let unclaimed = std::mem::take(&mut self.unclaimed);
            gone.extend(unclaimed.services.into_keys().filter(|key| !self.pending.frontends.contains_key(key)));
            gone_vips.extend(unclaimed.vips.into_iter().filter(|addr| !self.pending.vips.contains_key(addr)));
        }
        for key in gone {
            if self.unclaimed.services.contains_key(&key) {
                self.pending.frontends.insert(key, None);
            } else if let Some(value) = self.services.get(&key).copied() {
                match self.maps.remove_service(&key) {
                    Ok(()) => {
                        self.services.remove(&key);
                        self.let_go(&value, round.now);
                        round.changes.frontends += 1;
                    }
                    Err(error) => {
                        self.pending.frontends.insert(key, None);
                        round.failed(error.into());
                    }
                }
            }
        }
        for addr in gone_vips {
            if self.unclaimed.vips.contains(&addr) {
                self.pending.vips.insert(addr, None);
            } else if self.vips.contains_key(&addr) {
                match self.maps.remove_vip(&addr) {
                    Ok(()) => drop(self.vips.remove(&addr)),
                    Err(error) => {
                        self.pending.vips.insert(addr, None);
                        round.failed(error.into());
                    }
                }
            }
        }
    }

    /// Whether something waits for the end of its grace period, or for another try.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty() || !self.doomed.is_empty()
    }

    /// Whether a flow of the Service port with this id may go on to the endpoint: it still answers, or nobody knows,
    /// because what an earlier agent left is not claimed yet.
    #[must_use]
    pub fn may_go_on(&self, port: u32, endpoint: &EndpointAddress) -> bool {
        if self.ports.name(port).is_none() {
            return self.unclaimed.ports.contains_key(&port);
        }
        let family = if endpoint.0.is_v4() { IpFamily::V4 } else { IpFamily::V6 };
        let port = self.serving.get(&(port, family));
        port.is_some_and(|port| port.sets.serving.binary_search(endpoint).is_ok())
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
        [("frontends", self.services.len()), ("backends", self.backends.len()), ("slots", self.sets.slots())]
    }

    /// Clears the bits of the filter that nobody needs any more: for nothing that the maps hold, and for none of the
    /// addresses that flows came by and the backends that they lead to. To be called with all flows, now and then.
    ///
    /// # Errors
    /// When the map cannot be written; the rest is done the next time.
    pub fn rebuild_filter(
        &mut self,
        addresses: impl IntoIterator<Item = Addr>,
        backends: impl IntoIterator<Item = EndpointAddress>,
    ) -> Result<(), MapError> {
        let mut wanted = Bits::default();
        let of_frontends = self.services.keys().map(|key| key.addr).chain(self.vips.keys().copied());
        of_frontends.chain(addresses).for_each(|addr| _ = wanted.set(filter::frontend(&addr)));
        let of_sets = self.backends.names().copied();
        of_sets.chain(backends).for_each(|endpoint| _ = wanted.set(filter::backend(&endpoint)));
        self.node.addresses.keys().for_each(|addr| _ = wanted.set(filter::node(addr)));
        self.filter.rebuild(wanted);
        self.filter.write(&mut self.maps)
    }

    /// A frontend with this value is there.
    pub(crate) fn hold(&mut self, value: &SvcValue) {
        ranges_of(value).for_each(|range| self.sets.hold(range));
        self.ports.hold(value.service);
        if value.ranges != 0 {
            self.ranges.hold(value.ranges);
            self.unused_ranges.remove(&value.ranges);
        }
    }

    /// It is not there any more.
    pub(crate) fn let_go(&mut self, value: &SvcValue, now: Instant) {
        for range in ranges_of(value) {
            if self.sets.let_go(range, now) {
                self.retired.push_back(Retired { since: now, what: Unused::Slots(range) });
            }
        }
        if self.ports.let_go(value.service) {
            self.release_port(value.service);
        }
        if value.ranges != 0 && self.ranges.let_go(value.ranges) {
            self.retire_ranges(value.ranges, now);
        }
    }

    /// The number of a Service port is free.
    pub(crate) fn release_port(&mut self, id: u32) {
        self.ports.release(id);
        for family in [IpFamily::V4, IpFamily::V6] {
            self.serving.remove(&(id, family));
        }
    }

    /// Nobody names the list of source ranges since now.
    pub(crate) fn retire_ranges(&mut self, id: u32, now: Instant) {
        self.unused_ranges.insert(id, now);
        self.retired.push_back(Retired { since: now, what: Unused::Ranges(id) });
    }

    /// Frees what nobody has named for the grace period.
    fn free_expired(&mut self, now: Instant) -> Result<(), MapError> {
        while let Some(next) = self.retired.front() {
            let since = next.since;
            if now.saturating_duration_since(since) < GRACE {
                break;
            }
            match next.what {
                Unused::Slots(range) if self.sets.is_unused_since(range, since) => self.drop_set(range),
                Unused::Ranges(id) if self.unused_ranges.get(&id) == Some(&since) => self.free_ranges(id)?,
                _ => {}
            }
            self.retired.pop_front();
        }
        self.free_doomed()
    }

    /// Forgets a set and lets its backends go.
    pub(crate) fn drop_set(&mut self, range: SlotRange) {
        let Some(ids) = self.sets.remove(range) else { return };
        let unused = distinct(&ids).into_iter().filter(|id| self.backends.let_go(*id));
        self.doomed.extend(unused);
    }

    fn free_ranges(&mut self, id: u32) -> Result<(), MapError> {
        // One without a name was found twice in the maps; its number is never given out again.
        let Some(list) = self.ranges.name(id).cloned() else { return Ok(()) };
        list.iter().try_for_each(|range| self.maps.remove_range(id, range))?;
        self.ranges.release(id);
        self.unused_ranges.remove(&id);
        Ok(())
    }

    fn free_doomed(&mut self) -> Result<(), MapError> {
        let doomed = std::mem::take(&mut self.doomed);
        let doomed: Vec<_> = doomed.into_iter().filter(|id| !self.backends.is_held(*id)).collect();
        let zeroes: Vec<_> = doomed.iter().map(|id| (*id, Backend::default())).collect();
        let result = self.maps.put_backends(&zeroes);
        let done = result.as_ref().map_or_else(|stopped| stopped.written, |()| doomed.len());
        doomed.iter().take(done).for_each(|id| self.backends.release(*id));
        self.doomed.extend(doomed.into_iter().skip(done));
        result.map_err(|stopped| stopped.error)
    }
}

/// The sets that a frontend names.
pub(crate) fn ranges_of(value: &SvcValue) -> impl Iterator<Item = SlotRange> {
    let of = |set: EndpointSet| [set.members, set.table];
    [of(value.cluster), of(value.local)].into_iter().flatten().filter(|range| range.count > 0)
}

/// The backends of a set, each once: a table has them many times.
pub(crate) fn distinct(ids: &[u32]) -> Vec<u32> {
    let mut distinct = ids.to_vec();
    if !ids.is_sorted() {
        distinct.sort_unstable();
    }
    distinct.dedup();
    distinct
}

impl Unclaimed {
    pub(crate) fn of(services: &Map<SvcKey, SvcValue>, vips: &Map<Addr, u32>) -> Self {
        let mut unclaimed = Self { vips: vips.keys().copied().collect(), ..Self::default() };
        for (key, value) in services {
            unclaimed.services.insert(*key, value.service);
            *unclaimed.ports.entry(value.service).or_default() += 1;
        }
        unclaimed
    }

    /// A frontend is this agent's now.
    pub(crate) fn remove(&mut self, key: &SvcKey) {
        if self.services.is_empty() {
            return;
        }
        let Some(port) = self.services.remove(key) else { return };
        if let Some(count) = self.ports.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.ports.remove(&port);
            }
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
