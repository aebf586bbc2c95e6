//! Membership over a simulated clock and network with loss, partitions, restarts and replays.

use super::*;

mod documents;

/// Nodes, the time in milliseconds, and which pairs cannot talk.
struct World {
    nodes: BTreeMap<&'static str, Membership>,
    now: u64,
    cut: BTreeSet<(&'static str, &'static str)>,
    /// Every n-th datagram is lost; 0 is a network without loss.
    lose: u64,
    /// Milliseconds that a datagram takes.
    latency: u64,
    flying: Vec<(u64, &'static str, Vec<u8>)>,
    sent: u64,
    healed: Vec<&'static str>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl World {
    fn new() -> Self {
        let (nodes, cut) = (BTreeMap::new(), BTreeSet::new());
        Self { nodes, now: 0, cut, lose: 0, latency: 0, flying: Vec::new(), sent: 0, healed: Vec::new() }
    }

    fn start(&mut self, name: &'static str, boot: u64) {
        let now = Duration::from_millis(self.now);
        let mut node = Membership::new(name, boot, NAMES.map(str::to_owned), Some(Key::new(b"k")), now);
        node.set_configured();
        self.nodes.insert(name, node);
    }

    /// Sends what the node has to send.
    fn flush(&mut self, from: &'static str) {
        let Some(node) = self.nodes.get_mut(from) else { return };
        let outgoing = node.take_outgoing().into_iter().chain(node.take_parts());
        for (to, datagram) in outgoing.collect::<Vec<_>>() {
            let Some(to) = self.nodes.keys().copied().find(|name| *name == to) else { continue };
            self.sent += 1;
            let lost = self.lose > 0 && self.sent.is_multiple_of(self.lose);
            if !lost && !self.cut.contains(&(from, to)) {
                self.flying.push((self.now + self.latency, to, datagram));
            }
        }
    }

    /// The node says something now, and the others hear it.
    fn speak(&mut self, from: &'static str) {
        self.flush(from);
        self.land();
    }

    fn land(&mut self) {
        let due = self.flying.extract_if(.., |(at, ..)| *at <= self.now).collect::<Vec<_>>();
        for (_, to, datagram) in due {
            let Some(node) = self.nodes.get_mut(to) else { continue };
            if node.receive(Duration::from_millis(self.now), &datagram, |_| true) == Ok(Change::Healed) {
                self.healed.push(to);
            }
            self.flush(to);
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1;
            self.land();
            for name in NAMES {
                let now = Duration::from_millis(self.now);
                if let Some(node) = self.nodes.get_mut(name) {
                    node.tick(now);
                    self.speak(name);
                }
            }
        }
    }

    fn part(&mut self, one: &'static str, other: &'static str) {
        self.cut.extend([(one, other), (other, one)]);
    }

    #[track_caller]
    fn check(&self, name: &str, live: &[&str]) {
        let seen = self.nodes[name].live();
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), live, "as {name} sees it at {} ms", self.now);
    }
}

/// The first datagram that the node sends for it, to `a` where it sends to many.
fn said(node: &mut Membership, act: impl FnOnce(&mut Membership)) -> Vec<u8> {
    node.take_outgoing();
    act(node);
    node.take_outgoing().into_iter().next().unwrap().1
}

fn started() -> World {
    let mut world = World::new();
    for name in NAMES {
        world.start(name, 1);
    }
    world.run(100);
    for name in NAMES {
        world.check(name, &NAMES);
    }
    world
}

#[test]
fn nodes_that_hear_each_other_need_not_wait() {
    started();
}

#[test]
fn nodes_that_start_together_never_count_themselves_alone() {
    for late in 0..120 {
        let mut world = World::new();
        world.latency = 3;
        world.start("a", 1);
        world.start("c", 1);
        for _ in 0..200 {
            if world.now == late {
                world.start("b", 1);
            }
            world.run(1);
            // Who counts itself counts also every other that counts itself, so that there is one winner.
            let views: Vec<_> = world.nodes.iter().map(|(name, node)| (*name, node.live())).collect();
            let claiming = || views.iter().filter(|(name, live)| live.contains(*name));
            for (name, live) in claiming() {
                assert!(claiming().all(|(other, _)| live.contains(*other)), "{name} at {} ms: {views:?}", world.now);
            }
        }
        world.check("a", &NAMES);
    }
}

#[test]
fn a_node_that_stands_still_while_it_starts_waits_for_as_long_afterwards() {
    let mut world = World::new();
    world.start("a", 1);
    world.run(20);
    // Not even a turn of it meanwhile.
    world.now += 500;
    world.run(250);
    world.check("a", &[]);
    world.run(60);
    world.check("a", &["a"]);
}

#[test]
fn a_node_alone_waits_before_it_claims() {
    let mut world = World::new();
    world.start("a", 1);
    world.run(319);
    world.check("a", &[]);
    world.run(1);
    world.check("a", &["a"]);
    world.start("b", 1);
    world.run(319);
    world.check("a", &["a"]);
    world.run(45);
    world.check("a", &["a", "b"]);
    world.check("b", &["a", "b"]);
}

#[test]
fn an_unconfigured_node_never_claims() {
    let mut node = Membership::new("a", 1, ["b".to_owned(), "a".to_owned()], None, Duration::ZERO);
    (0..10).for_each(|beat| assert_eq!(node.tick(INTERVAL * beat), Change::Nothing));
    assert!(node.live().is_empty());
    node.set_configured();
    assert_eq!(node.tick(INTERVAL * 10), Change::Members);
    assert_eq!(node.live(), BTreeSet::from(["a".to_owned()]));
    assert_eq!(node.states().collect::<Vec<_>>(), [("b", PeerState::Unheard)]);
}

#[test]
fn a_silent_node_is_dead_within_the_bound() {
    let mut world = started();
    world.nodes.remove("c");
    world.run(119);
    world.check("a", &NAMES);
    world.run(42);
    world.check("a", &["a", "b"]);
    world.check("b", &["a", "b"]);
}

/// `a` and `b`, of which `b` falls silent at 0 ms while its kernel echoes what `a` asks until `echoes`; `a` itself stands
/// still for a stretch.
fn stalled(echoes: u64, still: std::ops::Range<u64>) -> (Membership, u64) {
    let ms = Duration::from_millis;
    let mut a = Membership::new("a", 1, ["b".to_owned()], None, ms(0));
    let mut b = Membership::new("b", 1, ["a".to_owned()], None, ms(0));
    a.probe_by(&[7; 32]);
    b.set_configured();
    b.phase = Phase::Alive;
    let heartbeat = said(&mut b, |b| assert_eq!(b.tick(ms(0)), Change::Nothing));
    assert_eq!(a.receive(ms(0), &heartbeat, |_| true), Ok(Change::Members));
    for now in (1..5000).filter(|now| !still.contains(now)) {
        a.tick(ms(now));
        for (_, probe) in a.take_outgoing() {
            let echo = echo(&probe, ms(now)).filter(|_| now < echoes);
            assert_eq!(
                echo.map(|echo| a.receive(ms(now), &echo, |_| true)).unwrap_or(Ok(Change::Nothing)),
                Ok(Change::Nothing)
            );
        }
        if !a.live().contains("b") {
            return (a, now);
        }
        let due = a.next();
        assert!(due > ms(now) && due <= ms(now) + INTERVAL, "at {now}: {due:?}");
    }
    panic!("b is never dead");
}

#[test]
fn a_peer_whose_kernel_answers_is_stalled_and_not_for_ever() {
    // Without an echo as ever; with echoes until their end; and never beyond three seconds.
    for (echoes, dead) in [(0, 160), (100, 240), (1000, 1120), (5000, 3000)] {
        assert_eq!(stalled(echoes, 0..0).1, dead, "echoes until {echoes} ms");
    }
}

#[test]
fn a_node_that_stood_still_asks_before_it_holds_a_stalled_peer_for_dead() {
    for length in [50, 130, 200, 1_000] {
        assert_eq!(stalled(5_000, 500..500 + length).1, 3_000, "still for {length} ms");
        assert!(stalled(500, 500..500 + length).1 < 500 + length + 200, "still for {length} ms");
    }
    assert_eq!(stalled(5_000, 500..4_000).1, 4_000);
}

#[test]
fn a_speaker_that_starts_again_behind_its_kernel_keeps_its_place() {
    for (phase, counts) in [(Phase::Resuming, true), (Phase::Joining, false)] {
        let mut world = started();
        world.run(10);
        world.start("c", 2);
        if phase == Phase::Resuming {
            world.nodes.get_mut("c").unwrap().answer_by_kernel();
        }
        let now = Duration::from_millis(world.now);
        let heartbeat = said(world.nodes.get_mut("c").unwrap(), |c| assert_eq!(c.tick(now), Change::Nothing));
        let a = world.nodes.get_mut("a").unwrap();
        a.receive(now, &heartbeat, |_| true).unwrap();
        assert_eq!(a.live().contains("c"), counts, "{phase:?}");
    }
    // Whoever only says that it resumes is dead after three seconds, too.
    let mut world = started();
    world.start("c", 2);
    let c = world.nodes.get_mut("c").unwrap();
    c.configured = false;
    c.answer_by_kernel();
    world.run(2900);
    world.check("a", &NAMES);
    world.run(101);
    world.check("a", &["a", "b"]);
}

#[test]
fn a_node_that_stood_still_answers_only_when_its_peers_have_spoken() {
    let mut world = started();
    let c = world.nodes.remove("c").unwrap();
    assert!(c.lease_until().unwrap() > Duration::from_millis(world.now));
    world.run(500);
    assert!(c.lease_until().unwrap() < Duration::from_millis(world.now));
    world.nodes.insert("c", c);
    let now = Duration::from_millis(world.now);
    world.nodes.get_mut("c").unwrap().tick(now);
    assert_eq!(world.nodes["c"].lease_until(), None);
    world.speak("c");
    // The others thought it dead: they speak at once.
    world.run(1);
    assert_eq!(world.nodes["c"].lease_until(), Some(now + LEASE));
    // Alone, it need not wait for anybody.
    world.nodes.retain(|name, _| *name == "c");
    world.run(500);
    let mut c = world.nodes.remove("c").unwrap();
    let later = Duration::from_secs(60);
    c.tick(later);
    assert_eq!(c.lease_until(), Some(later + LEASE));
}

#[test]
fn one_loss_in_five_kills_nobody() {
    let mut world = started();
    // Six datagrams a round: the loss moves from pair to pair.
    world.lose = 5;
    for _ in 0..2000 {
        world.run(1);
        world.check("a", &NAMES);
    }
}

#[test]
fn a_leaving_node_is_out_at_once() {
    let mut world = started();
    let now = Duration::from_millis(world.now);
    world.nodes.get_mut("c").unwrap().leave(now);
    world.speak("c");
    world.check("a", &["a", "b"]);
    world.check("c", &["a", "b"]);
    world.run(500);
    let state = world.nodes["a"].states().find(|(name, _)| *name == "c");
    assert_eq!(state, Some(("c", PeerState::Left)));
}

#[test]
fn both_sides_of_a_partition_go_on_and_are_told_when_it_heals() {
    let mut world = started();
    world.part("a", "b");
    world.part("a", "c");
    world.run(200);
    world.check("a", &["a"]);
    world.check("b", &["b", "c"]);
    assert!(world.healed.is_empty());
    world.cut.clear();
    world.run(45);
    for name in NAMES {
        world.check(name, &NAMES);
        assert!(world.healed.contains(&name), "{name}");
    }
}

#[test]
fn a_node_that_was_heard_no_more_but_heard_all_is_told_to_announce_anew() {
    let mut world = started();
    // b's heartbeats get lost, those to b arrive; c crashes for good at the same time.
    world.cut.extend([("b", "a"), ("b", "c")]);
    world.nodes.remove("c");
    world.run(200);
    world.check("a", &["a"]);
    world.check("b", &["a", "b"]);
    assert!(world.healed.is_empty(), "a crash is no reason to announce anew");
    world.cut.clear();
    world.run(85);
    world.check("a", &["a", "b"]);
    assert_eq!(world.healed, ["a", "b"]);
}

#[test]
fn a_restarted_node_counts_again_and_its_old_messages_do_not() {
    let mut world = started();
    let old = said(world.nodes.get_mut("c").unwrap(), |c| c.leave(Duration::from_millis(100)));
    world.start("c", 2);
    world.run(100);
    world.check("a", &NAMES);
    let now = Duration::from_millis(world.now);
    let a = world.nodes.get_mut("a").unwrap();
    assert_eq!(a.receive(now, &old, |_| true), Err(Rejected::EarlierRun("c".to_owned())));
    assert!(world.healed.is_empty());
    world.check("a", &NAMES);
}

#[test]
fn datagrams_from_elsewhere_are_refused_by_name() {
    let mut world = started();
    let mut from = |name: &str, key: Option<&[u8]>| {
        let mut node = Membership::new(name, 9, ["a".to_owned(), "x".to_owned()], key.map(Key::new), Duration::ZERO);
        let datagram = said(&mut node, |node| node.leave(Duration::ZERO));
        world.nodes.get_mut("a").unwrap().receive(Duration::from_millis(world.now), &datagram, |_| true)
    };
    assert_eq!(from("a", Some(b"k")), Err(Rejected::OwnName));
    assert_eq!(from("z", Some(b"k")), Err(Rejected::Stranger));
    assert_eq!(from("b", Some(b"x")), Err(Rejected::Message(MessageError::NotAuthentic)));
    assert_eq!(from("b", None), Err(Rejected::Message(MessageError::NotAuthentic)));
    assert_eq!(from("b", Some(b"k")), Ok(Change::Members));
}

#[test]
fn a_heartbeat_from_another_address_is_refused() {
    let mut world = started();
    let datagram = said(world.nodes.get_mut("b").unwrap(), |b| b.leave(Duration::from_millis(100)));
    let a = world.nodes.get_mut("a").unwrap();
    let now = Duration::from_millis(world.now);
    assert_eq!(a.receive(now, &datagram, |_| false), Err(Rejected::Misplaced("b".to_owned())));
    assert_eq!(a.receive(now, &datagram, |name| name == "b"), Ok(Change::Members));
}

#[test]
fn a_peer_is_known_by_the_hardware_addresses_that_it_told_last() {
    let (ours, theirs) = (Mac([2, 0, 0, 0, 0, 1]), [Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 3])]);
    let member = |name: &str, other: &str| Membership::new(name, 1, [other.to_owned()], None, Duration::ZERO);
    let (mut a, mut b) = (member("a", "b"), member("b", "a"));
    a.set_stations([ours]);
    let known = |a: &Membership| theirs.map(|mac| a.is_peers_station(mac));
    for told in [[true, true], [false, true], [false, false]] {
        b.set_stations(theirs.into_iter().zip(told).filter_map(|(mac, told)| told.then_some(mac)));
        let heartbeat = said(&mut b, |b| b.leave(Duration::ZERO));
        a.receive(Duration::ZERO, &heartbeat, |_| true).unwrap();
        assert_eq!(known(&a), told);
    }
    assert!(!a.is_peers_station(ours));
}

#[test]
fn who_learns_of_its_peers_late_listens_to_them_first() {
    let mut world = World::new();
    for name in ["a", "b"] {
        world.start(name, 1);
    }
    world.run(500);
    // The third one knows nobody yet, and nothing of what is desired; the others do not know it.
    for name in ["a", "b"] {
        let now = Duration::from_millis(world.now);
        world.nodes.get_mut(name).unwrap().set_peers(now, ["a".to_owned(), "b".to_owned()]);
    }
    let now = Duration::from_millis(world.now);
    world.nodes.insert("c", Membership::new("c", 1, [], Some(Key::new(b"k")), now));
    world.run(1000);
    world.check("c", &[]);
    let now = Duration::from_millis(world.now);
    let late = world.nodes.get_mut("c").unwrap();
    late.set_peers(now, NAMES.map(str::to_owned));
    late.set_configured();
    world.run(1);
    world.check("c", &[]);
    world.run(200);
    world.check("c", &[]);
    world.check("a", &["a", "b"]);
    for name in ["a", "b"] {
        let now = Duration::from_millis(world.now);
        world.nodes.get_mut(name).unwrap().set_peers(now, NAMES.map(str::to_owned));
        world.check(name, &["a", "b"]);
    }
    world.run(200);
    for name in NAMES {
        world.check(name, &NAMES);
    }
    // A node that is taken out counts no more, and what it says is a stranger's.
    for name in ["a", "b"] {
        let now = Duration::from_millis(world.now);
        world.nodes.get_mut(name).unwrap().set_peers(now, ["a".to_owned(), "b".to_owned()]);
    }
    world.run(200);
    world.check("a", &["a", "b"]);
}
