//! What anybody on the segment may send: ARP and NDP frames, heartbeats of speakers.

use roadstead_layer2::{
    datagram_seeds, document_seeds, fuzz_datagram, fuzz_document, fuzz_frame, fuzz_neighbour, neighbours, wire::Frame,
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
    what: "what speakers say to each other: heartbeats, standings, questions, probes, echoes, parts of documents",
    seeds: datagram_seeds,
    words: &[
        b"\0",
        b"\xff\xff\xff\xff",
        b"a",
        b"b",
        b"RSSP",
        b"RSSS",
        b"RSSI",
        b"RSSA",
        b"RSSV",
        b"RSSQ",
        b"RSPB",
        b"RSEC",
    ],
    longest: 1_500,
    run: |bytes| way(fuzz_datagram(bytes)),
};

/// What the parts of a document come to.
pub(super) const DOCUMENT: Target = Target {
    name: "document",
    what: "the map of assigned addresses and the view of a peer's files, as a peer hands them on",
    seeds: document_seeds,
    words: &[b"\0", b"\x07default", b"\x02s1", b"\0\0\0\0\0\0\0\x01", b"\x01a", b"\x04\xc0\0\x02\x01", b"\x06"],
    longest: 4_000,
    run: |bytes| way(fuzz_document(bytes)),
};
