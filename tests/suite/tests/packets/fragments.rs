//! Fragmented datagrams through a Service: the first fragment has the ports, the others are known by their datagram.

use roadstead_abi::DropReason;

use super::{
    bench::Bench,
    frames::{Frame, Transport},
};

const NEXT: i32 = -1;
const DROP: i32 = 2;
const ETH_LEN: usize = 14;

const PLACES: [[&str; 3]; 2] = [["192.0.2.9", "198.51.100.10", "127.0.0.9"], ["2001:db8::9", "2001:db8:ff::10", "::1"]];

#[test]
fn all_fragments_of_a_datagram_reach_one_backend_and_its_answer_returns_in_fragments() {
    let Some(bench) = Bench::open() else { return };
    for [client, vip, backend] in PLACES {
        let there = Frame::new(client, vip, 40_000, 80, Transport::Udp);
        let back = Frame::new(backend, client, 8_080, 40_000, Transport::Udp);
        let ways = [
            ("uplink_in", there.in_fragments(), there.moved(client, backend, 40_000, 8_080).in_fragments()),
            ("uplink_out", back.in_fragments(), back.moved(vip, client, 80, 40_000).in_fragments()),
        ];
        for (program, sent, expected) in ways {
            for (number, (fragment, expected)) in sent.iter().zip(&expected).enumerate() {
                let ran = bench.programs.run(program, fragment).unwrap();
                assert_eq!(ran.verdict, NEXT, "{vip}: {program}, fragment {number}");
                assert_eq!(ran.packet[ETH_LEN..], expected[ETH_LEN..], "{vip}: {program}, fragment {number}");
            }
        }
    }
}

#[test]
fn a_fragment_whose_first_one_was_not_seen_is_dropped_and_counted() {
    let Some(mut bench) = Bench::open() else { return };
    for [client, vip, _] in PLACES {
        let [_, later] = Frame::new(client, vip, 41_000, 80, Transport::Udp).in_fragments();
        let before = bench.drops();
        let ran = bench.programs.run("uplink_in", &later).unwrap();
        assert_eq!((ran.verdict, &ran.packet), (DROP, &later), "{vip}");
        assert_eq!(bench.drops_since(&before), [DropReason::Fragment], "{vip}");
    }
}
