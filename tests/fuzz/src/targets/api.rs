//! What an API server sends: lines of a watch and pages of a list. Whatever comes, reading ends, and each object is taken or refused.

use super::{Target, owned, way};

/// Lines and pages, and the objects in them.
pub(super) const WATCH: Target = Target {
    name: "watch",
    what: "lines of a watch and pages of a list of the Kubernetes API",
    seeds: || {
        owned(&[
            br#"{"type":"ADDED","object":{"kind":"Service","apiVersion":"v1","metadata":{"name":"a","namespace":"b","resourceVersion":"7"},"spec":{"clusterIP":"10.96.0.1","ports":[{"port":80}]}}}"#,
            br#"{"type":"MODIFIED","object":{"metadata":{"name":"a","namespace":"b","labels":{"kubernetes.io/service-name":"a"}},"addressType":"IPv4","ports":[{"port":80}],"endpoints":[{"addresses":["10.0.0.1"]}]}}"#,
            br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#,
            br#"{"metadata":{"resourceVersion":"5","continue":"t"},"items":[{"metadata":{"name":"a"},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}]}}]}"#,
        ])
    },
    words: &[
        b"\n",
        b"{\"type\":\"DELETED\",\"object\":",
        b"\"metadata\":{\"name\":\"a\"}",
        b"\"spec\":{",
        b"\"items\":[",
        b"null",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\"\\ud800\"",
        b"-1e999",
        b"18446744073709551616",
    ],
    longest: 4_000,
    run: |bytes| {
        let read = roadstead_sources::fuzz_wire(bytes);
        let count = |wanted: u8| bytes.iter().filter(|byte| **byte == wanted).count().min(40) / 8;
        way((read.min(16), bytes.len().min(4096) / 512, count(b'{'), count(b'['), count(b':')))
    },
};
