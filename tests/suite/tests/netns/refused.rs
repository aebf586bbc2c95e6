//! Services without endpoints: refused at once, with the ICMP error that the standards name; silence only where
//! kube-proxy is silent too.

use std::{net::SocketAddr, process::Command, time::Duration};

use roadstead_lab::{Capture, Place, Probe, demo::Cluster};

use super::fixture::{LATE, PAIR, assert_answered, assigned, at, lab};

/// "At once", also on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(100);
/// How long a client that hears nothing waits here.
const SILENCE: Duration = Duration::from_millis(400);
/// The cluster addresses of the demo's Service `idle`.
const IDLE: [&str; 2] = ["10.96.0.30", "fd00:10:96::30"];
/// Those of the Service `local`.
const LOCAL: [&str; 2] = ["10.96.0.50", "fd00:10:96::50"];

#[test]
fn without_endpoints_everybody_is_refused_at_once() {
    let Some(lab) = lab("refused") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    lab.apply(PAIR.0, PAIR.1).unwrap();
    let pair = assigned(&cluster, "pair");
    let (client, node) = (lab.client(), lab.node("node-a").host());
    // The pool's address answers for its other ports, so that every node has the Service by now.
    Cluster::at(pair, 9002).iter().for_each(|to| assert_answered(client, &Probe::tcp(*to), &["web-2"]));

    let wire = client.capture("eth0").unwrap();
    for to in [at(node, 30999), at(node, 30903), Cluster::at(pair, 9003)].concat() {
        assert_refused(client, to);
        assert_told(&wire, to, TCP);
        assert_told(&wire, to, UDP);
    }
    for place in [cluster.pod("web-2").unwrap(), node] {
        for ip in IDLE {
            assert_refused_by(place, &Probe::tcp(SocketAddr::new(ip.parse().unwrap(), 9000)));
            assert_refused_by(place, &Probe::udp(SocketAddr::new(ip.parse().unwrap(), 9000)));
        }
        for to in [at(node, 30999), Cluster::at(pair, 9003)].concat() {
            assert_refused(place, to);
        }
    }
}

#[test]
fn policy_local_without_a_local_endpoint_is_silent() {
    let Some(lab) = lab("silent") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let (client, near, far) = (lab.client(), lab.node("node-a").host(), lab.node("node-b").host());
    // A node has a default route, by which packets that nobody translates would leave.
    route_to(near, client);
    lab.apply("local.yaml", include_str!("manifests/local.yaml")).unwrap();
    for to in at(far, 30950) {
        let seen = roadstead_lab::wait_for(LATE, "node-b serves its own endpoint", || {
            client.probe_once(&Probe::tcp(to)).unwrap().seen_as()
        });
        assert!([client.v4().into(), client.v6().into()].contains(&seen.unwrap().ip()), "the client's address is kept");
    }
    // Before node-a has the Service too, its own stack refuses.
    let is_silent = |to| client.probe_once(&Probe::tcp(to).timeout(SILENCE)).unwrap().outcome() == "timeout";
    let both = || at(near, 30950).into_iter().all(is_silent);
    roadstead_lab::wait_until(LATE, "node-a has the Service", both).unwrap();
    for (tcp, udp) in at(near, 30950).into_iter().zip(at(near, 30951)) {
        assert_silent(client, tcp, udp);
    }
    let pod = cluster.pod("web-1").unwrap();
    for ip in LOCAL {
        let (tcp, udp) = (SocketAddr::new(ip.parse().unwrap(), 9000), SocketAddr::new(ip.parse().unwrap(), 5353));
        assert_answered(far, &Probe::tcp(tcp), &["web-2"]);
        let wire = client.capture("eth0").unwrap();
        for place in [pod, near] {
            assert_silent(place, tcp, udp);
        }
        let left = wire.frames().into_iter().filter(|frame| mentions(&frame.bytes, tcp.ip())).count();
        assert_eq!(left, 0, "packets to a Service left the node");
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn assert_refused(place: &Place, to: SocketAddr) {
    assert_refused_by(place, &Probe::tcp(to));
    assert_refused_by(place, &Probe::udp(to));
}

#[track_caller]
fn assert_refused_by(place: &Place, probe: &Probe) {
    let mut times = Vec::new();
    for answer in place.probe(&probe.clone().count(5)).unwrap() {
        assert_eq!(answer.error.as_deref(), Some("ECONNREFUSED"), "{}: {probe:?}", place.name());
        times.push(answer.elapsed());
    }
    times.sort_unstable();
    // The median: one attempt may meet a machine that stood still.
    assert!(times[2] < AT_ONCE, "{}: {probe:?}: {times:?}", place.name());
}

#[track_caller]
fn assert_silent(place: &Place, tcp: SocketAddr, udp: SocketAddr) {
    for probe in [Probe::tcp(tcp), Probe::udp(udp)] {
        let answer = place.probe_once(&probe.clone().timeout(SILENCE)).unwrap();
        assert_eq!(answer.error.as_deref(), Some("timeout"), "{}: {probe:?}", place.name());
    }
}

/// The error on the wire: port unreachable, 3/3 (RFC 792) or 1/4 (RFC 4443), about this packet.
#[track_caller]
fn assert_told(wire: &Capture, to: SocketAddr, protocol: u8) {
    let what = format!("port unreachable for {to}, protocol {protocol}");
    wire.wait_for(LATE, &what, |frame| is_port_unreachable(&frame.bytes, to, protocol).unwrap_or(false)).unwrap();
}

fn is_port_unreachable(frame: &[u8], to: SocketAddr, protocol: u8) -> Option<bool> {
    let packet = frame.get(14..)?;
    let told = match (frame.get(12..14)?, to) {
        ([0x08, 0x00], SocketAddr::V4(to)) => {
            let quoted = packet.get(28..)?;
            let inner = (quoted.get(9)?, quoted.get(16..20)?, quoted.get(22..24)?);
            let about = inner == (&protocol, to.ip().octets().as_slice(), to.port().to_be_bytes().as_slice());
            packet.get(9)? == &1 && packet.get(20..22)? == [3, 3] && packet.get(12..16)? == to.ip().octets() && about
        }
        ([0x86, 0xdd], SocketAddr::V6(to)) => {
            let quoted = packet.get(48..)?;
            let inner = (quoted.get(6)?, quoted.get(24..40)?, quoted.get(42..44)?);
            let about = inner == (&protocol, to.ip().octets().as_slice(), to.port().to_be_bytes().as_slice());
            packet.get(6)? == &58 && packet.get(40..42)? == [1, 4] && packet.get(8..24)? == to.ip().octets() && about
        }
        _ => false,
    };
    Some(told)
}

/// Whether an address stands anywhere in a frame.
fn mentions(frame: &[u8], ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(ip) => frame.windows(4).any(|bytes| bytes == ip.octets()),
        std::net::IpAddr::V6(ip) => frame.windows(16).any(|bytes| bytes == ip.octets()),
    }
}

fn route_to(place: &Place, gateway: &Place) {
    for (family, via) in [("-4", gateway.v4().to_string()), ("-6", gateway.v6().to_string())] {
        let mut command = Command::new("ip");
        let status = command.args([family, "-n", place.namespace(), "route", "add", "default", "via", &via]).status();
        assert!(status.unwrap().success());
    }
}
