//! The agent's programs as the speaker's responder (`--responder ebpf`): a speaker that is killed and started again is not
//! missed by anybody who asks, one that is stopped falls silent when its lease ends, one that ends takes its word back.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use roadstead_lab::{Daemon, Lab, Node, Program, Review, Vigil, can_hurry, demo::Cluster, wait_until};

use super::fixture::{LATE, READY, lab, owner};

/// The longest lease of the kernel's responder, and when the peers take over, with room for a machine that is busy.
const LEASE: Duration = Duration::from_millis(2_500);
const TAKEN_OVER: Duration = Duration::from_secs(3);

/// A cluster whose speakers leave the answers to the agent's programs.
struct Stage<'lab> {
    lab: &'lab Lab,
    cluster: Cluster<'lab>,
    speakers: Vec<Daemon>,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        let cluster = Cluster::start(lab).unwrap();
        lab.nodes().iter().for_each(|node| cluster.kill(node, Program::Speaker).unwrap());
        let speakers: Vec<_> = lab.nodes().iter().map(start).collect();
        let stage = Self { lab, cluster, speakers };
        stage.speakers.iter().for_each(|speaker| speaker.wait_ready(READY).unwrap());
        for ip in stage.cluster.web {
            wait_until(LATE, "one node answers", || owner(lab, ip).is_some()).unwrap();
        }
        stage
    }

    /// The owner of the Service's addresses, and its place among the speakers.
    fn owner(&self) -> (String, usize) {
        let name = owner(self.lab, self.cluster.web[0]).unwrap();
        let place = self.lab.nodes().iter().position(|node| node.name() == name).unwrap();
        (name, place)
    }

    fn vigils(&self) -> [Vigil; 2] {
        let vigils = self.cluster.web.map(|ip| Vigil::neighbours(self.lab, self.lab.client(), ip).unwrap());
        for vigil in &vigils {
            wait_until(LATE, "one node answers all questions", || vigil.steady(SETTLED).is_some()).unwrap();
        }
        vigils
    }
}

/// How long one node must have answered alone before anything is done.
const SETTLED: Duration = Duration::from_millis(500);

fn start(node: &Node) -> Daemon {
    let mut command = node.command(Program::Speaker).unwrap();
    command.args(["--responder", "ebpf"]);
    // On a busy machine an ordinary thread waits for longer than the peers do: what is tested is not the scheduler.
    if can_hurry() {
        command.args(["--realtime-priority", "10"]);
    }
    node.start_with(Program::Speaker, command).unwrap()
}

fn assert_answered_by(review: &Review, name: &str, label: &str) {
    assert!(review.asked > 20 && review.lost == 0 && review.doubles == 0, "{label}: {review:?}");
    assert_eq!(review.answers.keys().map(String::as_str).collect::<Vec<_>>(), [name], "{label}: {review:?}");
}

#[test]
fn a_speaker_that_is_killed_and_started_again_is_not_missed() {
    let Some(lab) = lab("responder-killed") else { return };
    let mut stage = Stage::new(&lab);
    let (name, place) = stage.owner();
    let vigils = stage.vigils();
    for round in 0..3 {
        let from = Instant::now();
        stage.speakers[place].kill().unwrap();
        // Longer than a silent node counts as dead by itself.
        let dead = Instant::now() + Duration::from_millis(300);
        wait_until(LATE, "the peers have noticed", || Instant::now() > dead).unwrap();
        stage.speakers[place] = start(lab.node(&name));
        stage.speakers[place].wait_ready(READY).unwrap();
        let settled = Instant::now() + TAKEN_OVER;
        wait_until(LATE, "the time of a takeover is over", || Instant::now() > settled).unwrap();
        for (vigil, ip) in vigils.iter().zip(stage.cluster.web) {
            assert_answered_by(&vigil.review(from, Instant::now()), &name, &format!("{ip}, round {round}"));
        }
    }
}

#[test]
fn a_speaker_that_is_stopped_falls_silent_when_its_lease_ends() {
    let Some(lab) = lab("responder-stopped") else { return };
    let stage = Stage::new(&lab);
    let (name, place) = stage.owner();
    let vigils = stage.vigils();
    let other = stage.lab.nodes().iter().find(|node| node.name() != name).unwrap().name();
    let from = Instant::now();
    stage.speakers[place].signal(Signal::SIGSTOP).unwrap();
    for (vigil, ip) in vigils.iter().zip(stage.cluster.web) {
        let taken = || vigil.steady(SETTLED).as_deref() == Some(other);
        wait_until(LATE, "the other node has taken over", taken).unwrap();
        let review = vigil.review(from, Instant::now());
        assert_eq!(review.doubles, 0, "{ip}: {review:?}");
        // The kernel of the stopped one answered until its lease ended, a quarter of it being over at most.
        let answered = vigil.look(|log| log.last_answer(&name)).unwrap() - from;
        assert!(answered > LEASE / 2 && answered < LEASE + SETTLED / 2, "{ip}: {answered:?}");
    }
    let from = Instant::now();
    stage.speakers[place].signal(Signal::SIGCONT).unwrap();
    for (vigil, ip) in vigils.iter().zip(stage.cluster.web) {
        let one = || vigil.steady(SETTLED).is_some();
        wait_until(LATE, "one node answers alone", one).unwrap();
        let review = vigil.review(from, Instant::now());
        assert_eq!(review.lost, 0, "{ip}: {review:?}");
    }
}

#[test]
fn a_speaker_that_ends_takes_its_word_back() {
    let Some(lab) = lab("responder-ended") else { return };
    let stage = Stage::new(&lab);
    let (name, place) = stage.owner();
    let vigils = stage.vigils();
    let other = stage.lab.nodes().iter().find(|node| node.name() != name).unwrap().name();
    let from = Instant::now();
    assert!(stage.speakers[place].terminate(READY).unwrap().success());
    let ended = Instant::now();
    for (vigil, ip) in vigils.iter().zip(stage.cluster.web) {
        let taken = || vigil.steady(SETTLED).as_deref() == Some(other);
        wait_until(LATE, "the other node answers", taken).unwrap();
        let last = vigil.look(|log| log.last_answer(&name)).unwrap();
        assert!(last < ended + Duration::from_millis(20), "{ip}: {:?} after its end", last - ended);
        let review = vigil.review(from, Instant::now());
        assert!(review.lost <= 2 && review.doubles == 0, "{ip}: {review:?}");
    }
}
