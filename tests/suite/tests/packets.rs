//! Packets through the real programs, by BPF_PROG_TEST_RUN on real maps: verdict, bytes out, counter.
//!
//! Needs root and a BPF file system; says so and passes where it has neither.

#![forbid(unsafe_code)]

#[cfg(test)]
mod packets {
    pub(crate) mod bench;
    mod echo;
    mod errors;
    mod former;
    mod fragments;
    pub(crate) mod frames;
    mod fuzz;
    mod layer2;
}

use std::{collections::BTreeSet, net::IpAddr};

use packets::{
    bench::{Bench, services},
    frames::{Frame, Transport},
};
use roadstead_abi::{DropReason, ct_flags};
use roadstead_dataplane::load::{INTERNAL_PROGRAMS, SOCKET_PROGRAMS, UPLINK_PROGRAMS};

const NEXT: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;

/// Verified instructions a program may take; the kernel's own limit is a million.
const BUDGET: u32 = 200_000;

#[test]
fn every_program_passes_the_verifier_within_its_budget() {
    let Some(bench) = Bench::open() else { return };
    for name in SOCKET_PROGRAMS.iter().chain(&UPLINK_PROGRAMS).chain(&INTERNAL_PROGRAMS) {
        let verified = bench.programs.verified_instructions(name).unwrap_or_else(|| panic!("{name} is not loaded"));
        println!("{name}: {verified} instructions verified");
        assert!(verified > 0 && verified < BUDGET, "{name}: {verified}");
    }
}

/// One packet for `uplink_in` that ends there or passes by untouched.
pub(crate) struct Case {
    what: &'static str,
    pub(crate) frame: Frame,
    verdict: i32,
    counter: Option<DropReason>,
}

pub(crate) fn cases(client: &str, vip: &str, node: &str, stranger: &str) -> Vec<Case> {
    use Transport::{Icmp, Tcp, TcpAck, Udp};
    let frame = |to: &str, port, transport| Frame::new(client, to, 40_000, port, transport);
    let case = |what, frame, verdict, counter| Case { what, frame, verdict, counter };
    vec![
        case("a stranger's packet", frame(stranger, 80, Tcp), NEXT, None),
        case("a stranger's datagram", frame(stranger, 80, Udp), NEXT, None),
        case("the node's own port", frame(node, 22, Tcp), NEXT, None),
        case("a node port that no Service has", frame(node, 30_999, Tcp), NEXT, None),
        case("no endpoint, TCP", frame(vip, 81, Tcp), REDIRECT, Some(DropReason::NoEndpoints)),
        case("no endpoint, UDP", frame(vip, 81, Udp), REDIRECT, Some(DropReason::NoEndpoints)),
        case("no endpoint at the node port", frame(node, 30_081, Tcp), REDIRECT, Some(DropReason::NoEndpoints)),
        case("a port that the Service does not have", frame(vip, 443, Tcp), REDIRECT, Some(DropReason::UnknownPort)),
        case("policy Local without a local endpoint", frame(vip, 82, Tcp), DROP, Some(DropReason::NoLocalEndpoints)),
        case("a late packet of no flow", frame(vip, 81, TcpAck), REDIRECT, Some(DropReason::NoEndpoints)),
        case("a ping to a Service", frame(vip, 0, Icmp), DROP, Some(DropReason::UnknownProtocol)),
        case("a ping to the node", frame(node, 0, Icmp), NEXT, None),
        case(
            "a later fragment to a Service whose first one was not seen",
            frame(vip, 80, Udp).later_fragment(),
            DROP,
            Some(DropReason::Fragment),
        ),
        case("a fragment to a stranger", frame(stranger, 80, Udp).later_fragment(), NEXT, None),
        case("a packet cut short", frame(vip, 80, Tcp).cut(8), DROP, Some(DropReason::Malformed)),
    ]
}

#[test]
fn packets_that_are_not_forwarded_get_their_verdict_and_move_one_counter() {
    let Some(mut bench) = Bench::open() else { return };
    let v4 = cases("192.0.2.9", "198.51.100.10", "192.0.2.1", "203.0.113.5");
    let v6 = cases("2001:db8::9", "2001:db8:ff::10", "2001:db8::1", "2001:db8:5::5");
    let mut seen = BTreeSet::new();
    for case in v4.into_iter().chain(v6) {
        let before = bench.drops();
        let ran = bench.programs.run("uplink_in", &case.frame.bytes()).unwrap();
        let label = format!("{} to {}", case.what, case.frame.dst);
        assert_eq!(ran.verdict, case.verdict, "{label}");
        let moved: Vec<DropReason> = bench.drops_since(&before);
        assert_eq!(moved, case.counter.into_iter().collect::<Vec<_>>(), "{label}");
        match ran.verdict {
            NEXT => assert_eq!(ran.packet, case.frame.bytes(), "{label}: passes untouched"),
            REDIRECT => case.frame.assert_rejected_by(&ran.packet, &label),
            _ => {}
        }
        seen.insert(case.frame.dst.is_ipv6());
    }
    assert_eq!(seen.len(), 2, "both families were tried");
}

#[test]
fn a_flow_to_a_backend_of_this_node_is_rewritten_both_ways() {
    let Some(mut bench) = Bench::open() else { return };
    // Addresses of the loopback device count as this node's own.
    for (client, vip, backend) in
        [("192.0.2.9", "198.51.100.10", "127.0.0.9"), ("2001:db8::9", "2001:db8:ff::10", "::1")]
    {
        for transport in [Transport::Tcp, Transport::Udp] {
            let label = format!("{client} to {vip} by {transport:?}");
            let there = Frame::new(client, vip, 40_000, 80, transport);
            let ran = bench.programs.run("uplink_in", &there.bytes()).unwrap();
            assert_eq!(ran.verdict, NEXT, "{label}: the stack delivers");
            there.moved(client, backend, 40_000, 8_080).assert_is(&ran.packet, &label);

            let back = Frame::new(backend, client, 8_080, 40_000, transport.answer());
            let ran = bench.programs.run("uplink_out", &back.bytes()).unwrap();
            assert_eq!(ran.verdict, NEXT, "{label}: back");
            back.moved(vip, client, 80, 40_000).assert_is(&ran.packet, &format!("{label}, back"));
        }
    }
    assert_eq!(bench.conntrack_entries(), 8, "two entries a flow, four flows");
}

#[test]
fn two_addresses_of_one_backend_do_not_share_a_flow() {
    let Some(bench) = Bench::open() else { return };
    let run = |vip: &str, port: u16| {
        let frame = Frame::new("192.0.2.9", vip, 40_000, port, Transport::Udp);
        let ran = bench.programs.run("uplink_in", &frame.bytes()).unwrap();
        assert_eq!(ran.verdict, NEXT);
        Frame::parse(&ran.packet)
    };
    let (first, second) = (run("198.51.100.10", 80), run("192.0.2.1", 30_080));
    assert_eq!((first.dst, first.dport, first.sport), ("127.0.0.9".parse::<IpAddr>().unwrap(), 8_080, 40_000));
    assert_eq!((second.dst, second.dport), (first.dst, first.dport));
    assert_ne!(second.sport, first.sport, "the second flow's answers must be told from the first's");
    let back = Frame::new("127.0.0.9", "192.0.2.9", 8_080, second.sport, Transport::Udp);
    let ran = bench.programs.run("uplink_out", &back.bytes()).unwrap();
    back.moved("192.0.2.1", "192.0.2.9", 30_080, 40_000).assert_is(&ran.packet, "back to the node port");
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old() {
    let Some(mut bench) = Bench::open() else { return };
    let frame = |port| Frame::new("192.0.2.9", "198.51.100.10", port, 80, Transport::Udp);
    let mut accepted = 0;
    for port in 1_000..60_000 {
        match bench.programs.run("uplink_in", &frame(port).bytes()).unwrap().verdict {
            NEXT => accepted += 1,
            _ => break,
        }
    }
    assert!(accepted > 100, "{accepted} flows fitted");
    assert!(bench.drops().contains_key(&DropReason::ConntrackFull));
    for port in 1_000..1_000 + accepted {
        assert_eq!(bench.programs.run("uplink_in", &frame(port).bytes()).unwrap().verdict, NEXT, "port {port}");
    }
}

#[test]
fn a_connection_counts_as_established_when_the_client_has_acknowledged_the_handshake() {
    use ct_flags::{ACKED, AT_EGRESS, REPLY, SEEN};
    let Some(bench) = Bench::open() else { return };
    let (client, vip, backend) = ("192.0.2.9", "198.51.100.10", "127.0.0.9");
    let steps = [
        ("uplink_in", Frame::new(client, vip, 40_000, 80, Transport::Tcp), [SEEN, REPLY | AT_EGRESS]),
        (
            "uplink_out",
            Frame::new(backend, client, 8_080, 40_000, Transport::TcpSynAck),
            [SEEN, REPLY | AT_EGRESS | SEEN],
        ),
        ("uplink_in", Frame::new(client, vip, 40_000, 80, Transport::TcpAck), [SEEN | ACKED, REPLY | AT_EGRESS | SEEN]),
    ];
    for (program, frame, expected) in steps {
        assert_eq!(bench.programs.run(program, &frame.bytes()).unwrap().verdict, NEXT);
        assert_eq!(bench.conntrack_flags(), expected, "{frame:?}");
    }
}

#[test]
fn a_port_that_was_refused_opens_a_new_connection_the_next_time() {
    use ct_flags::{AT_EGRESS, REPLY, RST, SEEN};
    let Some(bench) = Bench::open() else { return };
    let (client, vip, backend) = ("192.0.2.9", "198.51.100.10", "127.0.0.9");
    let syn = Frame::new(client, vip, 40_000, 80, Transport::Tcp);
    let refusal = Frame::new(backend, client, 8_080, 40_000, Transport::TcpRst);
    assert_eq!(bench.programs.run("uplink_in", &syn.bytes()).unwrap().verdict, NEXT);
    assert_eq!(bench.programs.run("uplink_out", &refusal.bytes()).unwrap().verdict, NEXT);
    assert_eq!(bench.conntrack_flags(), [SEEN, REPLY | AT_EGRESS | SEEN | RST]);
    assert_eq!(bench.programs.run("uplink_in", &syn.bytes()).unwrap().verdict, NEXT);
    assert_eq!(bench.conntrack_flags(), [SEEN, REPLY | AT_EGRESS], "nothing of the refused connection is left");
}

#[test]
fn a_flow_outlives_its_service_and_its_endpoint() {
    let Some(mut bench) = Bench::open() else { return };
    let (client, vip) = ("192.0.2.9", "198.51.100.10");
    let syn = |port| Frame::new(client, vip, port, 80, Transport::Tcp);
    let later = Frame::new(client, vip, 40_000, 80, Transport::TcpAck);
    assert_eq!(bench.programs.run("uplink_in", &syn(40_000).bytes()).unwrap().verdict, NEXT);
    let mut gone = services();
    gone.vips.clear();
    gone.frontends.retain(|(key, _)| [80, 30_080].contains(&key.port.get()));
    gone.frontends.iter_mut().for_each(|(_, frontend)| *frontend = None);
    bench.program(gone);
    let ran = bench.programs.run("uplink_in", &later.bytes()).unwrap();
    assert_eq!(ran.verdict, NEXT, "the established flow goes on");
    later.moved(client, "127.0.0.9", 40_000, 8_080).assert_is(&ran.packet, "the established flow");
    assert_eq!(
        bench.programs.run("uplink_in", &syn(40_001).bytes()).unwrap().verdict,
        REDIRECT,
        "a new one is refused"
    );
}
