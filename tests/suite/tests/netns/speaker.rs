//! A speaker that is killed: the other node answers for its addresses; started again, exactly one does.

use std::time::Duration;

use roadstead_lab::{Lab, Probe, Program, demo::Cluster, wait_until, who_has};

use super::fixture::{LATE, SOON, WEB, assert_answered, assigned, lab, owner};

#[test]
fn addresses_of_a_killed_speaker_move_and_exactly_one_answers_again() {
    let Some(lab) = lab("speaker") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let before = assigned(&cluster, "web");
    assert_eq!(before, cluster.web);
    let all: Vec<_> = cluster.web.into_iter().chain(cluster.ingress).collect();
    let first = owner(&lab, all[0]).unwrap();
    let other = lab.nodes().iter().find(|node| node.name() != first).unwrap().name();
    cluster.kill(lab.node(&first), Program::Speaker).unwrap();
    let moved = || all.iter().all(|ip| owner(&lab, *ip).as_deref() == Some(other));
    // One look at four addresses takes 200 ms.
    let took = wait_until(LATE, "the other node answers for all", moved).unwrap();
    assert!(took < SOON + SOON / 2, "only after {took:.1?}");
    for to in Cluster::at(cluster.web, 9000) {
        assert_answered(lab.client(), &Probe::tcp(to), &WEB);
    }
    cluster.restart(lab.node(&first), Program::Speaker).unwrap();
    wait_until(LATE, "the first node is back", || owner(&lab, all[0]).as_deref() == Some(&first)).unwrap();
    wait_until(LATE, "one node alone answers for each", || all.iter().all(|ip| one_answers(&lab, *ip))).unwrap();
    assert_eq!(assigned(&cluster, "web"), before, "a restart assigns nothing anew");
}

/// Over a longer window than an election takes.
fn one_answers(lab: &Lab, ip: std::net::IpAddr) -> bool {
    who_has(lab.client(), ip, Duration::from_millis(400)).unwrap().len() == 1
}
