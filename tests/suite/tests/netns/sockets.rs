//! What the socket programs remember of a connection, and for how long; which programs stand in the way of others.

use std::process::Command;

use roadstead_lab::{Lab, program, wait_until};

use super::{
    fixture::{LATE, READY},
    services::{Service, Via},
    stage::{From, Path, Stage},
};

/// Connections of the look.
const CONNECTIONS: u16 = 20;

#[test]
fn what_a_socket_asked_for_is_forgotten_with_it() {
    let Some(mut stage) = Stage::new("sockets", &["l"], &["r"]) else { return };
    let service = Service::new("sockets", 66).endpoints(stage.ready(&["l", "r"]));
    stage.serve(&service);
    stage.start(&Path::Socket.flags());
    for family in [0, 1] {
        let to = service.tcp(Via::ClusterIp, stage.node(), family);
        let held = stage.place(From::Pod).hold_many(to, CONNECTIONS).unwrap();
        wait_until(READY, "every connection is remembered", || remembered(&stage.lab) >= usize::from(CONNECTIONS))
            .unwrap();
        let report = held.finish().unwrap();
        assert_eq!(report.broken, 0, "{report:?}");
        wait_until(LATE, "none is remembered", || remembered(&stage.lab) == 0).unwrap();
    }
}

/// A program there would cost every packet of the bridge's pods.
#[test]
fn a_bridge_of_pods_alone_carries_no_program() {
    let Some(mut stage) = Stage::new("bridge", &["l"], &["r"]) else { return };
    stage.serve(&Service::new("bridge", 67).endpoints(stage.ready(&["l", "r"])));
    stage.start(&Path::Socket.flags());
    let attached = status(&stage.lab);
    assert!(attached.contains("int_out@"), "{attached}");
    assert!(!attached.contains("bridge_out@"), "{attached}");
    // An endpoint that is gone: the node's own sockets may be connected to it.
    stage.serve(&Service::new("bridge", 67).endpoints(stage.ready(&["r"])));
    wait_until(LATE, "the bridge carries a program", || status(&stage.lab).contains("bridge_out@"))
        .unwrap_or_else(|error| panic!("{error}: {}", status(&stage.lab)));
}

/// Entries of the map of sockets.
fn remembered(lab: &Lab) -> usize {
    let text = status(lab);
    let row = text.lines().find_map(|line| line.strip_prefix("SOCKET_PEERS ")).unwrap_or_else(|| panic!("{text}"));
    row.split_whitespace().next().and_then(|entries| entries.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

fn status(lab: &Lab) -> String {
    let mut status = Command::new(program("roadstead").unwrap());
    let output = status.args(["status", "--bpffs"]).arg(lab.node("node-a").bpffs()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
