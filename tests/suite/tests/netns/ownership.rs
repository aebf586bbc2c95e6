//! Who answers while speakers die, stand still, leave and come back, and cables are cut: three nodes, both elections and both
//! policies, seen by a host that asks every few milliseconds. The counterpart of the simulation in `layer2`.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use roadstead_lab::{Review, Vigil, can_hurry, wait_for, wait_until};

use super::fixture::{LATE, READY, SOON};
use super::segment::{FIRST, Segment};

const PACE: Duration = Duration::from_millis(5);
/// How often a planned move may be looked at: a busy machine delivers nothing for some tens of milliseconds now and then.
const ATTEMPTS: usize = 4;
/// For how long one node must have answered alone to be called the owner.
const STEADY: Duration = Duration::from_millis(400);
/// By when those that know each other have agreed who owns what.
const SETTLED: Duration = Duration::from_millis(600);

struct Watched {
    segment: Segment,
    vigil: Vigil,
    flags: Vec<&'static str>,
}

impl Watched {
    fn start(name: &str, election: &'static str, partition: &'static str) -> Option<Self> {
        let mut segment = Segment::of(name, 3)?;
        let mut flags = vec!["--election", election, "--partition", partition];
        // On a busy machine an ordinary thread waits for longer than the peers do: what is tested is not the scheduler.
        if can_hurry() {
            flags.extend(["--realtime-priority", "10"]);
        }
        for node in ["node-a", "node-b", "node-c"] {
            segment.start(node, &flags);
        }
        let bystander = segment.lab.add_bystander().unwrap();
        let vigil = Vigil::neighbours(&segment.lab, &bystander, FIRST[0]).unwrap();
        vigil.pace(PACE);
        let watched = Self { segment, vigil, flags };
        watched.owner();
        Some(watched)
    }

    fn owner(&self) -> String {
        let owner = wait_for(LATE, "one node answers alone", || self.vigil.steady(STEADY));
        owner.unwrap_or_else(|error| panic!("{error}: {:?}", self.seen(Instant::now() - STEADY))).to_string()
    }

    fn seen(&self, from: Instant) -> Review {
        self.vigil.review(from, Instant::now())
    }

    /// What is done, and what is seen until another node has answered alone for a while.
    fn moves(&mut self, act: impl FnOnce(&mut Self, &str)) -> Review {
        let before = self.owner();
        let from = Instant::now();
        act(self, &before);
        wait_until(LATE, "another node answers", || self.vigil.steady(STEADY).is_some_and(|owner| *owner != *before))
            .unwrap();
        self.seen(from)
    }

    /// A speaker that did not run starts, and all is at rest again.
    fn returns(&mut self, node: &str) -> Review {
        let from = Instant::now();
        let flags = self.flags.clone();
        self.segment.start(node, &flags);
        self.at_rest(from)
    }

    /// Waits until all nodes know each other and one has answered alone for a while; what was seen until then.
    fn at_rest(&self, from: Instant) -> Review {
        let mut whole = None;
        let waited = wait_until(LATE, "all know each other, and one answers alone", || {
            whole = whole.filter(|_| self.segment.all_hear()).or_else(|| self.segment.all_hear().then(Instant::now));
            whole.is_some_and(|since| since.elapsed() > SETTLED) && self.vigil.steady(STEADY).is_some()
        });
        waited.unwrap_or_else(|error| panic!("{error}: {:?}", self.seen(from)));
        self.seen(from)
    }
}

/// For how long nobody answered. When answers came is no measure on a busy machine: some wait for their delivery.
fn unanswered(seen: &Review) -> Duration {
    PACE * u32::try_from(seen.lost).unwrap()
}

fn check(name: &str, election: &'static str, partition: &'static str) {
    let Some(mut watched) = Watched::start(name, election, partition) else { return };
    let (sticky, strict) = (election == "sticky", partition == "strict");
    let mut gone = String::new();

    let killed = watched.moves(|watched, owner| {
        watched.segment.take(owner).kill().unwrap();
        gone = owner.to_owned();
    });
    assert_alone(&killed, "killed");
    let successor = watched.owner();
    assert_alone(&watched.returns(&gone), "back");
    assert_eq!(watched.owner() == successor, sticky, "after the return of {gone}");

    // No more than falls into the moment between the silence of one and the first answer of the other; where a majority
    // decides, it is to hear of it in between.
    let moment = if strict { SOON / 10 } else { PACE };
    let is_swift = |(left, back): &(Review, Review)| unanswered(left) <= moment && unanswered(back) <= moment;
    let mut planned = Vec::new();
    while !planned.last().is_some_and(is_swift) {
        assert!(planned.len() < ATTEMPTS, "{planned:?}");
        let left = watched.moves(|watched, owner| {
            watched.segment.take(owner).terminate(READY).unwrap();
            gone = owner.to_owned();
        });
        assert_alone(&left, "left");
        let back = watched.returns(&gone);
        assert_alone(&back, "back");
        planned.push((left, back));
    }

    let stopped = watched.moves(|watched, owner| {
        watched.segment.speaker(owner).signal(Signal::SIGSTOP).unwrap();
        gone = owner.to_owned();
    });
    assert_alone(&stopped, "stopped");
    let from = Instant::now();
    watched.segment.speaker(&gone).signal(Signal::SIGCONT).unwrap();
    watched.at_rest(from);
    // What had queued up, half a second of questions, is not answered by the one that stood still.
    assert_alone(&watched.seen(from - STEADY), "resumed");

    let cut = watched.moves(|watched, owner| {
        watched.segment.lab.cut(watched.segment.lab.node(owner)).unwrap();
        gone = owner.to_owned();
    });
    assert_alone(&cut, "cut");
    let from = Instant::now();
    watched.segment.lab.mend(watched.segment.lab.node(&gone)).unwrap();
    assert_alone(&watched.at_rest(from), "healed");
}

/// Two never answered, and nobody did not for long.
#[track_caller]
fn assert_alone(seen: &Review, what: &str) {
    assert!(seen.doubles == 0 && unanswered(seen) < SOON, "{what}: {seen:?}");
}

#[test]
fn metallbs_election_where_all_announce_that_can() {
    check("own-metallb", "metallb", "availability");
}

#[test]
fn owners_that_keep_where_all_announce_that_can() {
    check("own-sticky", "sticky", "availability");
}

#[test]
fn metallbs_election_where_a_majority_backs() {
    check("own-metallb-q", "metallb", "strict");
}

#[test]
fn owners_that_keep_where_a_majority_backs() {
    check("own-sticky-q", "sticky", "strict");
}
