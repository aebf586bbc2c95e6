//! What must hold whatever happens (reference 6.8), beside what other tests show.
//!
//! | invariant | is shown by |
//! |---|---|
//! | I1 a flow stays with its backend while that serves | `robust.rs`: held connections; `udp.rs`: endpoints that terminate |
//! | I2 a client hears only the address that it asked | `matrix.rs`, `mtu.rs`: captures; `expect.rs`: every answer |
//! | I3 a change moves few flows under Maglev | `userspace/dataplane`: unit tests of the tables |
//! | I4 a lookup finds the old set or the new one | `robust.rs`: 2,000 endpoint changes; `userspace/dataplane`: order of writes |
//! | I5 restart, upgrade, kill: nothing fails | `robust.rs`, `agent.rs` |
//! | I6 a full table loses nothing that it holds | `robust.rs`: the table is full |
//! | I7 pairs of conntrack are whole | here |
//! | I8 UDP clients of a dead backend go on | `udp.rs` |
//! | I9 verdicts in both families and both paths | `matrix.rs`, `verdicts.rs`, `picks.rs` |
//! | I10 what is not forwarded is counted | here |
//! | I11 path MTU is learnt in both directions | `mtu.rs`; `tests/suite/tests/packets` |
//! | I12 `explain` says what the programs do | `tests/suite/tests/differential.rs`: random states |
//! | I13 nothing grows with the number of Services | `tests/bench` |

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use roadstead_lab::{Lab, Probe, program, wait_until};

use super::{
    fixture::{LATE, READY, finish_all, served_for},
    services::{Service, UDP, Via},
    stage::{BLOCKED, From, Path, Stage},
};

/// I10: the counters move by exactly the packets that were sent, each under its reason.
#[test]
fn every_packet_that_is_not_forwarded_is_counted() {
    let Some(mut stage) = Stage::new("counted", &["l"], &["r"]) else { return };
    let none = Service::new("none", 61);
    let away = Service::new("away", 62).external_local().endpoints(stage.ready(&["r"]));
    let bounded = Service::new("bounded", 63)
        .spec("loadBalancerSourceRanges: [203.0.113.0/25, \"fd99::/112\"]")
        .endpoints(stage.ready(&["l"]));
    [&none, &away, &bounded].iter().for_each(|service| stage.serve(service));
    stage.start(&Path::Packet.flags());
    let (client, pod, node) = (stage.lab.client(), stage.place(From::Pod), stage.node());
    let unallocated = Service::new("no-service", 99);
    let mut sent = BTreeMap::<&str, u64>::new();
    for family in [0, 1] {
        let wrong_port = std::net::SocketAddr::new(none.cluster()[family], UDP + 1);
        let asks = [
            ("no-endpoints", client, Probe::udp(none.udp(Via::NodePort, node, family)), 7),
            ("no-endpoints", pod, Probe::udp(none.udp(Via::ClusterIp, node, family)), 5),
            ("no-local-endpoints", client, Probe::udp(away.udp(Via::Balancer, node, family)), 4),
            ("source-range", client, Probe::udp(bounded.udp(Via::Balancer, node, family)).from(BLOCKED[family]), 3),
            ("unknown-port", client, Probe::udp(wrong_port), 6),
            ("unknown-port", pod, Probe::udp(wrong_port), 2),
            ("unallocated", client, Probe::udp(unallocated.udp(Via::ClusterIp, node, family)), 8),
            ("unallocated", pod, Probe::udp(unallocated.udp(Via::ClusterIp, node, family)), 1),
        ];
        for (reason, place, probe, count) in asks {
            let answers = place.probe(&probe.clone().count(count).timeout(Duration::from_millis(20))).unwrap();
            assert!(answers.iter().all(|answer| !answer.ok), "{probe:?}: {}", answers[0].outcome());
            *sent.entry(reason).or_default() += u64::from(count);
        }
    }
    let total: u64 = sent.values().sum();
    let counted = || not_forwarded(&stage);
    let all = || counted().values().sum::<u64>() >= total;
    wait_until(LATE, "all are counted", all).unwrap_or_else(|error| panic!("{error}: {:?} of {sent:?}", counted()));
    println!("sent {sent:?}\ncounted {:?}", counted());
    // Until the counters are looked at once more; packets that are forwarded move none.
    stage.serve(&none.clone().endpoints(stage.ready(&["l"])));
    let to = none.tcp(Via::NodePort, node, 0);
    served_for(Duration::from_secs(6), client, &Probe::tcp(to), &["l"]);
    assert_eq!(counted().values().sum::<u64>(), total, "sent {sent:?}, counted {:?}", counted());
    assert_eq!(counted().len(), sent.len(), "one counter a reason: sent {sent:?}, counted {:?}", counted());
}

/// Packets by reason, of all Services.
fn not_forwarded(stage: &Stage) -> BTreeMap<String, u64> {
    let (_, text) = stage.agent().get("/metrics").unwrap();
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("roadstead_agent_not_forwarded_total{")) {
        let reason = line.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
        let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        *counts.entry(reason).or_default() += count;
    }
    counts.retain(|_, count| *count > 0);
    counts
}

/// I7: of no flow there is one entry alone, also after the table was full and agents were killed in the middle.
#[test]
fn pairs_of_conntrack_are_whole() {
    let Some(mut stage) = Stage::new("pairs", &["l"], &["r"]) else { return };
    let service = Service::new("pairs", 64).endpoints(stage.ready(&["l", "r"]));
    stage.serve(&service);
    stage.start(&[Path::Packet.flags().as_slice(), &["--conntrack-entries", "300"]].concat());
    // Some that are there at the end, when those of the others have expired.
    let held = [0, 1].map(|family| stage.lab.client().hold_many(service.tcp(Via::Balancer, stage.node(), family), 10));
    let held = held.map(Result::unwrap);
    let asks = [(From::External, Via::NodePort), (From::External, Via::Balancer), (From::Pod, Via::ClusterIp)];
    let flows = asks.into_iter().flat_map(|ask| [(ask, 0), (ask, 1)]);
    let loads: Vec<_> = flows
        .map(|((from, via), family)| stage.place(from).load(service.tcp(via, stage.node(), family), 100).unwrap())
        .collect();
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        stage.kill();
        stage.start(&Path::Packet.flags());
    }
    let failed: u64 = finish_all(loads).iter().map(|report| report.failed).sum();
    assert!(failed > 0, "the table was never full");
    wait_until(READY, "every entry has its other half", || halves(&stage.lab).is_empty())
        .unwrap_or_else(|error| panic!("{error}: {:#?}", halves(&stage.lab)));
    for hold in held {
        let report = hold.finish().unwrap();
        assert_eq!(report.broken, 0, "{report:?}");
    }
}

/// Entries whose other half is not there.
fn halves(lab: &Lab) -> Vec<String> {
    let mut status = Command::new(program("roadstead").unwrap());
    let output = status.args(["status", "--maps", "--bpffs"]).arg(lab.node("node-a").bpffs()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // "TCP A -> B becomes C -> D ...": its other half is "TCP D -> C becomes B -> A".
    let entries: BTreeMap<_, _> = text.lines().filter_map(entry).map(|entry| (entry, ())).collect();
    assert!(!entries.is_empty(), "a flow is in the table:\n{text}");
    let other = |[protocol, a, b, c, d]: [&str; 5]| entries.contains_key(&[protocol, d, c, b, a]);
    entries.keys().filter(|entry| !other(**entry)).map(|entry| entry.join(" ")).collect()
}

fn entry(line: &str) -> Option<[&str; 5]> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [protocol, a, "->", b, "becomes", c, "->", d, ..] => Some([protocol, a, b, c, d]),
        _ => None,
    }
}
