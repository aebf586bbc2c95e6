//! ICMP errors about translated packets: outer and quoted header are translated, checksums included, so that a path MTU is
//! discovered through a Service's address.

use super::{
    bench::Bench,
    frames::{Frame, Transport},
};

const NEXT: i32 = -1;
const DROP: i32 = 2;
const ETH_LEN: usize = 14;

/// Client, Service, backend on this node, router.
const PLACES: [[&str; 4]; 2] = [
    ["192.0.2.9", "198.51.100.10", "127.0.0.9", "203.0.113.254"],
    ["2001:db8::9", "2001:db8:ff::10", "::1", "2001:db8:5::fe"],
];

#[test]
fn an_error_about_an_answer_reaches_the_backend_as_if_no_service_stood_between() {
    let Some(bench) = Bench::open() else { return };
    for [client, vip, backend, router] in PLACES {
        for transport in [Transport::Tcp, Transport::Udp] {
            let label = format!("{vip} by {transport:?}");
            let opening = Frame::new(client, vip, 40_000, 80, transport);
            assert_eq!(bench.programs.run("uplink_in", &opening.bytes()).unwrap().verdict, NEXT, "{label}");
            let answer = Frame::new(vip, client, 80, 40_000, transport);
            let error = answer.too_big(router, vip);
            let ran = bench.programs.run("uplink_in", &error).unwrap();
            assert_eq!(ran.verdict, NEXT, "{label}");
            let expected = answer.moved(backend, client, 8_080, 40_000).too_big(router, backend);
            assert_same(&ran.packet, &expected, transport, &label);
        }
    }
}

#[test]
fn an_error_about_a_request_reaches_the_client_from_the_service() {
    let Some(bench) = Bench::open() else { return };
    for [client, vip, backend, _] in PLACES {
        let opening = Frame::new(client, vip, 40_000, 80, Transport::Tcp);
        assert_eq!(bench.programs.run("uplink_in", &opening.bytes()).unwrap().verdict, NEXT, "{vip}");
        // The backend's own stack says it.
        let translated = opening.moved(client, backend, 40_000, 8_080);
        let ran = bench.programs.run("uplink_out", &translated.too_big(backend, client)).unwrap();
        assert_eq!(ran.verdict, NEXT, "{vip}");
        assert_same(&ran.packet, &opening.too_big(vip, client), Transport::Tcp, vip);
    }
}

#[test]
fn an_error_about_no_flow_is_dropped_at_a_service_and_passes_elsewhere() {
    let Some(bench) = Bench::open() else { return };
    for ([client, vip, _, router], stranger) in PLACES.into_iter().zip(["203.0.113.5", "2001:db8:5::5"]) {
        for (address, verdict) in [(vip, DROP), (stranger, NEXT)] {
            let error = Frame::new(address, client, 80, 50_000, Transport::Tcp).too_big(router, address);
            let ran = bench.programs.run("uplink_in", &error).unwrap();
            assert_eq!(ran.verdict, verdict, "{address}");
            assert_eq!(ran.packet, error, "{address}: untouched");
        }
    }
}

/// The packets are the same, but for a quoted UDP checksum, which nobody looks at, and what it adds to the error's.
fn assert_same(packet: &[u8], expected: &[u8], transport: Transport, label: &str) {
    assert_eq!(packet.len(), expected.len(), "{label}");
    if transport == Transport::Tcp {
        assert_eq!(packet[ETH_LEN..], expected[ETH_LEN..], "{label}");
        return;
    }
    let header = if packet[12..14] == [8, 0] { 20 } else { 40 };
    let checked = [ETH_LEN..ETH_LEN + header + 2, ETH_LEN + header + 4..packet.len() - 2];
    for range in checked {
        assert_eq!(packet[range.clone()], expected[range], "{label}");
    }
    let sum =
        |bytes: &[u8]| -> u32 { bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum() };
    let mut total = sum(&packet[ETH_LEN + header..]);
    if header == 40 {
        total += sum(&packet[ETH_LEN + 8..ETH_LEN + 40]) + u32::try_from(packet.len() - ETH_LEN - 40).unwrap() + 58;
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    assert_eq!(total, 0xffff, "{label}: the error's own checksum");
}
