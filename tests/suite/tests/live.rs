//! The operator's commands on live maps: `trace`, `explain` and `status` beside programs that packets run through.
//!
//! Needs root, a BPF file system and the built `roadstead`; says so and passes where it is not root.

#![forbid(unsafe_code)]

#[cfg(test)]
mod live {
    pub(crate) mod bench;
}

use std::{process::Stdio, time::Instant};

use live::bench::{BACKEND, Bench, CLIENT, Running, SERVICE, wait};
use roadstead_abi::{Addr, Be16, hook};
use roadstead_dataplane::{
    trace::{TraceError, Tracer},
    traffic::TrafficMaps,
};
use serde_json::{Value, json};

#[test]
fn events_are_told_to_one_tracer_while_it_listens() {
    let Some(bench) = Bench::open("tracer") else { return };
    let mut tracer = Tracer::open(&bench.pins).unwrap();
    assert!(matches!(Tracer::open(&bench.pins), Err(TraceError::Busy)));
    assert_eq!((bench.send(1, 53), tracer.next_event()), (-1, None), "nobody has asked yet");
    tracer.renew().unwrap();
    assert_eq!((bench.send(2, 53), bench.send(2, 53), bench.send(3, 54)), (-1, -1, 7));
    let (opened, refused) = (tracer.next_event().unwrap(), tracer.next_event().unwrap());
    assert_eq!(tracer.next_event(), None, "a flow is told once");
    assert_eq!((opened.key.sport, opened.key.dport, opened.reason), (Be16::new(2), Be16::new(53), 0));
    assert_eq!((opened.backend, opened.backend_port), (Addr::v4([127, 0, 0, 9]), Be16::new(5_353)));
    assert_eq!((opened.hook, opened.service, opened.ifindex), (hook::UPLINK_IN, SERVICE, 1));
    assert_eq!((refused.key.src, refused.reason, refused.service), (Addr::v4(CLIENT), 1, SERVICE + 1));
    drop(tracer);
    assert_eq!(bench.send(4, 53), -1);
    assert_eq!(Tracer::open(&bench.pins).unwrap().next_event(), None, "what was told before is forgotten");
}

#[test]
fn traffic_is_counted_by_service_and_backend() {
    let Some(bench) = Bench::open("traffic") else { return };
    for sport in [1, 2, 2] {
        assert_eq!(bench.send(sport, 53), -1);
    }
    let maps = TrafficMaps::open(&bench.pins).unwrap();
    for (counters, id) in [(maps.services(1_500).unwrap(), SERVICE), (maps.backends(2).unwrap(), BACKEND)] {
        let of = counters[id as usize];
        assert_eq!((of.connections, of.in_packets, of.in_bytes), (2, 3, 3 * (14 + 20 + 8 + 7)));
        assert_eq!((of.out_packets, counters[0].connections), (0, 0));
    }
    assert_eq!((maps.services(1_500).unwrap().len(), maps.services(u32::MAX).unwrap().len()), (1_500, 65_536));
    let started = Instant::now();
    assert_eq!(maps.services(10_000).unwrap().len() + maps.backends(50_000).unwrap().len(), 60_000);
    println!("60000 counters read in {:?}", started.elapsed());
}

#[test]
fn the_commands_answer_from_live_maps() {
    let Some(bench) = Bench::open("commands") else { return };
    if let Err(error) = roadstead_lab::program("roadstead") {
        panic!("{error:#}");
    }
    let trace = ["trace", "198.51.100.10", "udp", "--count", "2", "-o", "json"];
    let begin = || Running(Some(bench.command(&trace).stdout(Stdio::piped()).spawn().unwrap()));
    let mut running = begin();
    wait("no trace holds the ring", || {
        // A look takes the ring for a moment, and a trace that comes just then ends: then another one is begun.
        if running.has_ended() {
            running = begin();
        }
        matches!(Tracer::open(&bench.pins), Err(TraceError::Busy))
    });
    // Flows until one is told: the lock comes a moment before the first renewal.
    let mut sport = 1;
    wait("the trace does not end", || {
        sport += 1;
        bench.send(sport, if sport % 2 == 0 { 53 } else { 54 });
        running.has_ended()
    });
    let output = running.finish();
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    let forwarded = lines.iter().find(|line| line["verdict"] == "forward").unwrap();
    assert_eq!(forwarded["endpoint"], "127.0.0.9:5353");
    assert_eq!(forwarded["service"], format!("#{SERVICE}"));
    let refused = lines.iter().find(|line| line["verdict"] == "reject").unwrap();
    assert_eq!(refused["reason"], "no_endpoints");

    let explained: Value =
        serde_json::from_str(&bench.output(&["explain", "192.0.2.9", "198.51.100.10:53/udp", "-o", "json"])).unwrap();
    let expected = json!({
        "verdict": "forward", "service": format!("#{SERVICE}"), "port": null, "kind": "LoadBalancer",
        "endpoints": ["127.0.0.9:5353"], "masquerade": false, "affinity": false, "rule": "load-balancer, policy Cluster",
    });
    assert_eq!(explained, expected);

    let services = bench.output(&["status", "--services"]);
    let row = services.lines().find(|line| line.starts_with(&format!("#{SERVICE} "))).unwrap();
    assert_ne!(row.split_whitespace().nth(1), Some("0"), "{services}");
    let status = bench.output(&["status"]);
    assert!(status.contains("SERVICES") && status.contains("no_endpoints"), "{status}");
}
