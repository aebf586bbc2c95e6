//! Writing frontends: what they need first, then each by one write that makes it visible.
//!
//! Many frontends are planned and written together, in a few batches. If something that they need cannot be written, what
//! was planned is taken back, and each is tried by itself: one failure keeps only its own frontend back.

use std::sync::Arc;

use roadstead_abi::{Backend, EndpointSet, SlotRange, SvcKey, SvcValue, kind, scope};
use roadstead_model::Selection;
use tracing::warn;

use crate::{
    frontends::{EndpointAddress, Frontend, Port},
    maglev,
    maps::{MapError, Maps, Stopped},
    reconcile::{RangeList, ReconcileError, Reconciler, Round, distinct},
};

/// A frontend to be written.
type Put = (SvcKey, Frontend);

/// What is to be written, and where it came from.
#[derive(Default)]
struct Plan {
    backends: Vec<(u32, Backend)>,
    sets: Vec<(SlotRange, Arc<[u32]>)>,
    ranges: Vec<(u32, RangeList)>,
    /// Ids of Service ports that had none.
    ports: Vec<u32>,
    values: Vec<(SvcKey, SvcValue)>,
    /// The places of the values among the frontends.
    places: Vec<usize>,
    /// Frontends that cannot be planned.
    failed: Vec<(usize, ReconcileError)>,
    /// The port that was planned last: its frontends follow each other.
    last: Option<Last>,
}

struct Last {
    port: Arc<Port>,
    is_tombstone: bool,
    id: u32,
    cluster: EndpointSet,
    local: EndpointSet,
}

impl<M: Maps> Reconciler<M> {
    /// Writes frontends that are not as they shall be. What fails is pending afterwards.
    pub(crate) fn put_frontends(&mut self, puts: &[Put], round: &mut Round) {
        match (self.try_put(puts, round), puts) {
            (Ok(()), _) => {}
            (Err(error), [(key, frontend)]) => {
                self.pending.frontends.insert(*key, Some(frontend.clone()));
                round.failed(error.into());
            }
            (Err(_), _) => puts.chunks(1).for_each(|single| self.put_frontends(single, round)),
        }
    }

    /// Fails if what the frontends need cannot be written; nothing has changed for any program then.
    fn try_put(&mut self, puts: &[Put], round: &mut Round) -> Result<(), MapError> {
        let mut plan = Plan::default();
        if self.services.is_empty() {
            // A first sync: what grows step by step is copied again and again.
            self.services.reserve(puts.len());
            self.sets.reserve(puts.len() / 2);
            self.backends.reserve_room(puts.len());
            plan.values.reserve(puts.len());
        }
        for (place, (key, frontend)) in puts.iter().enumerate() {
            match self.plan(&mut plan, key, frontend) {
                Ok(Some(value)) => {
                    plan.values.push((*key, value));
                    plan.places.push(place);
                }
                Ok(None) => {}
                Err(error) => plan.failed.push((place, error)),
            }
        }
        let result = self.write_needed(&plan);
        if result.is_ok() {
            self.write_values(&mut plan, puts, round);
        }
        self.take_back(&plan, round);
        result?;
        // What was right already or is now is this agent's; the rest waits.
        for (place, error) in plan.failed {
            if let Some((key, frontend)) = puts.get(place) {
                self.pending.frontends.insert(*key, Some(frontend.clone()));
            }
            round.failed(error);
        }
        for (key, _) in puts {
            if !self.pending.frontends.contains_key(key) {
                self.unclaimed.remove(key);
            }
        }
        Ok(())
    }

    /// The value that a frontend shall have, if it has another one.
    fn plan(&mut self, plan: &mut Plan, key: &SvcKey, frontend: &Frontend) -> Result<Option<SvcValue>, ReconcileError> {
        let (service, cluster, local) = self.plan_port(plan, key, frontend)?;
        let port = &frontend.port;
        let value = SvcValue {
            check: u32::from(key.check()),
            service,
            flags: port.flags,
            kind: frontend.kind,
            reserved: 0,
            affinity: port.affinity,
            ranges: frontend.ranges().map_or(Ok(0), |ranges| self.plan_ranges(plan, ranges))?,
            cluster,
            local,
        };
        let held = self.services.get(key).copied();
        if held.is_some_and(|held| SvcValue { check: held.check & 0xffff, ..held } == value) {
            return Ok(None);
        }
        if key.scope == scope::ADDRESS {
            self.filter.add_frontend(&key.addr);
        }
        let number = self.write_number(held);
        Ok(Some(SvcValue { check: value.check | u32::from(number) << 16, ..value }))
    }

    /// The number of a write, other than that of the value it replaces.
    fn write_number(&mut self, held: Option<SvcValue>) -> u16 {
        self.writes = self.writes.wrapping_add(1);
        if held.is_some_and(|held| held.check >> 16 == u32::from(self.writes)) {
            self.writes = self.writes.wrapping_add(1);
        }
        self.writes
    }

    /// The id and the sets of a frontend's port.
    fn plan_port(
        &mut self,
        plan: &mut Plan,
        key: &SvcKey,
        frontend: &Frontend,
    ) -> Result<(u32, EndpointSet, EndpointSet), ReconcileError> {
        let (port, is_tombstone) = (&frontend.port, frontend.kind == kind::TOMBSTONE);
        if let Some(last) = &plan.last
            && Arc::ptr_eq(&last.port, port)
            && last.is_tombstone == is_tombstone
        {
            return Ok((last.id, last.cluster, last.local));
        }
        let cluster = self.plan_set(plan, frontend.cluster(), port.selection)?;
        let local = self.plan_set(plan, frontend.local(), port.selection)?;
        let id = self.port_id(plan, key, port)?;
        plan.last = Some(Last { port: Arc::clone(port), is_tombstone, id, cluster, local });
        Ok((id, cluster, local))
    }

    fn plan_set(
        &mut self,
        plan: &mut Plan,
        endpoints: &[EndpointAddress],
        selection: Selection,
    ) -> Result<EndpointSet, ReconcileError> {
        if endpoints.is_empty() {
            return Ok(EndpointSet::default());
        }
        let ids: Vec<u32> =
            endpoints.iter().map(|endpoint| self.backend_id(plan, endpoint)).collect::<Result<_, _>>()?;
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        let members = self.slots(plan, &sorted)?;
        if selection == Selection::Random || ids.len() < 2 {
            return Ok(EndpointSet { members, table: SlotRange::default() });
        }
        let table: Vec<u32> =
            maglev::table(endpoints).into_iter().filter_map(|index| ids.get(index as usize).copied()).collect();
        Ok(EndpointSet { members, table: self.table(plan, &table)? })
    }

    /// The slots of a table; none where there is no room, because at random is better than not at all.
    fn table(&mut self, plan: &mut Plan, table: &[u32]) -> Result<SlotRange, ReconcileError> {
        if self.sets.find(table).is_some() || self.sets.has_room_for_table(table.len()) {
            return self.slots(plan, table);
        }
        if !std::mem::replace(&mut self.lacks_room, true) {
            warn!("no room is left for tables: Services that ask for one are balanced at random");
        }
        Ok(SlotRange::default())
    }

    /// The id of a Service port: kept over a restart by what the maps hold for its frontend.
    fn port_id(&mut self, plan: &mut Plan, key: &SvcKey, port: &Arc<Port>) -> Result<u32, ReconcileError> {
        let held = self.services.get(key).map(|value| value.service);
        let id = if let Some(id) = self.ports.id(&port.name) {
            id
        } else if let Some(id) = held.filter(|id| self.ports.claim(port.name.clone(), *id)) {
            id
        } else {
            let id = self.ports.assign(port.name.clone()).ok_or(ReconcileError::Full("service id"))?;
            plan.ports.push(id);
            id
        };
        self.serving.insert((id, port.family), Arc::clone(port));
        Ok(id)
    }

    fn backend_id(&mut self, plan: &mut Plan, endpoint: &EndpointAddress) -> Result<u32, ReconcileError> {
        if let Some(id) = self.backends.id(endpoint) {
            return Ok(id);
        }
        let id = self.backends.assign(*endpoint).ok_or(ReconcileError::Full("backend"))?;
        self.filter.add_backend(endpoint);
        plan.backends.push((id, Backend { addr: endpoint.0, port: endpoint.1, reserved: 0 }));
        Ok(id)
    }

    /// The slots that hold these ids, written already or to be written.
    fn slots(&mut self, plan: &mut Plan, ids: &[u32]) -> Result<SlotRange, ReconcileError> {
        if let Some(range) = self.sets.find(ids) {
            return Ok(range);
        }
        let range = self.sets.add(ids).ok_or(ReconcileError::Full("slot"))?;
        distinct(ids).into_iter().for_each(|id| self.backends.hold(id));
        plan.sets.extend(self.sets.ids(range).map(|ids| (range, Arc::clone(ids))));
        Ok(range)
    }

    fn plan_ranges(&mut self, plan: &mut Plan, list: &RangeList) -> Result<u32, ReconcileError> {
        let known = self.ranges.id(list);
        let id = match known {
            Some(id) => id,
            None => self.ranges.assign(Arc::clone(list)).ok_or(ReconcileError::Full("list of source ranges"))?,
        };
        // What nobody names may stand there in part only.
        if !self.ranges.is_held(id) && plan.ranges.iter().all(|(planned, _)| *planned != id) {
            plan.ranges.push((id, Arc::clone(list)));
        }
        Ok(id)
    }

    /// Backends, slots, source ranges, filter: nobody looks at them before a frontend names them.
    fn write_needed(&mut self, plan: &Plan) -> Result<(), MapError> {
        let stopped = |stopped: Stopped| stopped.error;
        if !plan.backends.is_empty() {
            self.maps.put_backends(&plan.backends).map_err(stopped)?;
        }
        if !plan.sets.is_empty() {
            let sets: Vec<_> = plan.sets.iter().map(|(range, ids)| (range.base, Arc::clone(ids))).collect();
            self.maps.put_sets(&sets).map_err(stopped)?;
        }
        for (id, list) in &plan.ranges {
            list.iter().try_for_each(|range| self.maps.put_range(*id, range))?;
        }
        self.filter.write(&mut self.maps)
    }

    fn write_values(&mut self, plan: &mut Plan, puts: &[Put], round: &mut Round) {
        let mut at = 0;
        while let Some(rest) = plan.values.get(at..).filter(|rest| !rest.is_empty()) {
            let result = self.maps.put_services(rest);
            let written = result.as_ref().map_or_else(|stopped| stopped.written, |()| rest.len()).min(rest.len());
            for (key, value) in rest.iter().take(written) {
                self.hold(value);
                if let Some(old) = self.services.insert(*key, *value) {
                    self.let_go(&old, round.now);
                }
            }
            round.changes.frontends += written;
            at += written;
            if let Err(Stopped { error, .. }) = result {
                plan.failed.extend(plan.places.get(at).map(|place| (*place, error.into())));
                at += 1;
            }
        }
        debug_assert!(plan.failed.iter().all(|(place, _)| *place < puts.len()), "places are those of the frontends");
    }

    /// Frees what was planned and is named by no frontend.
    fn take_back(&mut self, plan: &Plan, round: &Round) {
        for (range, _) in &plan.sets {
            if !self.sets.is_held(*range) {
                self.drop_set(*range);
            }
        }
        for (id, _) in &plan.backends {
            if !self.backends.is_held(*id) {
                self.backends.release(*id);
            }
        }
        for id in plan.ports.iter().filter(|id| !self.ports.is_held(**id)).copied().collect::<Vec<_>>() {
            self.release_port(id);
        }
        for (id, _) in &plan.ranges {
            // Some of it may have been written, so it goes like one that was in use.
            if !self.ranges.is_held(*id) {
                self.retire_ranges(*id, round.now);
            }
        }
    }
}
