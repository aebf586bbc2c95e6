//! Rows of verdicts: who asks where, and what it comes to, in both families, over TCP and UDP. All rows of a table are
//! looked at before a test fails, and the table is printed with what was seen.

use std::net::{IpAddr, SocketAddr};

use roadstead_lab::{Capture, Probe};

use super::{
    expect::{Flow, Seen, refused, silent},
    stage::{From, Path, Stage},
};

/// What a new flow shall come to.
#[derive(Clone, Debug)]
pub(crate) enum Verdict<'a> {
    /// Each of these endpoints answers, and sees the client so.
    Forward(&'a [&'a str], Seen),
    /// ECONNREFUSED at once, by ICMP port unreachable.
    Reject,
    /// Silence.
    Drop,
}

/// A row of a table.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    name: String,
    from: From,
    own: Option<[IpAddr; 2]>,
    /// Of TCP and of UDP, each for IPv4 and IPv6.
    to: [[SocketAddr; 2]; 2],
    verdict: Verdict<'a>,
}

impl<'a> Row<'a> {
    pub(crate) fn new(name: &str, from: From, to: [[SocketAddr; 2]; 2], verdict: Verdict<'a>) -> Self {
        Self { name: format!("{from:?} to {name}"), from, own: None, to, verdict }
    }

    /// By the client's other addresses.
    pub(crate) fn own(self, own: [IpAddr; 2]) -> Self {
        Self { name: format!("{} as {}", self.name, own[0]), own: Some(own), ..self }
    }

    fn probes(&self, family: usize) -> [Probe; 2] {
        let [tcp, udp] = self.to;
        [Probe::tcp(tcp[family]), Probe::udp(udp[family])].map(|probe| match self.own {
            Some(own) => probe.from(own[family]),
            None => probe,
        })
    }

    fn look(&self, stage: &Stage, path: Path, family: usize, wires: &Wires) -> Vec<Result<String, String>> {
        let [tcp, udp] = self.to;
        match &self.verdict {
            Verdict::Forward(endpoints, seen) => {
                let seen = seen.over(path, self.from);
                let flows = [
                    Flow::tcp(self.from, tcp[family], endpoints, seen),
                    Flow::udp(self.from, udp[family], endpoints, seen),
                ];
                let looked = flows.map(|flow| match self.own {
                    Some(own) => flow.own(own[family]).look(stage),
                    None => flow.look(stage),
                });
                looked.into()
            }
            Verdict::Reject => {
                let [tcp, udp] = self.probes(family);
                let on_wire = self.from == From::External || self.from == From::Pod && path == Path::Packet;
                let wire = Some(wires.of(self.from)).filter(|_| on_wire);
                vec![refused(stage.place(self.from), wire, &tcp, &udp)]
            }
            Verdict::Drop => Vec::new(),
        }
    }
}

/// Captures on the devices of those who ask.
struct Wires {
    client: Capture,
    pod: Capture,
}

impl Wires {
    fn of(&self, from: From) -> &Capture {
        if from == From::Pod { &self.pod } else { &self.client }
    }
}

/// Looks at every row in both families and prints them; how many differ.
pub(crate) fn check(stage: &Stage, path: Path, title: &str, rows: &[Row<'_>]) -> usize {
    assert!(!rows.is_empty(), "a table has rows");
    println!("\n{title}, {path:?} path");
    let wires = Wires {
        client: stage.lab.client().capture("eth0").unwrap(),
        pod: stage.place(From::Pod).capture("eth0").unwrap(),
    };
    let mut faults = 0;
    for (family, version) in [(0, "IPv4"), (1, "IPv6")] {
        for row in rows {
            for seen in row.look(stage, path, family, &wires) {
                faults += show(version, row, &seen);
            }
        }
    }
    faults + check_silence(stage, rows, &wires)
}

/// All rows at once, as each takes long.
fn check_silence(stage: &Stage, rows: &[Row<'_>], wires: &Wires) -> usize {
    let dropped = rows.iter().filter(|row| matches!(row.verdict, Verdict::Drop));
    let asked: Vec<_> = dropped
        .flat_map(|row| [0, 1].map(|family| (row, family)))
        .flat_map(|(row, family)| row.probes(family).map(|probe| (row, family, probe)))
        .collect();
    let probes: Vec<_> =
        asked.iter().map(|(row, _, probe)| (stage.place(row.from), wires.of(row.from), probe.clone())).collect();
    let seen = silent(&probes, stage.node(), &wires.client);
    asked.iter().zip(&seen).map(|((row, family, _), seen)| show(["IPv4", "IPv6"][*family], row, seen)).sum()
}

fn show(version: &str, row: &Row<'_>, seen: &Result<String, String>) -> usize {
    let expected = match &row.verdict {
        Verdict::Forward(endpoints, _) => endpoints.join(","),
        other => format!("{other:?}"),
    };
    let (word, text) = match seen {
        Ok(text) => ("ok", text),
        Err(text) => ("NO", text),
    };
    println!("| {version} | {:<44} | {expected:<12} | {word}: {text}", row.name);
    usize::from(seen.is_err())
}
