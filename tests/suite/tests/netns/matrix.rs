//! The flow matrix of kube-proxy (`TestInternalExternalMasquerade`, pkg/proxy/nftables/proxier_test.go): 27 flows in four
//! configurations, in both families, in the socket path and in the packet path.
//!
//! P is a pod on the node, N the node itself, X a client outside. `svcA` has no policy, `svcB` external policy Local,
//! `svcC` internal policy Local. Each has one endpoint on this node, l, and one on another, r. A cell names who answers
//! new connections, and whether they see the node's address (masq) or the client's (no-masq).

use std::{collections::BTreeSet, thread};

use super::{
    expect::{Flow, Seen, protocol_and_destination, source},
    fixture::needs_files,
    services::{Service, Via},
    stage::{Detector, From, Path, Stage},
};

/// In the default configuration.
const MATRIX: &str = "
    | Flow        | svcA           | svcB (eTP Local) | svcC (iTP Local) |
    |-------------|----------------|------------------|------------------|
    | P→ClusterIP | {l,r} no-masq  | {l,r} no-masq    | {l}   no-masq    |
    | P→NodePort  | {l,r} masq     | {l,r} no-masq    | {l,r} masq       |
    | P→LB IP     | {l,r} masq     | {l,r} no-masq    | {l,r} masq       |
    | N→ClusterIP | {l,r} masq     | {l,r} masq       | {l}   masq       |
    | N→NodePort  | {l,r} masq     | {l,r} masq       | {l,r} masq       |
    | N→LB IP     | {l,r} masq     | {l,r} masq       | {l,r} masq       |
    | X→ClusterIP | {l,r} masq     | {l,r} masq       | {l}   masq       |
    | X→NodePort  | {l,r} masq     | {l}   no-masq    | {l,r} masq       |
    | X→LB IP     | {l,r} masq     | {l}   no-masq    | {l,r} masq       |
";
/// Where the node does not know the pods' networks: the rows that differ.
const NO_LOCAL_DETECTOR: &str = "
    | P→NodePort  | {l,r} masq     | {l}   no-masq    | {l,r} masq       |
    | P→LB IP     | {l,r} masq     | {l}   no-masq    | {l,r} masq       |
    | N→ClusterIP | {l,r} no-masq  | {l,r} no-masq    | {l}   no-masq    |
    | X→ClusterIP | {l,r} no-masq  | {l,r} no-masq    | {l}   no-masq    |
";
/// With `--masquerade-all`.
const MASQUERADE_ALL: &str = "
    | P→ClusterIP | {l,r} masq     | {l,r} masq       | {l}   masq       |
";
/// With both.
const BOTH: &str = "
    | P→ClusterIP | {l,r} masq     | {l,r} masq       | {l}   masq       |
    | P→NodePort  | {l,r} masq     | {l}   no-masq    | {l,r} masq       |
    | P→LB IP     | {l,r} masq     | {l}   no-masq    | {l,r} masq       |
";
/// Mode `preserve`, the rows that differ: the client's address is kept wherever the answer surely comes back here.
const PRESERVE: &str = "
    | P→NodePort  | {l,r} no-masq  | {l,r} no-masq    | {l,r} no-masq    |
    | P→LB IP     | {l,r} no-masq  | {l,r} no-masq    | {l,r} no-masq    |
    | X→ClusterIP | {l,r} masq r   | {l,r} masq r     | {l}   masq r     |
    | X→NodePort  | {l,r} masq r   | {l}   no-masq    | {l,r} masq r     |
    | X→LB IP     | {l,r} masq r   | {l}   no-masq    | {l,r} masq r     |
";

/// One way to run the node, and the rows by which it differs from the default.
struct Configuration {
    name: &'static str,
    detector: Detector,
    flags: &'static [&'static str],
    rows: &'static str,
}

const KUBE_PROXY: [Configuration; 4] = [
    Configuration { name: "default", detector: Detector::PodCidrs, flags: &["--masquerade", "kube-proxy"], rows: "" },
    Configuration {
        name: "no local detector",
        detector: Detector::None,
        flags: &["--masquerade", "kube-proxy"],
        rows: NO_LOCAL_DETECTOR,
    },
    Configuration {
        name: "masquerade-all",
        detector: Detector::PodCidrs,
        flags: &["--masquerade", "kube-proxy", "--masquerade-all"],
        rows: MASQUERADE_ALL,
    },
    Configuration {
        name: "masquerade-all, no local detector",
        detector: Detector::None,
        flags: &["--masquerade", "kube-proxy", "--masquerade-all"],
        rows: BOTH,
    },
];

#[test]
fn the_flow_matrix_is_that_of_kube_proxy() {
    let Some(mut stage) = stage("matrix") else { return };
    let faults: usize = KUBE_PROXY.iter().map(|configuration| hold(&mut stage, configuration)).sum();
    assert_eq!(faults, 0, "cells differ, see the tables above");
}

#[test]
fn mode_preserve_keeps_the_clients_address_where_it_can() {
    let Some(mut stage) = stage("preserve") else { return };
    // The mode is the default.
    let preserve = Configuration { name: "mode preserve", detector: Detector::PodCidrs, flags: &[], rows: PRESERVE };
    assert_eq!(hold(&mut stage, &preserve), 0, "cells differ, see the tables above");
}

/// The endpoints, and the three Services.
fn stage(name: &str) -> Option<Stage> {
    let stage = Stage::new(name, &["l"], &["r"])?;
    services().iter().for_each(|service| {
        stage.serve(&service.clone().endpoints(stage.ready(&["l", "r"])));
    });
    Some(stage)
}

fn services() -> [Service; 3] {
    [
        Service::new("svc-a", 1),
        Service::new("svc-b", 2).external_local(),
        Service::new("svc-c", 3).spec("internalTrafficPolicy: Local"),
    ]
}

/// Runs the node in this configuration and prints its tables; how many cells differ from what they shall be.
fn hold(stage: &mut Stage, configuration: &Configuration) -> usize {
    let matrix = matrix(configuration.rows);
    assert_eq!(matrix.len(), 27, "the matrix has 27 flows");
    stage.nodes(configuration.detector);
    let mut faults = 0;
    for path in Path::BOTH {
        stage.start_afresh(&[configuration.flags, path.flags().as_slice()].concat());
        let stage = &*stage;
        let [v4, v6] = thread::scope(|scope| {
            let matrix = &matrix;
            [0, 1]
                .map(|family| scope.spawn(move || family_holds(stage, path, family, matrix)))
                .map(|at| at.join().unwrap())
        });
        for (family, seen) in [("IPv4", v4), ("IPv6", v6)] {
            println!("\n{}, {path:?} path, {family}", configuration.name);
            faults += show(&matrix, &seen);
        }
    }
    faults
}

/// Looks at every flow of one family. Nobody but the addresses that were asked may speak to the client meanwhile
/// (reference 6.8, I2).
fn family_holds(stage: &Stage, path: Path, family: usize, matrix: &Matrix) -> Vec<Result<String, String>> {
    let wire = stage.lab.client().capture("eth0").unwrap();
    let services = services();
    let to = |(flow, service): Of| services[service].tcp(flow_of(flow).1, stage.node(), family);
    let look = |(flow, cell): &(Of, Cell)| {
        let from = flow_of(flow.0).0;
        Flow::tcp(from, to(*flow), cell.endpoints, cell.seen.over(path, from)).look(stage)
    };
    let seen = matrix.iter().map(look).collect();
    let asked: BTreeSet<_> = matrix.iter().map(|(flow, _)| to(*flow).ip()).collect();
    let client = stage.own_addresses(From::External)[family];
    // What the configuration before has left open speaks on until its peer is forgotten: only connections that began in
    // this look count.
    let mut begun = BTreeSet::new();
    for frame in wire.frames() {
        let Some([from, to, flags]) = segment(&frame.bytes) else { continue };
        let is_clients = source(&frame.bytes) == Some(client);
        if is_clients && flags & (SYN | ACK) == SYN {
            begun.insert(from);
        }
        let to_client = protocol_and_destination(&frame.bytes) == Some((TCP, client)) && begun.contains(&to);
        let by = source(&frame.bytes).filter(|_| to_client);
        assert!(by.is_none_or(|by| asked.contains(&by)), "{by:?} spoke to the client");
    }
    assert!(!begun.is_empty(), "the client has opened connections");
    seen
}

/// Ports and flags of a TCP segment.
fn segment(frame: &[u8]) -> Option<[u16; 3]> {
    let (TCP, _) = protocol_and_destination(frame)? else { return None };
    let tcp = frame.get(if frame.get(12..14)? == [0x08, 0x00] { 34 } else { 54 }..)?;
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    Some([port(0)?, port(2)?, u16::from(*tcp.get(13)?)])
}

/// Flags of TCP.
const SYN: u16 = 0x02;
const ACK: u16 = 0x10;

/// The number of the protocol.
const TCP: u8 = 6;

fn flow_of(flow: &str) -> (From, Via) {
    let (from, via) = flow.split_once('→').unwrap();
    let from = match from {
        "P" => From::Pod,
        "N" => From::Node,
        "X" => From::External,
        other => panic!("nobody is called {other}"),
    };
    let via = match via {
        "ClusterIP" => Via::ClusterIp,
        "NodePort" => Via::NodePort,
        "LB IP" => Via::Balancer,
        other => panic!("no way is called {other}"),
    };
    (from, via)
}

/// Flow and Service with what is expected, in the table's order.
type Matrix = Vec<(Of, Cell)>;
type Of = (&'static str, usize);

#[derive(Clone, Copy, Debug)]
struct Cell {
    text: &'static str,
    endpoints: &'static [&'static str],
    seen: Seen,
}

/// The table with some rows replaced.
fn matrix(rows: &'static str) -> Matrix {
    let mut matrix = cells(MATRIX);
    for (flow, other) in cells(rows) {
        matrix.iter_mut().find(|(of, _)| *of == flow).unwrap().1 = other;
    }
    matrix
}

fn cells(table: &'static str) -> Matrix {
    let lines = table.lines().map(str::trim).filter(|line| line.contains('→'));
    let row = |line: &'static str| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let flow = cells.next().unwrap();
        cells.enumerate().map(move |(service, text)| ((flow, service), cell(text)))
    };
    lines.flat_map(row).collect()
}

fn cell(text: &'static str) -> Cell {
    let (endpoints, seen) = text.split_once('}').unwrap();
    let endpoints: &[&str] = match endpoints {
        "{l,r" => &["l", "r"],
        "{l" => &["l"],
        other => panic!("no set is called {other}"),
    };
    let seen = match seen.trim() {
        "masq" => Seen::Node,
        "no-masq" => Seen::Client,
        "masq r" => Seen::NodeIfRemote,
        other => panic!("nobody is seen as {other}"),
    };
    Cell { text, endpoints, seen }
}

/// Prints a table like the one above, with what was seen where that is something else; how many cells that are.
fn show(matrix: &Matrix, seen: &[Result<String, String>]) -> usize {
    for (row, seen) in matrix.chunks(3).zip(seen.chunks(3)) {
        let cells: Vec<_> = row.iter().zip(seen).map(|((_, cell), seen)| shown(cell, seen)).collect();
        println!("| {:<11} | {} |", row[0].0.0, cells.join(" | "));
    }
    seen.iter().filter(|seen| seen.is_err()).count()
}

fn shown(cell: &Cell, seen: &Result<String, String>) -> String {
    match seen {
        Ok(seen) => format!("{:<14} ok: {seen:<44}", cell.text),
        Err(seen) => format!("{:<14} NO: {seen:<44}", cell.text),
    }
}

#[test]
fn the_table_is_read_as_it_is_meant() {
    if needs_files("the test starts no daemon") {
        return;
    }
    let default = matrix("");
    assert_eq!(default.len(), 27);
    assert_eq!(default.iter().filter(|(_, cell)| cell.seen == Seen::Node).count(), 20);
    let none = matrix(NO_LOCAL_DETECTOR);
    let expected = |(_, cell): &(Of, Cell)| (cell.endpoints, cell.seen);
    let others = default.iter().zip(&none).filter(|(one, other)| expected(one) != expected(other));
    assert_eq!(others.count(), 8, "6 are not masqueraded, 2 stay on the node");
}
