//! The reconciler on fake maps: order of writes, recovery after a restart, convergence after any failures.

use std::{cell::Cell, collections::BTreeSet};

use proptest::prelude::*;
use roadstead_abi::{Be16, kind, proto, scope, svc_flags};
use roadstead_model::ObjectName;

use super::*;

/// Maps in memory that check every write: a frontend may only name slots and backends that are there already.
#[derive(Clone, Default)]
struct FakeMaps {
    services: BTreeMap<SvcKey, SvcValue>,
    slots: BTreeMap<u32, u32>,
    backends: BTreeMap<u32, Backend>,
    vips: BTreeMap<Addr, u32>,
    node_port_ips: BTreeSet<Addr>,
    /// Writes until the next failure; 0 never fails.
    fail_in: Cell<u32>,
    writes: Cell<u32>,
}

impl FakeMaps {
    fn write(&self) -> Result<(), MapError> {
        self.writes.set(self.writes.get() + 1);
        if self.fail_in.get() == 0 {
            return Ok(());
        }
        self.fail_in.set(self.fail_in.get() - 1);
        if self.fail_in.get() == 0 {
            return Err(MapError { map: "FAKE", operation: "write", source: "ordered to fail".into() });
        }
        Ok(())
    }

    fn endpoints(&self, range: SlotRange) -> Vec<EndpointAddress> {
        let ids = (range.base..range.base + range.count).map(|slot| self.slots[&slot]);
        ids.map(|id| (self.backends[&id].addr, self.backends[&id].port)).collect()
    }

    fn assert_holds(&self, desired: &Frontends) {
        assert_eq!(self.services.keys().collect::<Vec<_>>(), desired.by_key.keys().collect::<Vec<_>>());
        for (key, frontend) in &desired.by_key {
            let value = self.services[key];
            assert_eq!(self.endpoints(value.cluster), frontend.cluster);
            assert_eq!(self.endpoints(value.local), frontend.local);
            assert_eq!((value.flags, value.kind), (frontend.flags, frontend.kind));
        }
        let vips: Vec<_> = desired.vips.iter().map(|(addr, kind)| (*addr, u32::from(*kind))).collect();
        assert_eq!(self.vips.iter().map(|(addr, kind)| (*addr, *kind)).collect::<Vec<_>>(), vips);
    }
}

impl Maps for FakeMaps {
    fn services(&self) -> Result<Vec<(SvcKey, SvcValue)>, MapError> {
        Ok(self.services.iter().map(|(key, value)| (*key, *value)).collect())
    }
    fn put_service(&mut self, key: &SvcKey, value: &SvcValue) -> Result<(), MapError> {
        self.write()?;
        for range in [value.cluster, value.local] {
            for (_, port) in self.endpoints(range) {
                assert_ne!(port.0, 0, "a frontend names a free backend");
            }
        }
        self.services.insert(*key, *value);
        Ok(())
    }
    fn remove_service(&mut self, key: &SvcKey) -> Result<(), MapError> {
        self.write()?;
        self.services.remove(key);
        Ok(())
    }
    fn slots(&self, range: SlotRange) -> Result<Vec<u32>, MapError> {
        Ok((range.base..range.base + range.count).map(|slot| self.slots[&slot]).collect())
    }
    fn put_slots(&mut self, base: u32, ids: &[u32]) -> Result<(), MapError> {
        self.write()?;
        for (slot, id) in (base..).zip(ids) {
            for value in self.services.values() {
                for range in [value.cluster, value.local] {
                    assert!(slot < range.base || slot >= range.base + range.count, "slot {slot} is in use");
                }
            }
            self.slots.insert(slot, *id);
        }
        Ok(())
    }
    fn backend(&self, id: u32) -> Result<Backend, MapError> {
        Ok(self.backends.get(&id).copied().unwrap_or_default())
    }
    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError> {
        self.write()?;
        self.backends.insert(id, *backend);
        Ok(())
    }
    fn vips(&self) -> Result<Vec<(Addr, u32)>, MapError> {
        Ok(self.vips.iter().map(|(addr, kind)| (*addr, *kind)).collect())
    }
    fn put_vip(&mut self, addr: &Addr, kind: u32) -> Result<(), MapError> {
        self.write()?;
        self.vips.insert(*addr, kind);
        Ok(())
    }
    fn remove_vip(&mut self, addr: &Addr) -> Result<(), MapError> {
        self.write()?;
        self.vips.remove(addr);
        Ok(())
    }
    fn node_port_ips(&self) -> Result<Vec<Addr>, MapError> {
        Ok(self.node_port_ips.iter().copied().collect())
    }
    fn put_node_port_ip(&mut self, addr: &Addr) -> Result<(), MapError> {
        self.write()?;
        self.node_port_ips.insert(*addr);
        Ok(())
    }
    fn remove_node_port_ip(&mut self, addr: &Addr) -> Result<(), MapError> {
        self.write()?;
        self.node_port_ips.remove(addr);
        Ok(())
    }
    fn put_node(&mut self, _: &NodeConfig) -> Result<(), MapError> {
        self.write()
    }
}

fn endpoint(number: u8) -> EndpointAddress {
    (Addr::v4([10, 244, 0, number]), Be16::new(8080))
}

/// One frontend for each entry: the numbers are its endpoints, the even ones are local.
fn frontends(services: &[(u8, Vec<u8>)]) -> Frontends {
    let mut frontends = Frontends::default();
    for (number, endpoints) in services {
        let numbers: BTreeSet<u8> = endpoints.iter().copied().collect();
        let addr = Addr::v4([10, 96, 0, *number]);
        let key = SvcKey { addr, port: Be16::new(80), proto: proto::TCP, scope: scope::ADDRESS };
        let port = ServicePortName { service: ObjectName::new("default", &number.to_string()), port: String::new() };
        let flags = if numbers.is_empty() { 0 } else { svc_flags::HAS_ENDPOINTS };
        let cluster = numbers.iter().copied().map(endpoint).collect();
        let local = numbers.iter().copied().filter(|number| number % 2 == 0).map(endpoint).collect();
        frontends.by_key.insert(key, Frontend { port, kind: kind::CLUSTER_IP, flags, cluster, local });
        frontends.vips.insert(addr, kind::CLUSTER_IP);
    }
    frontends
}

#[test]
fn a_restart_on_the_same_state_writes_nothing() {
    let desired = frontends(&[(1, vec![1, 2, 3]), (2, vec![2, 3]), (3, vec![])]);
    let mut first = Reconciler::recover(FakeMaps::default()).unwrap();
    first.apply(&desired, Removal::Allowed, Instant::now()).unwrap();
    let maps = first.maps.clone();
    let before = maps.writes.get();
    let mut second = Reconciler::recover(maps).unwrap();
    let changes = second.apply(&desired, Removal::Allowed, Instant::now()).unwrap();
    assert_eq!((changes, second.maps.writes.get() - before), (Changes::default(), 0));
    second.maps.assert_holds(&desired);
}

#[test]
fn nothing_goes_before_every_source_has_been_read() {
    let desired = frontends(&[(1, vec![1]), (2, vec![2])]);
    let mut reconciler = Reconciler::recover(FakeMaps::default()).unwrap();
    reconciler.apply(&desired, Removal::Allowed, Instant::now()).unwrap();
    let mut restarted = Reconciler::recover(reconciler.maps).unwrap();
    restarted.apply(&Frontends::default(), Removal::Withheld, Instant::now()).unwrap();
    restarted.maps.assert_holds(&desired);
    restarted.apply(&Frontends::default(), Removal::Allowed, Instant::now()).unwrap();
    restarted.maps.assert_holds(&Frontends::default());
}

#[test]
fn what_an_earlier_agent_left_stays_while_a_part_cannot_be_read() {
    let all = frontends(&[(1, vec![1]), (2, vec![2]), (3, vec![3])]);
    // The files of the second Service and of the third one's endpoints are broken.
    let readable = frontends(&[(1, vec![1, 5]), (3, vec![])]);
    let kept = frontends(&[(1, vec![1, 5]), (2, vec![2]), (3, vec![3])]);
    let mut reconciler = Reconciler::recover(FakeMaps::default()).unwrap();
    reconciler.apply(&all, Removal::Allowed, Instant::now()).unwrap();
    let mut restarted = Reconciler::recover(reconciler.maps).unwrap();
    restarted.apply(&readable, Removal::Known, Instant::now()).unwrap();
    restarted.maps.assert_holds(&kept);
    // What this agent has been asked for goes when it is not asked for any more, and loses its endpoints.
    restarted.apply(&frontends(&[(3, vec![3])]), Removal::Known, Instant::now()).unwrap();
    restarted.maps.assert_holds(&frontends(&[(2, vec![2]), (3, vec![3])]));
    restarted.apply(&frontends(&[(3, vec![])]), Removal::Known, Instant::now()).unwrap();
    restarted.maps.assert_holds(&frontends(&[(2, vec![2]), (3, vec![])]));
    restarted.apply(&frontends(&[(3, vec![])]), Removal::Allowed, Instant::now()).unwrap();
    restarted.maps.assert_holds(&frontends(&[(3, vec![])]));
}

#[test]
fn a_change_is_one_write_of_the_frontend_and_old_slots_wait_for_the_grace_period() {
    let mut reconciler = Reconciler::recover(FakeMaps::default()).unwrap();
    let start = Instant::now();
    reconciler.apply(&frontends(&[(1, vec![1, 3])]), Removal::Allowed, start).unwrap();
    let old = *reconciler.maps.services.values().next().unwrap();
    let changes = reconciler.apply(&frontends(&[(1, vec![1, 5])]), Removal::Allowed, start).unwrap();
    assert_eq!(changes, Changes { frontends: 1 });
    assert_eq!(reconciler.maps.endpoints(old.cluster), vec![endpoint(1), endpoint(3)], "a reader of the old value");
    reconciler.apply(&frontends(&[(1, vec![1, 5])]), Removal::Allowed, start + GRACE).unwrap();
    let freed = reconciler.maps.backends.values().filter(|backend| backend.port.0 == 0).count();
    assert_eq!(freed, 1, "the backend that nobody names is free again");
}

#[test]
fn a_full_table_keeps_nobody_from_making_room() {
    let mut reconciler = Reconciler::recover(FakeMaps::default()).unwrap();
    reconciler.apply(&frontends(&[(1, vec![1]), (2, vec![2])]), Removal::Allowed, Instant::now()).unwrap();
    // The first write fails as that of a full table would; the removal that makes room is made all the same.
    reconciler.maps.fail_in.set(1);
    let desired = frontends(&[(3, vec![3])]);
    assert!(reconciler.apply(&desired, Removal::Allowed, Instant::now()).is_err());
    assert!(reconciler.maps.services.is_empty());
    reconciler.apply(&desired, Removal::Allowed, Instant::now()).unwrap();
    reconciler.maps.assert_holds(&desired);
}

#[test]
fn flows_go_on_to_endpoints_that_answer_and_while_nobody_knows() {
    let mut desired = frontends(&[(1, vec![1, 3])]);
    let name = desired.by_key.values().next().unwrap().port.clone();
    desired.serving.insert(name, [endpoint(1)].into());
    let mut reconciler = Reconciler::recover(FakeMaps::default()).unwrap();
    reconciler.apply(&desired, Removal::Allowed, Instant::now()).unwrap();
    let port = reconciler.maps.services.values().next().unwrap().service;
    assert!(reconciler.may_go_on(&desired, port, &endpoint(1)));
    assert!(!reconciler.may_go_on(&desired, port, &endpoint(3)));
    assert!(!reconciler.may_go_on(&desired, port + 1, &endpoint(1)), "the Service is gone");
    let restarted = Reconciler::recover(reconciler.maps).unwrap();
    assert!(restarted.may_go_on(&Frontends::default(), port, &endpoint(3)), "not claimed yet");
}

#[test]
fn frontends_with_the_same_endpoints_share_their_slots() {
    let mut reconciler = Reconciler::recover(FakeMaps::default()).unwrap();
    let desired = frontends(&[(1, vec![1, 3]), (2, vec![1, 3])]);
    reconciler.apply(&desired, Removal::Allowed, Instant::now()).unwrap();
    assert_eq!(reconciler.maps.slots.len(), 2);
}

proptest! {
    #[test]
    fn maps_converge_after_any_failures_and_restarts(
        rounds in proptest::collection::vec(
            (proptest::collection::vec((1..6_u8, proptest::collection::vec(1..9_u8, 0..5)), 0..5), 0..12_u32, any::<bool>()),
            1..12,
        ),
    ) {
        let mut reconciler = Reconciler::recover(FakeMaps::default()).unwrap();
        let mut now = Instant::now();
        for (services, fail_in, restart) in rounds {
            now += GRACE / 2;
            let desired = frontends(&services);
            reconciler.maps.fail_in.set(fail_in);
            let failed = reconciler.apply(&desired, Removal::Allowed, now).is_err();
            reconciler.maps.fail_in.set(0);
            if restart {
                reconciler = Reconciler::recover(reconciler.maps).unwrap();
            }
            if failed || restart {
                reconciler.apply(&desired, Removal::Allowed, now).unwrap();
            }
            reconciler.maps.assert_holds(&desired);
        }
    }
}
