//! Fuzzing what speakers say to each other: a pair of them that hears a datagram from somebody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use roadstead_model::ObjectName;

use crate::{
    election::{Candidate, Field},
    membership::{Change, Key, Membership, echo},
    ownership::{Election, Ownership, Partition, Rules},
    replica::{Assignments, BUCKETS, Documents, Entry, Glimpse, Index, View},
};

/// A datagram from whoever has not the key, made up, changed or sent again, changes nothing of who is alive, who claims
/// what and who answers; without a key, nothing but the configured peers becomes known. The same text of how it ended
/// for the same way through the code.
///
/// # Panics
/// When it changes something, which is what fuzzing looks for.
pub fn fuzz_datagram(bytes: &[u8]) -> String {
    let mut pair = Pair::new(Some(&Key::new(b"key")));
    pair.settle();
    let before = pair.told();
    let heard = pair.a.receive(pair.now, bytes, |_| true);
    assert!(heard.as_ref().is_err() || heard == Ok(Change::Nothing), "a forged datagram made {heard:?}");
    assert_eq!(before, pair.told(), "a forged datagram changed what is known, after {heard:?}");
    let mut open = Pair::new(None);
    let open_heard = open.a.receive(open.now, bytes, |_| true);
    let known: Vec<&str> = open.a.membership.states().map(|(name, _)| name).collect();
    assert_eq!(known, ["b"], "a stranger became a member after {open_heard:?}");
    format!("{heard:?} {open_heard:?}")
}

/// What two speakers say to each other, of every kind.
#[must_use]
pub fn datagram_seeds() -> Vec<Vec<u8>> {
    let seeds = [None, Some(Key::new(b"key"))].map(|key| {
        let mut pair = Pair::new(key.as_ref());
        pair.settle();
        let mut said = std::mem::take(&mut pair.said);
        // Then `b` is silent, and `a` asks its kernel.
        pair.now += Duration::from_millis(100);
        pair.a.tick(pair.now);
        let probes = pair.a.membership.take_outgoing().into_iter().map(|(_, bytes)| bytes);
        said.extend(probes.flat_map(|probe| [echo(&probe, Duration::ZERO).unwrap_or_default(), probe]));
        said.dedup();
        said
    });
    seeds.into_iter().flatten().filter(|bytes| !bytes.is_empty()).collect()
}

/// Two speakers in a network that loses nothing.
struct Pair {
    a: Ownership,
    b: Ownership,
    now: Duration,
    said: Vec<Vec<u8>>,
}

impl Pair {
    fn new(key: Option<&Key>) -> Self {
        let node = |name: &str, peer: &str| {
            let mut member = Membership::new(name, 7, [peer.to_owned()], key.cloned(), Duration::ZERO);
            member.probe_by(&[7; 32]);
            member.set_configured();
            let rules = Rules { election: Election::Metallb, partition: Partition::Availability };
            let mut node = Ownership::new(member, rules, BTreeMap::new());
            node.set_interfaces(Duration::ZERO, ["eth0".to_owned()].into());
            node.membership.set_documents(Duration::ZERO, documents(name));
            node
        };
        Self { a: node("a", "b"), b: node("b", "a"), now: Duration::ZERO, said: Vec::new() }
    }

    /// Until both are alive and each claims one address; all that was said is known then.
    fn settle(&mut self) {
        for _ in 0..6 {
            self.now += Duration::from_millis(20);
            for _ in 0..4 {
                self.turn();
            }
        }
    }

    fn turn(&mut self) {
        let (now, said) = (self.now, &mut self.said);
        for (speaker, hearer) in [(0, 1), (1, 0)] {
            let nodes = [&mut self.a, &mut self.b];
            let [a, b] = nodes;
            let (speaker, hearer) = if speaker < hearer { (a, b) } else { (b, a) };
            speaker.tick(now);
            let fields = [1, 2].map(|last| field(IpAddr::from([192, 0, 2, last]), speaker));
            speaker.decide(now, 1, &fields);
            speaker.membership.beat(now);
            let parts = speaker.membership.take_parts();
            for (_, bytes) in speaker.membership.take_outgoing().into_iter().chain(parts) {
                let _late_or_not = hearer.receive(now, &bytes, |_| true);
                said.push(bytes);
            }
        }
    }

    fn told(&self) -> String {
        let (a, now) = (&self.a, self.now);
        let states: Vec<_> = a.membership.states().collect();
        let standings: Vec<_> = a.membership.standings().collect();
        let claims: Vec<_> = a.claims().map(|(ip, claim)| (ip, claim, a.may_answer(now, ip))).collect();
        let waits = (a.membership.is_waiting(), a.membership.is_behind(now), a.membership.lease_until());
        let indices = a.membership.indices();
        format!("{states:?} {standings:?} {claims:?} {waits:?} {indices:?} {:?}", a.next())
    }
}

/// Each node has an entry of its own, and files that the other has not.
fn documents(node: &str) -> Documents {
    let (mut map, service) = (Assignments::default(), ObjectName::new("default", node));
    let ips = vec![IpAddr::from([192, 0, 2, 9]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 9])];
    map.put(service.clone(), Entry { number: 1, epoch: 2, writer: node.to_owned(), ips });
    Documents::new(&map, Some(&View { services: [(service, 7)].into(), pools: 1, rest: 2 }))
}

/// Bytes that a peer's document may have are read as the map and as a view: whatever is taken is written to the same bytes
/// again, and merged with what is known the one way as the other. The same text for the same way through the code.
///
/// # Panics
/// When one of these promises is broken, which is what fuzzing looks for.
pub fn fuzz_document(bytes: &[u8]) -> String {
    let (of, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let of = of % u8::try_from(BUCKETS).unwrap_or(1);
    let map = Assignments::read(of, bytes);
    if let Some(map) = &map {
        let written = map.write();
        assert_eq!(written.get(usize::from(of)).map(Vec::as_slice), Some(bytes), "a map is not written as it was read");
        let mut known = Assignments::default();
        for node in ["a", "b"] {
            let entry = Entry { number: 1, epoch: 2, writer: node.to_owned(), ips: vec![IpAddr::from([192, 0, 2, 9])] };
            known.put(ObjectName::new("default", node), entry);
        }
        let (mut one, mut other) = (known.clone(), map.clone());
        one.merge(map.clone());
        other.merge(known);
        assert_eq!(one, other, "which of two maps is merged into the other matters");
        let table = one.settle(|_, _| false, |_, _, _| false).table;
        let ips: Vec<&IpAddr> = table.values().flatten().collect();
        assert_eq!(ips.len(), ips.iter().collect::<BTreeSet<_>>().len(), "an address twice");
    }
    let mut glimpse = Glimpse::default();
    let viewed = glimpse.put(of, 1, bytes);
    let index = Index::read(bytes);
    if let Some(index) = &index {
        assert_eq!(Index::read(&index.write()).as_ref(), Some(index));
    }
    format!("{} {viewed} {}", map.map_or(0, |map| map.iter().count()), index.is_some())
}

/// Documents as a node tells them, each after its bucket.
#[must_use]
pub fn document_seeds() -> Vec<Vec<u8>> {
    let mut map = Assignments::default();
    let mut view = View::default();
    for number in 0..40_u8 {
        let service = ObjectName::new("default", &format!("s{number}"));
        let ips = if number % 3 == 0 { Vec::new() } else { vec![IpAddr::from([192, 0, 2, number])] };
        map.put(service.clone(), Entry { number: number.into(), epoch: 2, writer: "a".to_owned(), ips });
        view.services.insert(service, number.into());
    }
    let index = Documents::new(&map, Some(&view)).index.write();
    let numbered = |buckets: [Vec<u8>; BUCKETS]| (0..).zip(buckets).map(|(of, bytes)| [&[of][..], &bytes].concat());
    let index = [&[0][..], &index].concat();
    numbered(map.write()).chain(numbered(view.write())).chain([index]).collect()
}

/// The first address is `a`'s, the second `b`'s.
fn field(ip: IpAddr, node: &Ownership) -> Field {
    let mut candidates: Vec<Candidate> =
        node.membership.live().into_iter().map(|node| Candidate { distance: 0, hash: [0; 32], node }).collect();
    if ip == IpAddr::from([192, 0, 2, 2]) {
        candidates.reverse();
    }
    Field { ip, hashed: ip, nobody: None, candidates }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::check, *};

    #[test]
    fn forged_changed_and_repeated_datagrams_change_nothing() {
        let seeds = datagram_seeds();
        let kinds: BTreeSet<&[u8]> = seeds.iter().filter_map(|seed| seed.get(..4)).collect();
        assert_eq!(
            kinds.len(),
            8,
            "heartbeats, standings, questions, probes, echoes, indices and two kinds of buckets: {kinds:?}"
        );
        seeds.iter().for_each(|seed| drop(fuzz_datagram(seed)));
        check(&seeds, |bytes| drop(fuzz_datagram(bytes)));
    }

    #[test]
    fn mutated_documents_are_refused_or_merged_alike() {
        let seeds = document_seeds();
        assert!(seeds.iter().any(|seed| fuzz_document(seed).starts_with("2 ")));
        check(&seeds, |bytes| drop(fuzz_document(bytes)));
    }

    #[test]
    fn the_pair_that_is_fuzzed_is_alive_and_answers() {
        let mut pair = Pair::new(Some(&Key::new(b"key")));
        pair.settle();
        for (node, last) in [(&pair.a, 1), (&pair.b, 2)] {
            assert_eq!(node.membership.live().len(), 2);
            assert_eq!(node.claims().map(|(ip, _)| ip).collect::<Vec<_>>(), [IpAddr::from([192, 0, 2, last])]);
        }
    }
}
