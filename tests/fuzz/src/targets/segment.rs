//! What anybody on the segment may send: ARP and NDP frames, heartbeats of speakers.

use std::time::Duration;

use roadstead_layer2::{
    fuzz_datagram, fuzz_frame, fuzz_neighbour,
    membership::{Key, Membership},
    neighbours,
    wire::Frame,
};

use super::{Target, way};

/// ARP and NDP.
pub(super) const FRAME: Target = Target {
    name: "frame",
    what: "ARP and NDP frames",
    seeds: neighbours,
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

/// What a node does about ARP and NDP.
pub(super) const NEIGHBOUR: Target = Target {
    name: "neighbour",
    what: "answers to ARP and NDP frames, and claims in them",
    run: |bytes| {
        fuzz_neighbour(bytes);
        (FRAME.run)(bytes)
    },
    ..FRAME
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
