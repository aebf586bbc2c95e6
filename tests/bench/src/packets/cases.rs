//! What the programs are measured with: flows that are there, flows that begin, packets that are none of theirs.

use std::net::{Ipv4Addr, SocketAddrV4};

use roadstead_abi::harness::{APART, DESTINATION, FIRST_PORT, HEADER, PORTS, Round, SOURCE};
use roadstead_lab::Mac;

use super::PacketsFlags;
use super::frame::{self, Segment};

/// Numbers of established flows, each a power of two: one that stays in the first cache, and ones that do not.
pub(crate) const FLOWS: [u32; 3] = [1, 1_024, 65_536];
/// Addresses that belong to no Service, and flows that begin.
const STRANGERS: u32 = 1_024;
const NEW: u32 = 1 << 14;
/// Where clients have their addresses: outside, outside for new flows, in pods, in pods for new flows.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 0);
const NEW_CLIENTS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 0);
const PODS: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 150);
const NEW_PODS: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 220);
/// Addresses that no Service has anything to do with. There are many: one alone might share its bit of the filter with a
/// Service, as some do.
const STRANGER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

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
    IsEither,
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
    /// Each time both ends of the packet are other strangers.
    fn of_strangers(self) -> Self {
        let other = SocketAddrV4::new(Ipv4Addr::from_bits(STRANGER.to_bits() + APART), FIRST_PORT);
        Self { client: Client::IsEither, clients: STRANGER, other, ..self }
    }

    fn case(self, kind: Kind, flows: u32) -> Case {
        let segment = if kind == Kind::New { Segment::Opening } else { Segment::Middle };
        let client = SocketAddrV4::new(self.clients, FIRST_PORT);
        let (from, to, side) = match self.client {
            Client::Sends => (client, self.other, SOURCE),
            Client::Receives => (self.other, client, DESTINATION),
            Client::IsEither => (client, self.other, SOURCE | DESTINATION),
        };
        let frame = frame::tcp(self.station, from, to, segment);
        let mut header = [0; HEADER];
        header.iter_mut().zip(&frame).for_each(|(to, from)| *to = *from);
        let round = Round {
            header,
            counter: 0,
            mask: flows - 1,
            ports: if kind == Kind::Stranger { 0 } else { PORTS },
            // The harness counts the destination from further on.
            base: self.clients.to_bits().wrapping_sub(if side == DESTINATION { APART } else { 0 }),
            side,
            slot: 0,
            reserved: 0,
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
        cases.push(traffic.of_strangers().case(Kind::Stranger, STRANGERS));
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
