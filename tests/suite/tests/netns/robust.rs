//! Whatever happens to the agent, to the endpoints and to the conntrack table: under 200 new connections a second and 50
//! long-lived ones, no request fails, nothing is reset, and the long-lived connections stay (reference 6.8, I1, I5, I6).

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use roadstead_lab::{HoldReport, LoadReport, Place, Probe, Running, program, wait_until};

use super::{
    fixture::{LATE, READY, Sources, answers_are, finish_all, served_for, source},
    services::{Service, Via},
    stage::{From, Path, Stage, metric},
};

/// New connections a second.
const RATE: u32 = 200;
/// Long-lived ones.
const LONG: u16 = 50;
/// Longer than the agent's tick and the grace after which it frees what nobody uses.
const SETTLED: Duration = Duration::from_millis(2_500);
/// The program of an agent whose maps have another layout.
const NEXT_AGENT: &str = "roadstead-next";

/// New and long-lived connections, from outside and from a pod, over both families.
struct Traffic {
    loads: Vec<(&'static str, Running<LoadReport>)>,
    holds: Vec<(&'static str, Running<HoldReport>)>,
}

impl Traffic {
    /// All of it leads to endpoints that stay.
    fn start(stage: &Stage, service: &Service) -> Self {
        let (client, pod, node) = (stage.lab.client(), stage.place(From::Pod), stage.node());
        let to = |via, family| service.tcp(via, node, family);
        let load = |place: &Place, to: SocketAddr, share: u32| place.load(to, RATE / share).unwrap();
        let loads = vec![
            ("new, by node port", load(client, to(Via::NodePort, 0), 4)),
            ("new, by balancer", load(client, to(Via::Balancer, 1), 4)),
            ("new, by balancer", load(client, to(Via::Balancer, 0), 4)),
            ("new, from a pod", load(pod, to(Via::ClusterIp, 1), 4)),
        ];
        let hold = |place: &Place, to: SocketAddr, share: u16| place.hold_many(to, LONG / share).unwrap();
        let holds = vec![
            ("held, by node port", hold(client, to(Via::NodePort, 1), 5)),
            ("held, by balancer", hold(client, to(Via::Balancer, 0), 5)),
            ("held, by balancer", hold(client, to(Via::Balancer, 1), 5)),
            ("held, from a pod", hold(pod, to(Via::ClusterIp, 0), 5)),
            ("held, from the node", hold(node, to(Via::Balancer, 0), 5)),
        ];
        Self { loads, holds }
    }

    /// Nothing failed, nothing broke.
    fn finish(self) {
        for (name, load) in self.loads {
            let report = load.finish().unwrap();
            println!(
                "| {name:<20} | {} answered, {} failed, longest gap {} us |",
                report.answered, report.failed, report.longest_gap_us
            );
            assert!(report.failed == 0 && report.answered > 50, "{name}: {report:?}");
        }
        for (name, hold) in self.holds {
            let report = hold.finish().unwrap();
            println!(
                "| {name:<20} | {} lines, at least {} each, slowest {} us |",
                report.exchanged, report.fewest, report.slowest_us
            );
            assert!(report.broken == 0 && report.fewest > 10, "{name}: {report:?}");
        }
    }
}

#[test]
fn agents_that_end_are_killed_or_upgraded_are_not_noticed() {
    let paths = Path::BOTH.map(|path| (path, format!("robust-{path:?}").to_lowercase()));
    for (path, name) in paths {
        let Some(mut stage) = Stage::new(&name, &["l"], &["r"]) else { return };
        let service = Service::new("steady", 51).endpoints(stage.ready(&["l", "r"]));
        stage.serve(&service);
        stage.start(&path.flags());
        let traffic = Traffic::start(&stage, &service);
        served(&stage, &service, SETTLED / 2);
        // Restarted.
        stage.start(&path.flags());
        served(&stage, &service, SETTLED);
        // Killed, and absent for a while.
        stage.kill();
        served(&stage, &service, SETTLED / 4);
        stage.start(&path.flags());
        served(&stage, &service, SETTLED);
        // Upgraded to another layout of the maps.
        if let Some(next) = upgraded_agent() {
            stage.start_program(&next, &path.flags());
            served(&stage, &service, SETTLED);
        }
        println!("\nAgents end and begin, {path:?} path");
        traffic.finish();
    }
}

const CHANGES: usize = 500;

#[test]
fn a_thousand_changes_of_endpoints_move_nobody() {
    let Some(mut stage) = Stage::new("changes", &["l", "l2"], &["r", "r2"]) else { return };
    let (service, other) = (Service::new("steady", 52), Service::new("swapped", 54));
    // One that grows and shrinks, and one of which nothing stays: a lookup between two writes must find either set.
    let texts = [(&["l", "r", "l2", "r2"][..], "l"), (&["l", "r"], "r")].map(|(steady, swapped)| {
        let [steady, swapped] = [(&service, steady), (&other, &[swapped][..])]
            .map(|(service, names)| service.clone().endpoints(stage.ready(names)).yaml());
        format!("{steady}---\n{swapped}")
    });
    stage.apply("changing.yaml", &texts[1]);
    stage.start(&Path::Socket.flags());
    let traffic = Traffic::start(&stage, &service);
    let swapped: Vec<_> = [(From::External, Via::NodePort), (From::Pod, Via::ClusterIp)]
        .map(|(from, via)| stage.place(from).load(other.tcp(via, stage.node(), 0), RATE / 2).unwrap())
        .into();
    let started = Instant::now();
    // Each time two endpoints of the one come or go, and the only one of the other is replaced.
    let seen = texts.iter().cycle().take(CHANGES).filter(|text| stage.change("changing.yaml", text)).count();
    println!("\n{CHANGES} changes of 4 endpoints in {:.1?}, {seen} of them seen", started.elapsed());
    // Where each is a file of its own, none is missed.
    assert!(seen >= if source() == Sources::Server { CHANGES * 9 / 10 } else { CHANGES }, "{seen}");
    let last = service.tcp(Via::NodePort, stage.node(), 0);
    let settled = || answers_are(stage.lab.client(), &Probe::tcp(last), &["l", "r"]);
    wait_until(LATE, "the last change is followed", settled).unwrap();
    traffic.finish();
    for load in swapped {
        let report = load.finish().unwrap();
        assert!(report.failed == 0 && report.names.len() == 2 && report.answered > 100, "{report:?}");
    }
}

#[test]
fn a_full_conntrack_table_keeps_what_it_has() {
    let Some(mut stage) = Stage::new("full", &["l"], &["r"]) else { return };
    let service = Service::new("steady", 53).endpoints(stage.ready(&["l", "r"]));
    stage.serve(&service);
    let entries = (4 * u32::from(LONG)).to_string();
    stage.start(&["--conntrack-entries", &entries]);
    let (client, node) = (stage.lab.client(), stage.node());
    let ways = [(Via::NodePort, 0), (Via::NodePort, 1), (Via::Balancer, 0), (Via::Balancer, 1)];
    let holds = ways.map(|(via, family)| client.hold_many(service.tcp(via, node, family), LONG / 4).unwrap());
    let datagrams = ways.map(|(via, family)| client.datagrams(service.udp(via, node, family)).unwrap());
    // Every flow takes two entries, so these do not fit. What does not fit fails, and moves its counter.
    let loads = ways.map(|(via, family)| client.load(service.tcp(via, node, family), RATE / 4).unwrap());
    let full = || metric(stage.agent(), "roadstead_agent_not_forwarded_total{").is_some();
    wait_until(READY, "the table is full", full).unwrap();
    // In-cluster traffic of the socket path needs no entry.
    let inside = Probe::tcp(service.tcp(Via::ClusterIp, node, 0));
    served_for(SETTLED, stage.place(From::Pod), &inside, &["l", "r"]);
    let failed: u64 = finish_all(loads).iter().map(|report| report.failed).sum();
    assert!(failed > 0, "the table was never full");
    for hold in holds {
        let report = hold.finish().unwrap();
        assert!(report.broken == 0 && report.fewest > 10, "{report:?}");
        println!(
            "| held | {} lines, at least {} each, slowest {} us |",
            report.exchanged, report.fewest, report.slowest_us
        );
    }
    for flow in datagrams {
        let report = flow.finish().unwrap();
        let answered: u64 = report.spans.iter().map(|span| span.answers).sum();
        assert!(report.sent - answered <= 1 && report.spans.len() == 1, "a flow lost packets: {report:?}");
    }
    // Expired flows make room again.
    let served = || answers_are(client, &Probe::tcp(service.tcp(Via::NodePort, node, 0)), &["l", "r"]);
    wait_until(ROOM, "new connections are served again", served).unwrap();
}

/// Half-open flows are kept for 20 s, closed ones for 30 s.
const ROOM: Duration = Duration::from_secs(45);

/// An agent with another layout of its maps, where one is built.
fn upgraded_agent() -> Option<PathBuf> {
    let next = program(NEXT_AGENT).ok();
    if next.is_none() {
        eprintln!("no {NEXT_AGENT} is built, which cargo xtask test does: the upgrade is left out");
    }
    next
}

/// Traffic of this test's own, for as long as something could go wrong.
fn served(stage: &Stage, service: &Service, time: Duration) {
    let to = service.tcp(Via::NodePort, stage.node(), 0);
    served_for(time, stage.lab.client(), &Probe::tcp(to), &["l", "r"]);
}
