//! What a flow comes to, as the reference asserts it (2.6): who answers and as whom they see the client, refusal at
//! once, or silence. Each look tells what it saw, so that a table can show all of its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use roadstead_lab::{Answer, Capture, Frame, Mac, Place, Probe};

use super::fixture::ips;
use super::stage::{From, Path, Stage};

/// Connections for each expected endpoint.
const ATTEMPTS: u32 = 30;
/// "At once", also on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(100);
/// How long nobody may answer.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);
/// Protocol numbers of IP.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// As whom an endpoint sees the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The client's own address.
    Client,
    /// An address of the node.
    Node,
    /// An address of the node by endpoints of other nodes, the client's own by those of this node.
    NodeIfRemote,
    /// Either: what routing chooses.
    NodeOrClient,
}

impl Seen {
    /// What remains to be demanded: in the socket path, the source of in-cluster flows is chosen by routing.
    pub(crate) fn over(self, path: Path, from: From) -> Self {
        let in_cluster = from != From::External;
        if path == Path::Socket && in_cluster && self != Self::Client { Self::NodeOrClient } else { self }
    }
}

/// What a new flow shall come to.
#[derive(Clone, Debug)]
pub(crate) struct Flow<'a> {
    pub(crate) from: From,
    pub(crate) probe: Probe,
    pub(crate) to: SocketAddr,
    /// The own address, where the client has several.
    pub(crate) own: Option<IpAddr>,
    pub(crate) endpoints: &'a [&'a str],
    pub(crate) seen: Seen,
}

impl<'a> Flow<'a> {
    pub(crate) fn tcp(from: From, to: SocketAddr, endpoints: &'a [&'a str], seen: Seen) -> Self {
        Self { from, probe: Probe::tcp(to), to, own: None, endpoints, seen }
    }

    pub(crate) fn udp(from: From, to: SocketAddr, endpoints: &'a [&'a str], seen: Seen) -> Self {
        Self { probe: Probe::udp(to), ..Self::tcp(from, to, endpoints, seen) }
    }

    /// By a client's other address.
    pub(crate) fn own(self, ip: IpAddr) -> Self {
        Self { probe: self.probe.from(ip), own: Some(ip), ..self }
    }

    /// Whether every one of the endpoints answers, nobody else, and each sees the client as it shall.
    pub(crate) fn look(&self, stage: &Stage) -> Result<String, String> {
        let place = stage.place(self.from);
        let own = self.own.map_or_else(|| stage.own_addresses(self.from), |ip| vec![ip]);
        let attempts = ATTEMPTS * u32::try_from(self.endpoints.len()).unwrap();
        // One first: where nobody answers, the others would take long to tell the same.
        self.answered(&place.probe_once(&self.probe).unwrap())?;
        let answers = place.probe(&self.probe.clone().count(attempts)).unwrap();
        let mut counts = BTreeMap::<&str, u32>::new();
        let mut seen = BTreeSet::new();
        for answer in &answers {
            let name = self.answered(answer)?;
            let as_whom = answer.seen_as().ok_or("the endpoint tells no peer")?.ip();
            let (is_own, is_node) = (own.contains(&as_whom), stage.node_addresses().contains(&as_whom));
            let fits = match self.seen {
                Seen::Client => is_own,
                Seen::NodeIfRemote if stage.is_near(name) => is_own,
                Seen::Node | Seen::NodeIfRemote => is_node,
                Seen::NodeOrClient => is_own || is_node,
            };
            if !fits {
                return Err(format!("{name} sees {as_whom}"));
            }
            *counts.entry(name).or_default() += 1;
            seen.insert(as_whom.to_string());
        }
        let names: Vec<_> = counts.keys().copied().collect();
        if names != sorted(self.endpoints) {
            return Err(format!("only {} answered {attempts} times", names.join(",")));
        }
        let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}x")).collect();
        Ok(format!("{} as {}", counts.join(" "), seen.into_iter().collect::<Vec<_>>().join(",")))
    }

    fn answered<'b>(&self, answer: &'b Answer) -> Result<&'b str, String> {
        let name = answer.name().filter(|_| answer.ok).ok_or_else(|| answer.outcome())?;
        if let Some(told) = [answer.peer, answer.source].into_iter().flatten().find(|told| *told != self.to) {
            return Err(format!("the client is told that {told} answered"));
        }
        if self.endpoints.contains(&name) { Ok(name) } else { Err(format!("{name} answered")) }
    }
}

fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let names: BTreeSet<_> = names.iter().copied().collect();
    names.into_iter().collect()
}

impl Stage {
    /// The addresses that a client in a place can have as its own. A node has several, and routing chooses.
    pub(crate) fn own_addresses(&self, from: From) -> Vec<IpAddr> {
        match from {
            From::Node => self.node_addresses(),
            From::Pod | From::External => ips(self.place(from)).into(),
        }
    }
}

/// Whether TCP and UDP are refused at once; in the packet path and from outside with the ICMP error of the standards on
/// the client's device.
pub(crate) fn refused(place: &Place, wire: Option<&Capture>, tcp: &Probe, udp: &Probe) -> Result<String, String> {
    for probe in [tcp, udp] {
        let answers = place.probe(&probe.clone().count(5)).unwrap();
        if let Some(other) = answers.iter().find(|answer| answer.error.as_deref() != Some("ECONNREFUSED")) {
            return Err(format!("{probe:?}: {}", other.outcome()));
        }
        let mut times: Vec<_> = answers.iter().map(Answer::elapsed).collect();
        times.sort_unstable();
        // The median: one attempt may meet a machine that stood still.
        if times[2] >= AT_ONCE {
            return Err(format!("{probe:?}: refused only after {times:?}"));
        }
    }
    let Some(wire) = wire else { return Ok("refused".to_owned()) };
    for (protocol, probe) in [(TCP, tcp), (UDP, udp)] {
        let to = probe.address().unwrap();
        let is_told = |frame: &Frame| is_port_unreachable(&frame.bytes, to, protocol).unwrap_or(false);
        wire.wait_for(super::fixture::LATE, "port unreachable", is_told)
            .map_err(|_| format!("{probe:?}: refused without port unreachable"))?;
    }
    Ok("refused".to_owned())
}

/// Whether nobody says a word for long: the outcome of each probe, asked by a place with a capture of its device, all at
/// once. What is for a Service does not leave the node either, whose frames `outside` would show.
pub(crate) fn silent(
    probes: &[(&Place, &Capture, Probe)],
    node: &Place,
    outside: &Capture,
) -> Vec<Result<String, String>> {
    let looks = std::thread::scope(|scope| {
        let look =
            |(place, _, probe): &(&Place, &Capture, Probe)| place.probe_once(&probe.clone().timeout(SILENCE)).unwrap();
        let started: Vec<_> = probes.iter().map(|one| scope.spawn(move || look(one))).collect();
        started.into_iter().map(|look| look.join().unwrap()).collect::<Vec<_>>()
    });
    let judge = |(answer, (place, wire, probe)): (Answer, &(&Place, &Capture, Probe))| {
        if answer.error.as_deref() != Some("timeout") {
            return Err(format!("{probe:?}: {}", answer.outcome()));
        }
        let to = probe.address().unwrap().ip();
        // Other rows may have heard this address at others of the client's.
        let own = probe.own().map_or_else(|| ips(place).into(), |ip| vec![ip]);
        let to_own = |frame: &Frame| protocol_and_destination(&frame.bytes).is_some_and(|(_, ip)| own.contains(&ip));
        let said = |frame: &Frame| source(&frame.bytes) == Some(to) && to_own(frame);
        if let Some(frame) = wire.frames().into_iter().find(said) {
            return Err(format!("{probe:?}: {to} said {:02x?}", frame.bytes));
        }
        let by_node = |frame: &Frame| frame.bytes.get(6..12) == Some(Mac::of(node.v4()).0.as_slice());
        let to_service = |frame: &Frame| protocol_and_destination(&frame.bytes).is_some_and(|(_, ip)| ip == to);
        if outside.frames().iter().any(|frame| by_node(frame) && to_service(frame)) {
            Err(format!("{probe:?}: packets left the node"))
        } else {
            Ok("silence".to_owned())
        }
    };
    looks.into_iter().zip(probes).map(judge).collect()
}

/// The source of an IP packet.
pub(crate) fn source(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(26..30)?).ok()?)),
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(22..38)?).ok()?)),
        _ => None,
    }
}

/// The protocol and the destination of an IP packet without extension headers.
pub(crate) fn protocol_and_destination(frame: &[u8]) -> Option<(u8, IpAddr)> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((*frame.get(23)?, IpAddr::from(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?))),
        [0x86, 0xdd] => Some((*frame.get(20)?, IpAddr::from(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?))),
        _ => None,
    }
}

/// Port unreachable, 3/3 (RFC 792) or 1/4 (RFC 4443), about a packet to this address, and said by it.
fn is_port_unreachable(frame: &[u8], to: SocketAddr, protocol: u8) -> Option<bool> {
    let packet = frame.get(14..)?;
    let (icmp, code, quoted, protocol_at, ports_at) =
        if to.is_ipv4() { (1, [3, 3], 28, 9, 22) } else { (58, [1, 4], 48, 6, 42) };
    let inner = frame.get(14 + quoted..)?;
    let about = protocol_and_destination(&[frame.get(..14)?, inner].concat())?;
    let port = inner.get(ports_at..ports_at + 2)? == to.port().to_be_bytes();
    let (outer, said_by) = (protocol_and_destination(frame)?.0, source(frame)?);
    let is_code = packet.get(quoted - 8..quoted - 6)? == code && *inner.get(protocol_at)? == protocol;
    Some(outer == icmp && said_by == to.ip() && is_code && about == (protocol, to.ip()) && port)
}
