//! The reconciler on fake maps: order of writes, recovery after a restart, convergence after any failures.

use std::{collections::BTreeMap, collections::BTreeSet};

use proptest::prelude::*;
use roadstead_abi::{Be16, NodeConfig, kind, node_address, proto, scope};
use roadstead_model::{ObjectName, Protocol, Selection};

use super::*;
use crate::{fake_maps::FakeMaps, node::NodeState, topology::EndpointSets};

/// A desired state, and the way from one to another.
#[derive(Clone, Default)]
struct Desired {
    frontends: BTreeMap<SvcKey, Frontend>,
    vips: BTreeMap<Addr, u8>,
}

impl Desired {
    fn since(&self, before: &Self) -> Delta {
        let changed = |key: &SvcKey, frontend: &Frontend| before.frontends.get(key) != Some(frontend);
        let puts = self.frontends.iter().filter(|(key, frontend)| changed(key, frontend));
        let gone = before.frontends.keys().filter(|key| !self.frontends.contains_key(key));
        let vips = self.vips.iter().filter(|(addr, kind)| before.vips.get(addr) != Some(kind));
        let gone_vips = before.vips.keys().filter(|addr| !self.vips.contains_key(addr));
        Delta {
            frontends: puts
                .map(|(key, frontend)| (*key, Some(frontend.clone())))
                .chain(gone.map(|key| (*key, None)))
                .collect(),
            vips: vips.map(|(addr, kind)| (*addr, Some(*kind))).chain(gone_vips.map(|addr| (*addr, None))).collect(),
            conflicts: Vec::new(),
        }
    }

    fn all(&self) -> Delta {
        self.since(&Self::default())
    }
}

impl FakeMaps {
    fn assert_holds(&self, desired: &Desired) {
        assert_eq!(self.services.keys().collect::<Vec<_>>(), desired.frontends.keys().collect::<Vec<_>>());
        for (key, frontend) in &desired.frontends {
            let value = self.services[key];
            assert_eq!(self.endpoints(value.cluster.members), frontend.cluster());
            assert_eq!(self.endpoints(value.local.members), frontend.local());
            let is_hashed = frontend.port.selection == Selection::Maglev;
            for set in [value.cluster, value.local] {
                assert_eq!(set.table.count > 0, is_hashed && set.members.count > 1);
                let members: BTreeSet<_> = self.ids(set.members).into_iter().collect();
                assert!(self.ids(set.table).iter().all(|id| members.contains(id)));
            }
            assert_eq!((value.flags, value.kind), (frontend.port.flags, frontend.kind));
            let ranges = self.ranges.iter().filter(|(id, _)| *id == value.ranges).map(|(_, range)| *range);
            assert_eq!(ranges.collect::<Vec<_>>(), frontend.ranges().map_or(&[][..], |ranges| ranges));
        }
        let vips: Vec<_> = desired.vips.iter().map(|(addr, kind)| (*addr, u32::from(*kind))).collect();
        assert_eq!(self.vips.iter().map(|(addr, kind)| (*addr, *kind)).collect::<Vec<_>>(), vips);
    }
}

fn endpoint(number: u8) -> EndpointAddress {
    (Addr::v4([10, 244, 0, number]), Be16::new(8080))
}

fn range(number: u8) -> Prefix {
    Prefix { bits: 120, addr: Addr::v4([203, 0, number, 0]) }
}

fn port(number: u8, endpoints: &[u8], selection: Selection) -> Arc<Port> {
    let numbers: BTreeSet<u8> = endpoints.iter().copied().collect();
    let sets = EndpointSets {
        cluster: numbers.iter().copied().map(endpoint).collect(),
        local: numbers.iter().copied().filter(|number| number % 2 == 0).map(endpoint).collect(),
        serving: numbers.iter().copied().map(endpoint).collect(),
        any: !numbers.is_empty(),
    };
    Arc::new(Port {
        name: ServicePortName { service: ObjectName::new("default", &number.to_string()), port: "".into() },
        protocol: Protocol::Tcp,
        family: IpFamily::V4,
        flags: if sets.any { svc_flags::HAS_ENDPOINTS } else { 0 },
        affinity: 0,
        selection,
        ranges: (number.is_multiple_of(5)).then(|| [range(0), range(endpoints.len() as u8 + 1)].into()),
        sets,
    })
}

/// One frontend for each entry: the numbers are its endpoints, the even ones are local. Every third Service is balanced by
/// table, and every fifth has source ranges.
fn desired(services: &[(u8, Vec<u8>)]) -> Desired {
    let mut desired = Desired::default();
    for (number, endpoints) in services {
        let addr = Addr::v4([10, 96, 0, *number]);
        let key = SvcKey { addr, port: Be16::new(80), proto: proto::TCP, scope: scope::ADDRESS };
        let selection = if number % 3 == 0 { Selection::Maglev } else { Selection::Random };
        let kind = if number % 5 == 0 { kind::LOAD_BALANCER } else { kind::CLUSTER_IP };
        let frontend = Frontend { kind, port: port(*number, endpoints, selection) };
        desired.frontends.insert(key, frontend);
        desired.vips.insert(addr, kind::CLUSTER_IP);
    }
    desired
}

fn fresh() -> Reconciler<FakeMaps> {
    Reconciler::recover(FakeMaps::default()).unwrap()
}

#[test]
fn a_restart_on_the_same_state_writes_nothing() {
    let desired = desired(&[(1, vec![1, 2, 3]), (2, vec![2, 3]), (3, vec![1, 2, 3]), (4, vec![]), (5, vec![7])]);
    let mut first = fresh();
    first.apply(desired.all(), Removal::Allowed, Instant::now()).unwrap();
    let maps = first.maps.clone();
    let before = maps.writes.get();
    let mut second = Reconciler::recover(maps).unwrap();
    let changes = second.apply(desired.all(), Removal::Allowed, Instant::now()).unwrap();
    assert_eq!((changes, second.maps.writes.get() - before), (Changes::default(), 0));
    second.maps.assert_holds(&desired);
}

#[test]
fn a_filter_that_was_lost_is_there_again_before_anything_else() {
    let desired = desired(&[(1, vec![1, 2]), (2, vec![3])]);
    let mut first = fresh();
    first.apply(desired.all(), Removal::Allowed, Instant::now()).unwrap();
    first.maps.filter.clear();
    let recovered = Reconciler::recover(first.maps).unwrap();
    recovered.maps.assert_holds(&desired);
}

#[test]
fn nothing_goes_before_every_source_has_been_read() {
    let desired = desired(&[(1, vec![1]), (2, vec![2])]);
    let mut reconciler = fresh();
    reconciler.apply(desired.all(), Removal::Allowed, Instant::now()).unwrap();
    let mut restarted = Reconciler::recover(reconciler.maps).unwrap();
    restarted.apply(Delta::default(), Removal::Withheld, Instant::now()).unwrap();
    restarted.maps.assert_holds(&desired);
    restarted.apply(Delta::default(), Removal::Allowed, Instant::now()).unwrap();
    restarted.maps.assert_holds(&Desired::default());
}

#[test]
fn what_an_earlier_agent_left_stays_while_a_part_cannot_be_read() {
    let all = desired(&[(1, vec![1]), (2, vec![2]), (3, vec![3])]);
    // The files of the second Service and of the third one's endpoints are broken.
    let readable = desired(&[(1, vec![1, 5]), (3, vec![])]);
    let kept = desired(&[(1, vec![1, 5]), (2, vec![2]), (3, vec![3])]);
    let mut reconciler = fresh();
    reconciler.apply(all.all(), Removal::Allowed, Instant::now()).unwrap();
    let mut restarted = Reconciler::recover(reconciler.maps).unwrap();
    let mut before = Desired::default();
    let mut step = |next: Desired, removal| {
        restarted.apply(next.since(&before), removal, Instant::now()).unwrap();
        before = next;
        restarted.maps.clone()
    };
    step(readable, Removal::Known).assert_holds(&kept);
    // What this agent has been asked for goes when it is not asked for any more, and loses its endpoints.
    step(desired(&[(3, vec![3])]), Removal::Known).assert_holds(&desired(&[(2, vec![2]), (3, vec![3])]));
    step(desired(&[(3, vec![])]), Removal::Known).assert_holds(&desired(&[(2, vec![2]), (3, vec![])]));
    step(desired(&[(3, vec![])]), Removal::Allowed).assert_holds(&desired(&[(3, vec![])]));
}

#[test]
fn endpoints_that_stay_for_want_of_certainty_go_when_all_can_be_read() {
    let mut reconciler = fresh();
    reconciler.apply(desired(&[(1, vec![1]), (2, vec![2])]).all(), Removal::Allowed, Instant::now()).unwrap();
    let mut restarted = Reconciler::recover(reconciler.maps).unwrap();
    restarted.apply(desired(&[(1, vec![])]).all(), Removal::Known, Instant::now()).unwrap();
    restarted.maps.assert_holds(&desired(&[(1, vec![1]), (2, vec![2])]));
    restarted.apply(Delta::default(), Removal::Allowed, Instant::now()).unwrap();
    restarted.maps.assert_holds(&desired(&[(1, vec![])]));
}

#[test]
fn a_change_is_one_write_of_the_frontend_and_old_slots_wait_for_the_grace_period() {
    let mut reconciler = fresh();
    let start = Instant::now();
    let (first, second) = (desired(&[(1, vec![1, 3])]), desired(&[(1, vec![1, 5])]));
    reconciler.apply(first.all(), Removal::Allowed, start).unwrap();
    let old = *reconciler.maps.services.values().next().unwrap();
    let changes = reconciler.apply(second.since(&first), Removal::Allowed, start).unwrap();
    assert_eq!(changes, Changes { frontends: 1 });
    assert_eq!(reconciler.maps.endpoints(old.cluster.members), [endpoint(1), endpoint(3)], "a reader of the old value");
    let new = *reconciler.maps.services.values().next().unwrap();
    assert_ne!(old.check, new.check);
    assert!(reconciler.has_retired());
    reconciler.apply(Delta::default(), Removal::Allowed, start + GRACE).unwrap();
    let freed = reconciler.maps.backends.values().filter(|backend| backend.port.0 == 0).count();
    assert_eq!(freed, 1, "the backend that nobody names is free again");
    assert!(!reconciler.has_retired());
}

#[test]
fn what_is_wanted_again_within_the_grace_period_stays() {
    let mut reconciler = fresh();
    let start = Instant::now();
    let (first, second) = (desired(&[(5, vec![1, 3])]), desired(&[(5, vec![1])]));
    let half = GRACE / 2;
    reconciler.apply(first.all(), Removal::Allowed, start).unwrap();
    reconciler.apply(second.since(&first), Removal::Allowed, start).unwrap();
    reconciler.apply(first.since(&second), Removal::Allowed, start + half).unwrap();
    reconciler.apply(second.since(&first), Removal::Allowed, start + half + half / 2).unwrap();
    reconciler.apply(Delta::default(), Removal::Allowed, start + GRACE).unwrap();
    assert!(reconciler.maps.backends.values().all(|backend| backend.port.0 != 0), "unused for a quarter of it");
    reconciler.apply(first.since(&second), Removal::Allowed, start + GRACE).unwrap();
    reconciler.apply(Delta::default(), Removal::Allowed, start + GRACE * 3).unwrap();
    reconciler.maps.assert_holds(&first);
    assert_eq!(reconciler.maps.ranges.len(), 2, "the other list of source ranges is gone");
}

#[test]
fn a_full_table_keeps_nobody_from_making_room() {
    let mut reconciler = fresh();
    let first = desired(&[(1, vec![1]), (2, vec![2])]);
    reconciler.apply(first.all(), Removal::Allowed, Instant::now()).unwrap();
    // The write of the frontend fails as that to a full table would; the removal that makes room is made all the same.
    let second = desired(&[(4, vec![1])]);
    reconciler.maps.fail_in.set(2);
    assert!(reconciler.apply(second.since(&first), Removal::Allowed, Instant::now()).is_err());
    assert!(reconciler.maps.services.is_empty());
    reconciler.apply(Delta::default(), Removal::Allowed, Instant::now()).unwrap();
    reconciler.maps.assert_holds(&second);
}

#[test]
fn one_frontend_that_fails_keeps_no_other_back() {
    let mut reconciler = fresh();
    let desired = desired(&[(1, vec![1]), (2, vec![2]), (4, vec![4]), (7, vec![5])]);
    // Four backends, the slots of three sets: the next one fails, for all, and then each is tried by itself.
    reconciler.maps.fail_in.set(8);
    reconciler.apply(desired.all(), Removal::Allowed, Instant::now()).unwrap();
    reconciler.maps.assert_holds(&desired);
}

#[test]
fn flows_go_on_to_endpoints_that_answer_and_while_nobody_knows() {
    let mut desired = desired(&[(1, vec![1, 3])]);
    let frontend = desired.frontends.values_mut().next().unwrap();
    Arc::get_mut(&mut frontend.port).unwrap().sets.serving = vec![endpoint(1)];
    let mut reconciler = fresh();
    reconciler.apply(desired.all(), Removal::Allowed, Instant::now()).unwrap();
    let port = reconciler.maps.services.values().next().unwrap().service;
    assert!(reconciler.may_go_on(port, &endpoint(1)));
    assert!(!reconciler.may_go_on(port, &endpoint(3)));
    assert!(!reconciler.may_go_on(port + 1, &endpoint(1)), "the Service is gone");
    let mut restarted = Reconciler::recover(reconciler.maps).unwrap();
    assert!(restarted.may_go_on(port, &endpoint(3)), "not claimed yet");
    restarted.apply(desired.all(), Removal::Known, Instant::now()).unwrap();
    assert!(!restarted.may_go_on(port, &endpoint(3)));
}

#[test]
fn frontends_with_the_same_endpoints_share_their_slots_and_tables() {
    let mut reconciler = fresh();
    reconciler.apply(desired(&[(1, vec![1, 3]), (2, vec![1, 3])]).all(), Removal::Allowed, Instant::now()).unwrap();
    assert_eq!(reconciler.maps.slots.len(), 2);
    let mut reconciler = fresh();
    reconciler.apply(desired(&[(3, vec![1, 3]), (6, vec![1, 3])]).all(), Removal::Allowed, Instant::now()).unwrap();
    assert_eq!(reconciler.maps.slots.len(), 2 + 251);
}

#[test]
fn the_node_is_written_once_and_what_is_old_goes() {
    let addr = |last| Addr::v4([192, 0, 2, last]);
    let pods = Prefix { bits: 112, addr: Addr::v4([10, 244, 0, 0]) };
    let state = |addresses: &[u8]| NodeState {
        config: NodeConfig { netns_cookie: addresses.len() as u64, ..NodeConfig::default() },
        addresses: addresses.iter().map(|last| (addr(*last), node_address::SERVES_NODE_PORTS)).collect(),
        networks: [(pods, 1)].into(),
    };
    let mut reconciler = fresh();
    reconciler.apply_node(&state(&[1, 2])).unwrap();
    let writes = reconciler.maps.writes.get();
    reconciler.apply_node(&state(&[1, 2])).unwrap();
    assert_eq!(reconciler.maps.writes.get(), writes);
    let mut restarted = Reconciler::recover(reconciler.maps).unwrap();
    restarted.apply_node(&state(&[2])).unwrap();
    assert_eq!(restarted.maps.node_addresses.keys().copied().collect::<Vec<_>>(), [addr(2)]);
    assert_eq!(restarted.maps.networks.len(), 1);
    // Twice: a flow may begin while the flows are read.
    for still in [true, false] {
        assert!(restarted.maps.has_bit(filter::node(&addr(2))));
        restarted.rebuild_filter([addr(9)], []).unwrap();
        assert_eq!(restarted.maps.has_bit(filter::node(&addr(1))), still);
        assert!(restarted.maps.has_bit(filter::frontend(&addr(9))), "flows came by it");
    }
}

proptest! {
    #[test]
    fn maps_converge_after_any_failures_and_restarts(
        rounds in proptest::collection::vec(
            (proptest::collection::vec((1..11_u8, proptest::collection::vec(1..9_u8, 0..5)), 0..5), 0..20_u32, any::<bool>()),
            1..12,
        ),
    ) {
        let mut reconciler = fresh();
        let mut now = Instant::now();
        let mut before = Desired::default();
        for (services, fail_in, restart) in rounds {
            now += GRACE / 2;
            let next = desired(&services);
            reconciler.maps.fail_in.set(fail_in);
            let failed = reconciler.apply(next.since(&before), Removal::Allowed, now).is_err();
            reconciler.maps.fail_in.set(0);
            if restart {
                reconciler = Reconciler::recover(reconciler.maps).unwrap();
                reconciler.apply(next.all(), Removal::Allowed, now).unwrap();
            } else if failed {
                reconciler.apply(Delta::default(), Removal::Allowed, now).unwrap();
            }
            reconciler.maps.assert_holds(&next);
            before = next;
        }
        reconciler.apply(Desired::default().since(&before), Removal::Allowed, now).unwrap();
        reconciler.apply(Delta::default(), Removal::Allowed, now + GRACE * 2).unwrap();
        prop_assert_eq!(reconciler.fill().map(|(_, count)| count), [0, 0, 0], "nothing leaks");
        prop_assert!(reconciler.maps.ranges.is_empty() && !reconciler.has_retired());
    }
}
