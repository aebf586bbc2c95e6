//! What the programs are measured with: flows that are there, flows that begin, packets that are none of theirs.

use std::net::{Ipv4Addr, SocketAddrV4};

use roadstead_abi::harness::{HEADER, Round};
use roadstead_lab::Mac;

use super::PacketsFlags;
use super::frame::{self, Segment};

/// Numbers of established flows, each a power of two: one that stays in the first cache, and ones that do not.
pub(crate) const FLOWS: [u32; 3] = [1, 1_024, 65_536];
/// Flows of the packets that belong to no Service, and of those that begin a flow.
const STRANGERS: u32 = 1_024;
const NEW: u32 = 1 << 14;
/// Where clients have their addresses: outside, outside for new flows, in pods, in pods for new flows.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 0);
const NEW_CLIENTS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 0);
const PODS: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 150);
const NEW_PODS: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 220);
/// An address that no Service has anything to do with.
const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 443);

/// What a packet is to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Established,
    New,
    Stranger,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Established => "established flow",
            Self::New => "new flow",
            Self::Stranger => "of no Service",
        }
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) program: &'static str,
    pub(crate) kind: Kind,
    pub(crate) flows: u32,
    pub(crate) device: &'static str,
    pub(crate) frame: Vec<u8>,
    pub(crate) round: Round,
}

/// Whether the client, whose address and port tell flows apart, is the sender or the receiver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Sends,
    Receives,
}

/// A kind of packets that a program meets at a device: everything but the number of flows.
#[derive(Clone, Copy)]
struct Traffic {
    program: &'static str,
    device: &'static str,
    station: Mac,
    client: Client,
    clients: Ipv4Addr,
    other: SocketAddrV4,
}

impl Traffic {
    fn case(self, kind: Kind, flows: u32) -> Case {
        let segment = if kind == Kind::New { Segment::Opening } else { Segment::Middle };
        let client = SocketAddrV4::new(self.clients, roadstead_abi::harness::FIRST_PORT);
        let (from, to) = if self.client == Client::Sends { (client, self.other) } else { (self.other, client) };
        let frame = frame::tcp(self.station, from, to, segment);
        let mut header = [0; HEADER];
        header.iter_mut().zip(&frame).for_each(|(to, from)| *to = *from);
        let round = Round {
            header,
            counter: 0,
            mask: flows - 1,
            base: self.clients.to_bits(),
            side: u32::from(self.client == Client::Receives),
            slot: 0,
        };
        Case { program: self.program, kind, flows, device: self.device, frame, round }
    }
}

/// The packets that open all flows of a program's established ones.
pub(crate) fn openings(flags: &PacketsFlags) -> [Case; 2] {
    let all = FLOWS.into_iter().max().unwrap_or(1);
    [from_outside(flags), from_pod(flags)].map(|traffic| traffic.case(Kind::New, all))
}

/// All measurements.
pub(crate) fn all(flags: &PacketsFlags) -> Vec<Case> {
    let [outside, pod] = [from_outside(flags), from_pod(flags)];
    let [to_outside, to_pod] = [outside, pod].map(|traffic| answers(traffic, flags));
    let mut cases = Vec::new();
    for traffic in [outside, to_outside, pod, to_pod] {
        cases.extend(FLOWS.map(|flows| traffic.case(Kind::Established, flows)));
    }
    for (traffic, clients) in [(outside, NEW_CLIENTS), (pod, NEW_PODS)] {
        cases.push(Traffic { clients, ..traffic }.case(Kind::New, NEW));
    }
    for traffic in [outside, to_outside, pod, to_pod] {
        cases.push(Traffic { other: STRANGER, ..traffic }.case(Kind::Stranger, STRANGERS));
    }
    cases
}

/// From a client outside to the node port.
fn from_outside(flags: &PacketsFlags) -> Traffic {
    Traffic {
        program: "uplink_in",
        device: "eth0",
        station: Mac::of(*flags.node_port.ip()),
        client: Client::Sends,
        clients: CLIENTS,
        other: flags.node_port,
    }
}

/// From a pod to the cluster address, past the socket programs.
fn from_pod(flags: &PacketsFlags) -> Traffic {
    Traffic {
        program: "int_in",
        device: "v-caller",
        // The pod's gateway; the port of the bridge takes it for another station's, as it does on a real node.
        station: Mac([0x02, 0, 0, 0, 0, 2]),
        client: Client::Sends,
        clients: PODS,
        other: flags.cluster,
    }
}

/// What the backend answers, where it leaves towards the client.
fn answers(traffic: Traffic, flags: &PacketsFlags) -> Traffic {
    let program = if traffic.program == "uplink_in" { "uplink_out" } else { "int_out" };
    Traffic { program, client: Client::Receives, other: flags.backend, ..traffic }
}
