//! Which endpoint a pool gives, by policy, key and session, while endpoints come, go and fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroUsize,
    sync::atomic::Ordering,
    time::Duration,
};

use proptest::prelude::*;
use roadstead_model::{BackendPort, ObjectName};
use roadstead_routes::{Affinity, AffinityMode, Balance, HashBy, Policy, Reach, SessionCookie, Settings, Template};

use super::*;

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

fn endpoints(ready: impl IntoIterator<Item = u8>, draining: impl IntoIterator<Item = u8>) -> Endpoints {
    Endpoints {
        ready: ready.into_iter().map(address).collect(),
        draining: draining.into_iter().map(address).collect(),
        ..Endpoints::default()
    }
}

fn pool(ready: impl IntoIterator<Item = u8>) -> Arc<Pool> {
    let service = ObjectName::new("default", "web");
    let backend = Backend { service, port: BackendPort::Number(80.try_into().unwrap()), reach: Reach::Endpoints };
    let pool = Arc::new(Pool::new(&backend));
    pool.set(&endpoints(ready, []), Needs::Nothing);
    pool
}

fn balance(balance: Balance) -> Arc<Settings> {
    Arc::new(Settings { balance, ..Settings::default() })
}

fn policy(policy: Policy) -> Arc<Settings> {
    balance(Balance { policy, ..Balance::default() })
}

fn sticky(mode: AffinityMode, change_on_failure: bool) -> Arc<Settings> {
    let cookie = SessionCookie {
        name: "route".to_owned(),
        max_age: None,
        expires: None,
        path: None,
        domain: None,
        always_secure: false,
        same_site: None,
        same_site_none_by_browser: false,
    };
    let affinity = Some(Affinity { mode, ignores_canaries: false, change_on_failure, cookie });
    Arc::new(Settings { affinity, ..Settings::default() })
}

fn begin(pool: &Arc<Pool>, settings: &Arc<Settings>) -> Selection {
    Selection::new(Arc::clone(pool), Arc::clone(settings))
}

fn last(in_use: &InUse) -> u8 {
    match in_use.address().ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    }
}

/// How often each endpoint is taken by requests that end at once.
fn spread(pool: &Arc<Pool>, settings: &Arc<Settings>, requests: usize) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(last(&begin(pool, settings).next().unwrap())).or_default() += 1;
    }
    counts
}

fn fail(pool: &Arc<Pool>, settings: &Arc<Settings>, which: u8, times: usize) {
    let members = pool.members.load();
    let endpoint = members.at(address(which)).unwrap();
    for _ in 0..times {
        let mut in_use = InUse::new(Arc::clone(endpoint), endpoint::Timing::Ignored);
        begin(pool, settings).note(&mut in_use, Outcome::Unreachable);
    }
}

#[test]
fn turns_are_even_and_go_on_through_changes() {
    let (pool, settings) = (pool(1..=4), policy(Policy::RoundRobin));
    assert_eq!(spread(&pool, &settings, 400), BTreeMap::from([(1, 100), (2, 100), (3, 100), (4, 100)]));
    // Whatever joins or leaves, the turn goes on behind whoever had it last.
    let mut before = last(&begin(&pool, &settings).next().unwrap());
    for ready in [vec![1, 2, 3, 4, 5], vec![2, 4, 5], vec![1, 2, 3, 4, 5, 6], vec![3, 6]] {
        pool.set(&endpoints(ready.clone(), []), Needs::Nothing);
        let next = last(&begin(&pool, &settings).next().unwrap());
        let expected = ready.iter().copied().find(|other| *other > before).unwrap_or(ready[0]);
        assert_eq!(next, expected, "after {before} in {ready:?}");
        before = next;
    }
    pool.set(&endpoints([], []), Needs::Nothing);
    assert!(begin(&pool, &settings).next().is_none());
}

#[test]
fn a_gap_in_the_turns_is_shared_by_all() {
    let (pool, settings) = (pool(1..=4), policy(Policy::RoundRobin));
    fail(&pool, &settings, 2, 3);
    assert_eq!(spread(&pool, &settings, 300), BTreeMap::from([(1, 100), (3, 100), (4, 100)]));
}

#[test]
fn no_endpoint_is_taken_twice_for_one_request() {
    for choice in [Policy::RoundRobin, Policy::Ewma, Policy::LeastConnections, Policy::Random] {
        let pool = pool(1..=3);
        pool.set(&endpoints(1..=3, [4]), Needs::Nothing);
        let mut selection = begin(&pool, &policy(choice));
        let mut seen = Vec::new();
        while let Some(in_use) = selection.next() {
            selection.leave(&in_use);
            seen.push(last(&in_use));
        }
        assert_eq!(seen.pop(), Some(4), "{choice:?}: the draining one comes last");
        assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]), "{choice:?}");
    }
}

#[test]
fn draining_endpoints_serve_where_no_other_is() {
    let (pool, settings) = (pool([]), policy(Policy::RoundRobin));
    pool.set(&endpoints([], [7, 8]), Needs::Nothing);
    assert_eq!(spread(&pool, &settings, 10), BTreeMap::from([(7, 5), (8, 5)]));
}

#[test]
fn the_least_busy_gets_the_next_request() {
    let (pool, settings) = (pool(1..=3), policy(Policy::LeastConnections));
    let mut held: Vec<InUse> = (0..6).map(|_| begin(&pool, &settings).next().unwrap()).collect();
    assert_eq!(pool.census().in_flight, 6);
    let free = last(&held.remove(3));
    for _ in 0..10 {
        assert_eq!(last(&begin(&pool, &settings).next().unwrap()), free);
    }
    drop(held);
    assert_eq!(pool.census().in_flight, 0);
    assert_eq!(spread(&pool, &settings, 30), BTreeMap::from([(1, 10), (2, 10), (3, 10)]), "between equals, in turn");
}

#[test]
fn the_faster_ones_get_more_by_moving_average() {
    let (pool, settings) = (pool(1..=4), policy(Policy::Ewma));
    let members = pool.members.load_full();
    for (place, endpoint) in members.ready.iter().enumerate() {
        endpoint.speed.write([0.010, 0.020, 0.040, 0.080][place], now());
    }
    let counts = spread(&pool, &settings, 6_000);
    // Two of four at random: the fastest wins its 3 pairs of 6, the next 2, the next 1, the slowest none.
    for (which, expected) in [(1, 3_000), (2, 2_000), (3, 1_000)] {
        let found = counts.get(&which).copied().unwrap_or_default();
        assert!(found.abs_diff(expected) < 300, "{which}: {counts:?}");
    }
    assert_eq!(counts.get(&4), None, "{counts:?}");
    // What is new begins as fast as the others are on average.
    pool.set(&endpoints(1..=5, []), Needs::Nothing);
    let new = pool.members.load().at(address(5)).unwrap().speed.known().unwrap();
    assert!((new - 0.0375).abs() < 1e-9, "{new}");
}

#[test]
fn times_count_only_where_somebody_asks_for_them() {
    let pool = pool([1]);
    let known = || pool.members.load().at(address(1)).unwrap().speed.known();
    let answer = |choice| {
        let mut selection = begin(&pool, &policy(choice));
        let mut in_use = selection.next().unwrap();
        selection.note(&mut in_use, Outcome::Answered);
    };
    answer(Policy::RoundRobin);
    assert_eq!(known(), None);
    drop(begin(&pool, &policy(Policy::Ewma)).next());
    assert_eq!(known(), None, "without an answer the time tells nothing");
    answer(Policy::Ewma);
    assert!(known().is_some());
}

#[test]
fn chance_is_even() {
    let counts = spread(&pool(1..=4), &policy(Policy::Random), 8_000);
    assert!(counts.len() == 4 && counts.values().all(|count| count.abs_diff(2_000) < 300), "{counts:?}");
}

#[test]
fn at_most_half_are_left_alone() {
    let (pool, settings) = (pool(1..=4), policy(Policy::RoundRobin));
    for which in 1..=4 {
        fail(&pool, &settings, which, 5);
    }
    assert_eq!(pool.census(), Census { ready: 4, draining: 0, ejected: 2, in_flight: 0 });
    assert_eq!(spread(&pool, &settings, 10), BTreeMap::from([(3, 5), (4, 5)]));
    // Of the three that are left, two are out: that is more than half, so failures are looked past.
    pool.set(&endpoints(1..=3, []), Needs::Nothing);
    assert_eq!(spread(&pool, &settings, 9), BTreeMap::from([(1, 3), (2, 3), (3, 3)]));
    // Those that stay keep their state; one that comes back is a new one.
    pool.set(&endpoints(1..=6, []), Needs::Nothing);
    assert_eq!(pool.census().ejected, 2);
    pool.set(&endpoints(3..=6, []), Needs::Nothing);
    pool.set(&endpoints(1..=6, []), Needs::Nothing);
    assert_eq!(pool.census().ejected, 0);
}

#[test]
fn an_only_endpoint_is_never_left_alone() {
    let (pool, settings) = (pool([1]), policy(Policy::RoundRobin));
    fail(&pool, &settings, 1, 10);
    assert_eq!(pool.census().ejected, 0);
    assert!(begin(&pool, &settings).next().is_some());
}

#[test]
fn an_answer_ends_a_row_of_failures() {
    let (pool, settings) = (pool(1..=2), policy(Policy::RoundRobin));
    for _ in 0..5 {
        fail(&pool, &settings, 1, 2);
        let members = pool.members.load();
        let mut in_use = InUse::new(Arc::clone(members.at(address(1)).unwrap()), endpoint::Timing::Ignored);
        begin(&pool, &settings).note(&mut in_use, Outcome::Answered);
    }
    assert_eq!(pool.census().ejected, 0);
    fail(&pool, &balance(Balance { max_fails: 0, ..Balance::default() }), 1, 100);
    assert_eq!(pool.census().ejected, 0, "0 is off");
}

fn hashed(pool: &Arc<Pool>, settings: &Arc<Settings>, key: &str) -> u8 {
    last(&begin(pool, settings).with_key(Some(key.as_bytes().to_vec())).next().unwrap())
}

#[test]
fn a_key_moves_only_with_its_endpoint() {
    let (pool, settings) = (pool(1..=8), policy(Policy::RoundRobin));
    let keys: Vec<String> = (0..2_000).map(|number| format!("/item/{number}")).collect();
    let before: Vec<u8> = keys.iter().map(|key| hashed(&pool, &settings, key)).collect();
    let counts = before.iter().fold(BTreeMap::new(), |mut counts: BTreeMap<u8, usize>, which| {
        *counts.entry(*which).or_default() += 1;
        counts
    });
    assert!(counts.len() == 8 && counts.values().all(|count| (125..=400).contains(count)), "{counts:?}");
    let moved = |pool: &Arc<Pool>, gone: u8| {
        for (key, before) in keys.iter().zip(&before) {
            let now = hashed(pool, &settings, key);
            assert!(if *before == gone { now != gone } else { now == *before }, "{key} of {before} is at {now}");
        }
    };
    fail(&pool, &settings, 3, 3);
    moved(&pool, 3);
    pool.set(&endpoints([1, 2, 3, 4, 6, 7, 8], [5]), Needs::Ring);
    begin(&pool, &settings).note(
        &mut InUse::new(Arc::clone(pool.members.load().at(address(3)).unwrap()), endpoint::Timing::Ignored),
        Outcome::Answered,
    );
    moved(&pool, 5);
    pool.set(&endpoints([1, 2, 3, 4, 6, 7, 8], []), Needs::Ring);
    moved(&pool, 5);
}

#[test]
fn a_set_of_endpoints_shares_a_key() {
    let hash_by = HashBy { key: Template::parse("$host").unwrap(), subset: NonZeroUsize::new(3) };
    let settings = balance(Balance { hash_by: Some(hash_by), ..Balance::default() });
    let pool = pool(1..=8);
    let mut sets = BTreeSet::new();
    for number in 0..200 {
        let seen: BTreeSet<u8> = (0..60).map(|_| hashed(&pool, &settings, &format!("host-{number}"))).collect();
        assert_eq!(seen.len(), 3, "{seen:?}");
        sets.insert(seen);
    }
    assert_eq!(sets, BTreeSet::from([[1, 2, 3].into(), [4, 5, 6].into(), [1, 7, 8].into()]));
    let mut selection = begin(&pool, &settings).with_key(Some(b"host-1".to_vec()));
    let mut tried = BTreeSet::new();
    while let Some(in_use) = selection.next() {
        selection.leave(&in_use);
        assert!(tried.insert(last(&in_use)), "twice");
    }
    assert_eq!(tried.len(), 8, "the others are tried after the set");
}

/// The endpoint of a session, and the cookie that it gets.
fn visit(pool: &Arc<Pool>, settings: &Arc<Settings>, cookie: Option<&str>) -> (Option<u8>, Option<String>) {
    let mut selection = begin(pool, settings).with_session(Some(Session::new(cookie.map(str::as_bytes), None)));
    let which = selection.next().map(|in_use| last(&in_use));
    (which, selection.session_cookie().map(|(cookie, _)| cookie))
}

#[test]
fn sessions_stay_and_the_cookie_is_set_once() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        let (pool, settings) = (pool(1..=5), sticky(mode, false));
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let (first, cookie) = visit(&pool, &settings, None);
            let cookie = cookie.unwrap();
            seen.insert(first);
            for _ in 0..5 {
                assert_eq!(visit(&pool, &settings, Some(&cookie)), (first, None), "{mode:?} {cookie}");
            }
        }
        assert_eq!(seen.len(), 5, "{mode:?}: new sessions go everywhere");
    }
}

#[test]
fn a_cookie_of_ingress_nginx_means_the_same_endpoint() {
    // md5("default-web-80" .. "10.0.0.3:80"), and md5(md5("default-web-80") .. "default-web-80").
    let (pool, settings) = (pool(1..=5), sticky(AffinityMode::Persistent, false));
    let key = md5_hex(&["default-web-80", "10.0.0.3:80"]);
    assert_eq!(visit(&pool, &settings, Some(&format!("{key}|{}", pool.backend_key()))), (Some(3), None));
    assert_eq!(key, "86c482dec09f1011905c051429b85e6a");
    assert_eq!(pool.backend_key(), "6cde5721ec2c7e2bce07cff7d0e4ac37");
}

#[test]
fn broken_cookies_begin_a_new_session() {
    let (pool, settings) = (pool(1..=5), sticky(AffinityMode::Persistent, false));
    for cookie in ["", "|", "x", "|x", "00000000000000000000000000000000", "+0000000000000000000000000000000", "\u{e9}"]
    {
        let (which, set) = visit(&pool, &settings, Some(cookie));
        assert!(which.is_some() && set.is_some(), "{cookie:?}");
    }
    // A balanced session's key is whatever it is; only an empty one is none.
    let settings = sticky(AffinityMode::Balanced, false);
    assert!(visit(&pool, &settings, Some("|x")).1.is_some());
    assert_eq!(visit(&pool, &settings, Some("x")).1, None);
}

#[test]
fn draining_endpoints_keep_their_clients_and_get_no_new_ones() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        let (pool, settings) = (pool(1..=3), sticky(mode, false));
        let sessions: Vec<_> = (0..60).map(|_| visit(&pool, &settings, None)).collect();
        pool.set(&endpoints([1, 3], [2]), Needs::Ring);
        for (which, cookie) in &sessions {
            assert_eq!(visit(&pool, &settings, cookie.as_deref()), (*which, None), "{mode:?}");
        }
        for _ in 0..60 {
            assert_ne!(visit(&pool, &settings, None).0, Some(2), "{mode:?}");
        }
        pool.set(&endpoints([1, 3], []), Needs::Ring);
        for (which, cookie) in &sessions {
            let (now, set) = visit(&pool, &settings, cookie.as_deref());
            if *which == Some(2) {
                // The key of a balanced session leads to another endpoint by itself.
                assert_eq!((now == Some(2), set.is_some()), (false, mode == AffinityMode::Persistent), "{mode:?}");
            } else {
                assert_eq!((now, set), (*which, None), "{mode:?}");
            }
        }
    }
}

#[test]
fn scaling_up_moves_balanced_sessions_and_no_persistent_ones() {
    for (mode, expected) in [(AffinityMode::Balanced, 100..=400), (AffinityMode::Persistent, 0..=0)] {
        let (pool, settings) = (pool(1..=4), sticky(mode, false));
        let sessions: Vec<_> = (0..1_000).map(|_| visit(&pool, &settings, None)).collect();
        pool.set(&endpoints(1..=5, []), Needs::Ring);
        let mut moved = 0;
        for (which, cookie) in &sessions {
            let (now, _) = visit(&pool, &settings, cookie.as_deref());
            assert!(now == *which || now == Some(5), "{mode:?}: sessions move to the new one alone");
            moved += usize::from(now != *which);
        }
        assert!(expected.contains(&moved), "{mode:?}: {moved}");
    }
}

#[test]
fn a_session_changes_its_endpoint_on_failure_only_if_it_is_to() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        for change in [false, true] {
            let (pool, settings) = (pool(1..=3), sticky(mode, change));
            let (which, cookie) = visit(&pool, &settings, None);
            let session = Session::new(cookie.as_deref().map(str::as_bytes), None);
            let mut selection = begin(&pool, &settings).with_session(Some(session));
            let first = selection.next().unwrap();
            assert_eq!((Some(last(&first)), selection.session_cookie()), (which, None));
            selection.leave(&first);
            let second = selection.next();
            assert_eq!(second.as_ref().map(|second| last(second) != last(&first)), change.then_some(true), "{mode:?}");
            assert_eq!(selection.session_cookie().is_some(), change, "{mode:?}");
            fail(&pool, &settings, last(&first), 3);
            let (now, set) = visit(&pool, &settings, cookie.as_deref());
            assert_eq!((now != which, set.is_some()), (change, change), "{mode:?}: an ejected endpoint");
        }
    }
}

#[test]
fn a_new_session_whose_first_endpoint_fails_is_bound_to_the_second() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        let (pool, settings) = (pool(1..=3), sticky(mode, false));
        let mut selection = begin(&pool, &settings).with_session(Some(Session::new(None, None)));
        let first = selection.next().unwrap();
        selection.leave(&first);
        let second = last(&selection.next().unwrap());
        let (cookie, _) = selection.session_cookie().unwrap();
        assert_ne!(second, last(&first));
        assert_eq!(visit(&pool, &settings, Some(&cookie)), (Some(second), None), "{mode:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever changes: a request gets an endpoint where there is one, never the same twice, all of them in the end.
    #[test]
    fn every_endpoint_is_tried_once(
        states in proptest::collection::vec(
            (proptest::collection::btree_map(1_u8..40, any::<bool>(), 0..20), 0_u8..40), 1..6),
        choice in prop_oneof![
            Just(Policy::RoundRobin), Just(Policy::Ewma), Just(Policy::LeastConnections), Just(Policy::Random)],
        key in proptest::option::of("[a-z]{0,8}"),
    ) {
        let (pool, settings) = (pool([]), policy(choice));
        for (members, failing) in states {
            let part = |wanted| members.iter().filter(move |(_, ready)| **ready == wanted).map(|(last, _)| *last);
            pool.set(&endpoints(part(true), part(false)), Needs::Nothing);
            if members.contains_key(&failing) {
                fail(&pool, &settings, failing, 3);
            }
            let mut selection = begin(&pool, &settings).with_key(key.clone().map(String::into_bytes));
            let mut seen = BTreeSet::new();
            while let Some(in_use) = selection.next() {
                selection.leave(&in_use);
                prop_assert!(seen.insert(last(&in_use)), "twice");
            }
            prop_assert_eq!(seen, members.keys().copied().collect::<BTreeSet<_>>());
        }
        prop_assert_eq!(pool.census().in_flight, 0);
    }

    /// Turns differ by one at most, however many endpoints there are and however many requests.
    #[test]
    fn turns_are_shared_evenly(count in 1_u8..50, requests in 1_usize..500) {
        let counts = spread(&pool(1..=count), &policy(Policy::RoundRobin), requests);
        let most = counts.values().max().copied().unwrap_or_default();
        let least = if counts.len() < usize::from(count) { 0 } else { counts.values().min().copied().unwrap_or_default() };
        prop_assert!(most - least <= 1, "{:?}", counts);
    }
}

#[test]
fn threads_share_the_turns() {
    let (pool, settings) = (pool(1..=5), policy(Policy::RoundRobin));
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| spread(&pool, &settings, 1_000))).collect();
        threads.into_iter().fold(BTreeMap::new(), |mut all: BTreeMap<u8, usize>, thread| {
            for (which, count) in thread.join().unwrap() {
                *all.entry(which).or_default() += count;
            }
            all
        })
    });
    assert!(counts.values().all(|count| *count == 800), "{counts:?}");
    assert_eq!(pool.members.load().ready.iter().map(|one| one.in_flight.load(Ordering::SeqCst)).sum::<usize>(), 0);
    assert!(Duration::from_millis(now()) < Duration::from_secs(86_400));
}
