//! UDP flows when endpoints go: a connected client goes on with a live one (reference 6.8, I8), and what still serves is
//! left alone (reference 2.5, UDP reconcile).

use std::time::SystemTime;

use roadstead_lab::{DatagramsReport, Node, Place, Program, Running, wait_until};

use super::{
    fixture::{LATE, READY, SOON},
    gone::{Flow, Held},
    services::{Service, Via},
    stage::{From, Path, Stage},
};

/// One datagram at the very moment of the death may be lost, and the next is 50 ms later.
const AT_LEAST: u64 = 5;

#[test]
fn connected_clients_of_a_dead_backend_go_on_within_a_second() {
    let mut faults = 0;
    for path in Path::BOTH {
        let name = format!("udp-{path:?}").to_lowercase();
        let Some(mut stage) = Stage::new(&name, &["l"], &["r"]) else { return };
        faults += dies(&mut stage, path);
    }
    assert_eq!(faults, 0, "flows are stuck, see above");
}

/// Clients in pods of both nodes, on both hosts and outside are with `l`, which dies; then they are with `r`. How many
/// are not.
fn dies(stage: &mut Stage, path: Path) -> usize {
    let service = Service::new("dns", 31);
    stage.serve(&service.clone().endpoints(stage.ready(&["l"])));
    stage.start(&path.flags());
    let other = stage.lab.node("node-b");
    let mut command = other.command(Program::Agent).unwrap();
    command.args(path.flags());
    let agent = other.start_with(Program::Agent, command).unwrap();
    agent.wait_ready(READY).unwrap();
    let far = other.add_pod("far-pod").unwrap();
    let flows = start(stage, &service, other, &far);

    let echo = stage.echo("l");
    let died = SystemTime::now();
    echo.kill().unwrap();
    stage.serve(&service.clone().endpoints(stage.ready(&["r"])));
    // A second after the change all is over; the flows go on for a little longer.
    let over = || died.elapsed().unwrap_or_default() > 2 * SOON;
    wait_until(LATE, "flows have gone on", over).unwrap();
    let mut faults = 0;
    for (what, flow) in flows {
        let report = flow.finish().unwrap();
        let first = report.first_answer("r", died).map(|at| at.duration_since(died).unwrap());
        let lasts = report.spans.last().is_some_and(|span| span.name == "r" && span.answers >= AT_LEAST);
        let ok = report.spans[0].name == "l" && first.is_some_and(|first| first < SOON) && lasts;
        faults += usize::from(!ok);
        let word = if ok { "ok" } else { "NO" };
        println!("| {path:?} | {what:<44} | {word}: {first:?} {:?}", report.errors);
        if !ok {
            println!("{report:?}");
        }
    }
    faults
}

type Flows = Vec<(String, Running<DatagramsReport>)>;

fn start(stage: &Stage, service: &Service, other: &Node, far: &Place) -> Flows {
    let near = stage.node();
    let asks = [
        (stage.place(From::Pod), Via::ClusterIp, near),
        (stage.place(From::Pod), Via::NodePort, near),
        (near, Via::ClusterIp, near),
        (far, Via::ClusterIp, other.host()),
        (other.host(), Via::ClusterIp, other.host()),
        (stage.lab.client(), Via::NodePort, near),
        (stage.lab.client(), Via::NodePort, other.host()),
        (stage.lab.client(), Via::Balancer, near),
    ];
    let mut flows = Flows::new();
    for (place, via, node) in asks {
        for family in [0, 1] {
            let to = service.udp(via, node, family);
            let answered = || place.probe_once(&roadstead_lab::Probe::udp(to)).unwrap().ok;
            wait_until(LATE, &format!("{to} answers {}", place.name()), answered).unwrap();
            flows.push((format!("{} to {to}", place.name()), place.datagrams(to).unwrap()));
        }
    }
    flows
}

#[test]
fn flows_leave_an_endpoint_only_when_it_serves_no_more() {
    let Some(mut stage) = Stage::new("reconcile", &["l"], &["r"]) else { return };
    let service = Service::new("dns", 32);
    stage.serve(&service.clone().endpoints(stage.ready(&["l"])));
    stage.start(&Path::Socket.flags());
    let stage = &stage;
    let with = |endpoints: Vec<_>| stage.serve(&service.clone().endpoints(endpoints));
    let client = stage.lab.client();
    let ways = [Via::NodePort, Via::Balancer].into_iter().flat_map(|via| [(via, 0), (via, 1)]);
    let (mut flows, mut streams) = (Vec::new(), Vec::new());
    for (via, family) in ways {
        flows.push(Flow::to(client, service.udp(via, stage.node(), family), "l"));
        streams.push(Held::to(client, service.tcp(via, stage.node(), family), "l"));
    }
    let mut all_are = |name: Option<&str>, what: &str| {
        for flow in &flows {
            let is = || flow.ask().as_deref() == name;
            let took = wait_until(LATE, &format!("{what}: the flow to {} is with {name:?}", flow.to), is).unwrap();
            assert!(took < SOON, "{what}: only after {took:?}");
            assert!((0..5).all(|_| is()), "{what}: the flow to {} stays", flow.to);
        }
        // TCP is never touched.
        streams.iter_mut().for_each(|held| (0..3).for_each(|number| held.exchange(number)));
    };
    let [l, r] = ["l", "r"].map(|name| stage.endpoint(name));
    all_are(Some("l"), "ready");
    with(vec![l.clone().terminating(), r.clone()]);
    all_are(Some("l"), "serving still");
    with(vec![l.clone().ended(), r.clone()]);
    all_are(Some("r"), "serves no more");
    with(vec![r.clone()]);
    all_are(Some("r"), "gone");
    with(Vec::new());
    all_are(None, "nobody is left");
    with(vec![l]);
    all_are(Some("l"), "back");
}
