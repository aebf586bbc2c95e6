//! A pod that is removed: its UDP flows go to a live one within a second, its TCP connections stay as long as it
//! answers, and nobody new is sent to it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use roadstead_lab::{Place, Probe, Program, demo::Cluster, wait_until};

use super::fixture::{LATE, SOON, answers_are, at, lab, served_for, settle};

/// The pod that is removed, on node-b, and who stays.
const GONE: (&str, &str) = ("web-3", "pod-web-3.yaml");
const LEFT: [&str; 2] = ["web-1", "web-2"];

#[test]
fn flows_of_a_removed_pod() {
    let Some(lab) = lab("gone") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    settle(&cluster, &cluster.web);
    let client = lab.client();
    // The pod is remote to node-a and local to node-b.
    let hosts = ["node-a", "node-b"].map(|node| lab.node(node).host());
    let ports = |of: fn(&Place) -> [SocketAddr; 2]| hosts.into_iter().flat_map(of).collect::<Vec<_>>();
    let mut datagrams: Vec<_> =
        ports(|host| at(host, 30053)).into_iter().chain(Cluster::at(cluster.web, 5353)).collect();
    let streams: Vec<_> = ports(|host| at(host, 30900)).into_iter().chain(Cluster::at(cluster.web, 9000)).collect();
    let flows: Vec<_> = datagrams.drain(..).map(|to| Flow::to(client, to, GONE.0)).collect();
    let mut held: Vec<_> = streams.iter().map(|to| Held::to(client, *to, GONE.0)).collect();

    lab.delete(GONE.1).unwrap();
    for flow in &flows {
        // A datagram at the very moment of the change may be lost, as on any network.
        let moved = || flow.ask().is_some_and(|name| LEFT.contains(&name.as_str()));
        let took = wait_until(LATE, &format!("the flow to {} goes on", flow.to), moved).unwrap();
        assert!(took < SOON, "{} only after {took:.1?}", flow.to);
    }
    for (flow, to) in flows.iter().zip(&streams) {
        for _ in 0..20 {
            let name = flow.ask().unwrap_or_else(|| panic!("no answer of {}", flow.to));
            assert!(LEFT.contains(&name.as_str()), "{name} answered at {}", flow.to);
        }
        assert!(answers_are(client, &Probe::tcp(*to), &LEFT), "new connections to {to}");
    }
    // Longer than the agent keeps what it frees.
    served_for(2 * SOON, client, &Probe::tcp(streams[0]), &LEFT);
    for held in &mut held {
        (0..5).for_each(|number| held.exchange(number));
    }
}

#[test]
fn a_pod_removed_while_no_agent_ran() {
    let Some(lab) = lab("gone-unseen") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let (client, node) = (lab.client(), lab.node("node-a"));
    let flows: Vec<_> = at(node.host(), 30053).into_iter().map(|to| Flow::to(client, to, GONE.0)).collect();
    let mut held: Vec<_> = at(node.host(), 30900).into_iter().map(|to| Held::to(client, to, GONE.0)).collect();
    cluster.kill(node, Program::Agent).unwrap();
    lab.delete(GONE.1).unwrap();
    for flow in &flows {
        assert_eq!(flow.ask().as_deref(), Some(GONE.0), "nobody is there to change it");
    }
    cluster.restart(node, Program::Agent).unwrap();
    for flow in &flows {
        let name = flow.ask().unwrap_or_else(|| panic!("no answer of {}", flow.to));
        assert!(LEFT.contains(&name.as_str()), "{name} answered at {}", flow.to);
    }
    for held in &mut held {
        assert!(answers_are(client, &Probe::tcp(held.to), &LEFT), "new connections to {}", held.to);
        (0..5).for_each(|number| held.exchange(number));
    }
}

/// A connected UDP socket, in use.
pub(crate) struct Flow {
    pub(crate) to: SocketAddr,
    socket: UdpSocket,
}

impl Flow {
    /// One that the named pod answers.
    pub(crate) fn to(client: &Place, to: SocketAddr, name: &str) -> Self {
        let mut flows = (0..200).map(|_| Self { to, socket: client.run(|| connected(to)).unwrap() });
        flows.find(|flow| flow.ask().as_deref() == Some(name)).unwrap_or_else(|| panic!("{name} never answers at {to}"))
    }

    /// Who answers a datagram.
    pub(crate) fn ask(&self) -> Option<String> {
        // An error of an earlier datagram is told here; what counts is who answers.
        let _told = self.socket.send(b"ahoy");
        let mut buffer = [0; 2048];
        let length = self.socket.recv(&mut buffer).ok()?;
        name_of(&buffer[..length])
    }
}

fn connected(to: SocketAddr) -> UdpSocket {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

/// A TCP connection, in use.
pub(crate) struct Held {
    to: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Held {
    /// One to the named pod.
    pub(crate) fn to(client: &Place, to: SocketAddr, name: &str) -> Self {
        for _ in 0..200 {
            let stream = client.run(|| TcpStream::connect(to)).unwrap().unwrap();
            stream.set_read_timeout(Some(LATE)).unwrap();
            let mut held = Self { to, stream: BufReader::new(stream) };
            if name_of(held.line().as_bytes()).as_deref() == Some(name) {
                return held;
            }
        }
        panic!("{name} never answers at {to}");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap_or_else(|error| panic!("the connection to {} broke: {error}", self.to));
        line
    }

    pub(crate) fn exchange(&mut self, number: u32) {
        let sent = format!("line {number}\n");
        self.stream.get_mut().write_all(sent.as_bytes()).unwrap();
        assert_eq!(self.line(), sent, "{}", self.to);
    }
}

fn name_of(answer: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    Some(answer.get("name")?.as_str()?.to_owned())
}
