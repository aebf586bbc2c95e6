//! The merge rule over random maps, each from one number: a failure is told by its seed.

use std::{collections::BTreeSet, env};

use super::*;

/// Splitmix64: a few lines that give the same numbers everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Runs a property over many seeds; `ROADSTEAD_SEED` runs it over one, that of a failure.
pub(super) fn for_seeds(runs: u64, property: impl Fn(&mut Random)) {
    let one = env::var("ROADSTEAD_SEED").ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = one.map_or(0..runs, |seed| seed..seed + 1);
    eprintln!("seeds {} to {}", seeds.start, seeds.end - 1);
    for seed in seeds {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| property(&mut Random(seed))));
        if let Err(cause) = failed {
            eprintln!("failed with ROADSTEAD_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}

pub(super) fn name(number: u64) -> ObjectName {
    ObjectName::new("default", &format!("s{number}"))
}

pub(super) fn ip(last: u64) -> IpAddr {
    IpAddr::from([192, 0, 2, u8::try_from(last).unwrap()])
}

fn any_entry(random: &mut Random) -> Entry {
    let mut ips = Vec::new();
    if !random.one_in(4) {
        ips.push(ip(random.below(6)));
    }
    if random.one_in(3) {
        ips.push(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, random.below(4) as u16]));
    }
    let writer = ["a", "b", "c"][random.below(3) as usize].to_owned();
    Entry { number: random.below(3), epoch: random.below(4), writer, ips }
}

fn any_map(random: &mut Random) -> Assignments {
    let mut map = Assignments::default();
    for _ in 0..random.below(12) {
        map.put(name(random.below(8)), any_entry(random));
    }
    map
}

fn merged(one: &Assignments, other: &Assignments) -> Assignments {
    let mut all = one.clone();
    let changed = all.merge(other.clone());
    assert_eq!(changed, all != *one);
    all
}

#[test]
fn merging_is_commutative_associative_and_idempotent() {
    for_seeds(20_000, |random| {
        let [a, b, c] = [(); 3].map(|()| any_map(random));
        assert_eq!(merged(&a, &b), merged(&b, &a));
        assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        assert_eq!(merged(&a, &a), a);
        assert_eq!(merged(&merged(&a, &b), &b), merged(&a, &b));
    });
}

#[test]
fn of_two_entries_exactly_one_holds() {
    for_seeds(20_000, |random| {
        let (one, other) = (any_entry(random), any_entry(random));
        assert_eq!(one.supersedes(&other), !other.supersedes(&one) && one != other);
    });
    let entry = |number, epoch, writer: &str| Entry { number, epoch, writer: writer.to_owned(), ips: vec![ip(1)] };
    assert!(entry(1, 9, "b").supersedes(&entry(0, 1, "a")), "what was assigned anew goes before what it replaced");
    assert!(entry(1, 1, "b").supersedes(&entry(1, 2, "a")), "of two new ones that of the lower epoch");
    assert!(entry(1, 1, "a").supersedes(&entry(1, 1, "b")));
}

/// Services with even numbers share with each other.
fn may_share(one: &ObjectName, other: &ObjectName, _: IpAddr) -> bool {
    let even = |name: &ObjectName| name.name.trim_start_matches('s').parse::<u64>().unwrap().is_multiple_of(2);
    even(one) && even(other)
}

fn pinned(name: &ObjectName, ip: IpAddr) -> bool {
    *name.name == *"s7" && ip.is_ipv4()
}

#[test]
fn after_a_merge_no_address_is_two_services_and_who_is_in_nobodys_way_keeps_all() {
    for_seeds(20_000, |random| {
        let maps = [(); 3].map(|()| any_map(random));
        let all = maps.iter().fold(Assignments::default(), |all, map| merged(&all, map));
        let Settled { table, lost } = all.settle(pinned, may_share);
        let wanting = |ip: IpAddr| all.iter().filter(move |(_, entry)| entry.ips.contains(&ip)).map(|(name, _)| name);
        for (service, ips) in &table {
            for ip in ips {
                for other in wanting(*ip).filter(|other| *other != service && !may_share(service, other, *ip)) {
                    assert!(!table.get(other).is_some_and(|ips| ips.contains(ip)), "{service} and {other} have {ip}");
                    let rank = |name: &ObjectName| (!pinned(name, *ip), all.get(name).unwrap().epoch, name.clone());
                    let other_lost_to_another = lost[other].to != *service;
                    assert!(rank(service) < rank(other) || other_lost_to_another, "{service} before {other} at {ip}");
                }
            }
        }
        for (service, entry) in all.iter() {
            let had = table.get(service).map_or(&[][..], Vec::as_slice);
            let gone: Vec<IpAddr> = entry.ips.iter().filter(|ip| !had.contains(ip)).copied().collect();
            assert_eq!(lost.get(service).map_or(&[][..], |lost| &lost.ips).len(), gone.len(), "{service}");
            for ip in gone {
                let holder = |other: &ObjectName| table.get(other).is_some_and(|ips| ips.contains(&ip));
                let rival = |other: &&ObjectName| *other != service && !may_share(service, other, ip) && holder(other);
                assert!(wanting(ip).find(rival).is_some(), "{service} lost {ip} to nobody");
            }
        }
    });
}

#[test]
fn a_map_and_its_documents_are_read_back_and_nothing_else_is() {
    for_seeds(3_000, |random| {
        let map = any_map(random);
        let mut all = Assignments::default();
        for (of, bytes) in (0..).zip(map.write()) {
            all.merge(Assignments::read(of, &bytes).unwrap());
            if !bytes.is_empty() {
                assert_eq!(Assignments::read((of + 1) % 32, &bytes), None, "names of another bucket");
                let cut = random.below(bytes.len() as u64) as usize;
                let half = Assignments::read(of, &bytes[..cut]);
                assert!(half.is_none_or(|half| half.write()[usize::from(of)] == bytes[..cut]));
                assert_eq!(Assignments::read(of, &[&bytes[..], &bytes].concat()), None, "twice");
            }
        }
        assert_eq!(all, map);
    });
    // After the highest number there could be no other.
    let name = ObjectName::new("default", "web");
    for (number, epoch, is_read) in [(MAX_COUNT, MAX_COUNT, true), (MAX_COUNT + 1, 1, false), (1, u64::MAX, false)] {
        let mut map = Assignments::default();
        map.put(name.clone(), Entry { number, epoch, writer: "a".to_owned(), ips: Vec::new() });
        let buckets = map.write();
        let read = (0..).zip(&buckets).all(|(of, bytes)| Assignments::read(of, bytes).is_some());
        assert_eq!(read, is_read, "{number} {epoch}");
    }
    let documents = Documents::new(&Assignments::default(), Some(&View { pools: 1, rest: 2, ..View::default() }));
    let index = documents.named(documents.encoded.digest).unwrap();
    assert_eq!(index.digest, documents.encoded.digest);
    assert_ne!(documents.files, 0);
    assert_eq!(Documents::default().files, 0);
}

#[test]
fn releases_are_forgotten_in_the_end_the_oldest_first() {
    let mut map = Assignments::default();
    let many = RELEASES as u64 + 10;
    for number in 0..many {
        map.put(name(number), Entry { number: 1, epoch: number, writer: "a".to_owned(), ips: Vec::new() });
    }
    map.put(name(many), Entry { number: 0, epoch: 0, writer: "a".to_owned(), ips: vec![ip(1)] });
    map.trim();
    // Beside them the floor.
    assert_eq!(map.iter().count(), RELEASES + 2);
    assert!(map.get(&name(9)).is_none() && map.get(&name(10)).is_some() && map.get(&name(many)).is_some());
}

#[test]
fn a_forgotten_release_does_not_hold_against_a_service_that_was_made_anew() {
    let release = |number, epoch| Entry { number, epoch, writer: "a".to_owned(), ips: Vec::new() };
    let mut away = Assignments::default();
    away.put(name(0), release(7, 1));
    // The others knew it too, and forgot it.
    let mut map = away.clone();
    for number in 1..=RELEASES as u64 {
        map.put(name(number), release(number % 3, 2));
    }
    map.trim();
    assert_eq!((map.get(&name(0)), map.floor()), (None, 8));
    // Whoever assigns has heard of that from the others, in the form in which they tell it.
    let mut writer = Assignments::default();
    for (of, bytes) in (0..).zip(&map.write()) {
        writer.merge(Assignments::read(of, bytes).unwrap());
    }
    assert_eq!(writer, map);
    let anew = Entry { number: writer.floor(), epoch: 3, writer: "b".to_owned(), ips: vec![ip(1)] };
    assert!(writer.put(name(0), anew.clone()));
    assert!(!writer.merge(away.clone()), "the release is older");
    assert_eq!((writer.get(&name(0)), merged(&away, &writer).get(&name(0))), (Some(&anew), Some(&anew)));
    // It never sinks, and leaves room above it.
    writer.trim();
    assert_eq!(writer.floor(), 8);
    writer.put(ObjectName::new("", "released"), release(MAX_COUNT, 0));
    assert!(writer.floor() < MAX_COUNT / 2 + 1);
}

#[test]
fn thousands_of_services_are_small_documents() {
    let mut map = Assignments::default();
    for number in 0..20_000 {
        let name = ObjectName::new("a-namespace-of-some-length", &format!("a-service-of-some-length-{number}"));
        let ips = vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([0x2001; 8])];
        map.put(name, Entry { number: 1, epoch: 1, writer: "a-node-of-some-length".to_owned(), ips });
    }
    let sizes: BTreeSet<usize> = map.write().iter().map(Vec::len).collect();
    assert!(sizes.first() > Some(&60_000) && sizes.last() < Some(&110_000), "{sizes:?}");
}

/// What a node with this view tells of it.
pub(super) fn glimpse(view: &View) -> Glimpse {
    let index = Documents::new(&Assignments::default(), Some(view)).index;
    let mut glimpse = Glimpse::default();
    glimpse.set_index(Some(&index));
    for (bucket, bytes) in (0..).zip(view.write()) {
        let named = index.digest(Slot { kept: Kept::Viewed, bucket });
        assert!(glimpse.put(bucket, named, &bytes));
    }
    glimpse
}

#[test]
fn what_differs_between_two_copies_is_told_by_name() {
    let services =
        |versions: &[(u64, u64)]| versions.iter().map(|(number, version)| (name(*number), *version)).collect();
    let own = View { services: services(&[(1, 7), (2, 7), (3, 7), (4, 7)]), pools: 1, rest: 1 };
    let theirs = View { services: services(&[(1, 7), (2, 8), (3, UNJUDGED), (5, 7)]), pools: 2, rest: 1 };
    let ours = Documents::new(&Assignments::default(), Some(&own)).index;
    let of = |number, glimpse: &Glimpse| glimpse.of(&name(number), &own, &ours);
    let seen = glimpse(&theirs);
    let expected = [Viewed::Has(7), Viewed::Has(8), Viewed::Unjudged, Viewed::Lacks, Viewed::Has(7), Viewed::Lacks];
    assert_eq!([1, 2, 3, 4, 5, 6].map(|number| of(number, &seen)), expected);
    assert_eq!(of(1, &Glimpse::default()), Viewed::Unknown);
    let told = [
        "it lacks default/s4",
        "only it has default/s5",
        "it has another version of default/s2 and 1 more",
        "its pools or namespaces differ",
    ];
    assert_eq!(seen.difference(&own, &ours, 1), told);
    assert_eq!(glimpse(&own).difference(&own, &ours, 1), Vec::<String>::new());
}

#[test]
fn nothing_is_decided_on_the_word_of_one_copy() {
    use council::{Agreement, Council};
    let view = |services: &[(u64, u64)], pools| {
        let services = services.iter().map(|(number, version)| (name(*number), *version)).collect();
        View { services, pools, rest: 1 }
    };
    let own = view(&[(1, 7)], 1);
    let ours = Documents::new(&Assignments::default(), Some(&own)).index;
    let cases = [
        (vec![], 1, Agreement::Agreed, false),
        (vec![view(&[(1, 7)], 1)], 2, Agreement::Agreed, false),
        (vec![view(&[(1, 8)], 1)], 2, Agreement::Differs(vec!["p0"]), false),
        (vec![view(&[(1, 7)], 2)], 2, Agreement::Differs(vec!["p0"]), false),
        (vec![view(&[(1, 7)], 1), view(&[(1, UNJUDGED)], 1)], 3, Agreement::Differs(vec!["p1"]), false),
        (vec![view(&[(1, 7)], 0)], 2, Agreement::Waits(vec!["p0"]), false),
        (vec![view(&[], 1)], 2, Agreement::Differs(vec!["p0"]), false),
        (vec![view(&[], 1), view(&[], 1)], 3, Agreement::Differs(vec!["p0", "p1"]), true),
        (vec![view(&[], 1), view(&[], 1)], 4, Agreement::Differs(vec!["p0", "p1"]), false),
    ];
    for (peers, members, about, gone) in cases {
        let glimpses: Vec<Glimpse> = peers.iter().map(glimpse).collect();
        let named = ["p0", "p1"].into_iter().zip(glimpses.iter().map(Some)).collect();
        let council = Council::new(&own, &ours, named, members);
        assert_eq!((council.about(&name(1)), council.is_gone(&name(1))), (about, gone), "{peers:?}");
    }
    assert_ne!(Council::new(&own, &ours, BTreeMap::new(), 1).about(&name(2)), Agreement::Agreed, "nobody has it");
    // This node lacks it: of two both must.
    for (other, gone) in [(view(&[(2, 7)], 1), false), (view(&[(2, UNJUDGED)], 1), false), (own.clone(), true)] {
        let glimpse = glimpse(&other);
        let council = Council::new(&own, &ours, [("p0", Some(&glimpse))].into(), 2);
        assert_ne!(council.about(&name(2)), Agreement::Agreed);
        assert_eq!(council.is_gone(&name(2)), gone, "{other:?}");
    }
}

#[test]
fn another_node_assigns_only_when_the_one_that_did_is_gone_or_a_better_one_comes() {
    use council::assigner;
    let all = ["node-a", "node-b", "node-c", "node-d"];
    let first = assigner(all).unwrap();
    for gone in all.into_iter().filter(|gone| *gone != first) {
        assert_eq!(assigner(all.into_iter().filter(|name| *name != gone)), Some(first));
    }
    assert_ne!(assigner(all.into_iter().filter(|name| *name != first)), Some(first));
    assert_eq!(assigner([]), None);
}
