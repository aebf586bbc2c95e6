//! What anybody on the segment may send: ARP and NDP frames, heartbeats of speakers.

use std::time::Duration;

use roadstead_layer2::{
    announce, fuzz_datagram, fuzz_frame,
    membership::{Key, Membership},
    responder::Station,
    wire::{Frame, Mac},
};

use super::{Target, way};

/// ARP and NDP.
pub(super) const FRAME: Target = Target {
    name: "frame",
    what: "ARP and NDP frames",
    seeds: || {
        let station = Station { mac: Mac([2, 0, 0, 0, 0, 1]), link_local: None };
        let ips = ["192.0.2.1", "2001:db8::1"].into_iter().filter_map(|ip| ip.parse().ok());
        ips.flat_map(|ip| announce::frames(&station, ip)).map(|frame| frame.encode()).collect()
    },
    words: &[&[0x08, 0x06], &[0x86, 0xdd], &[0xff; 6], &[0; 4], &[58, 255], &[135, 0], &[136, 0], &[1, 1]],
    longest: 1_500,
    run: |bytes| {
        fuzz_frame(bytes);
        way(match Frame::parse(bytes) {
            Ok(frame) => format!("{frame:?}").len().to_string(),
            Err(error) => format!("{error:?}"),
        })
    },
};

/// Heartbeats.
pub(super) const DATAGRAM: Target = Target {
    name: "datagram",
    what: "heartbeats between speakers",
    seeds: || {
        [None, Some(Key::new(b"key"))]
            .into_iter()
            .filter_map(|key| {
                let mut member = Membership::new("b", 7, ["a".to_owned()], key, Duration::ZERO);
                member.tick(Duration::ZERO).heartbeat
            })
            .collect()
    },
    words: &[b"\0", b"\xff\xff\xff\xff", b"a", b"b"],
    longest: 1_500,
    run: |bytes| {
        fuzz_datagram(bytes);
        let mut member = Membership::new("a", 1, ["b".to_owned()], None, Duration::ZERO);
        way(format!("{:?}", member.receive(Duration::ZERO, bytes, |_| true)))
    },
};
