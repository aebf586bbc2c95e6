//! YAML and JSON documents: whatever a file holds, reading ends, and every problem names its line.

use super::{Target, owned, way};

/// Reading manifests.
pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    what: "YAML and JSON documents of manifests",
    seeds: || {
        owned(&[
            include_bytes!("../../../suite/tests/ingress/manifests/host-rules.yaml"),
            include_bytes!("../../../suite/tests/ingress/manifests/ingress-class.yaml"),
            include_bytes!("../../../lab/demo/web.yaml"),
            include_bytes!("../../../lab/demo/shop.yaml"),
            include_bytes!("../../../lab/demo/addresses.yaml"),
            br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"tls.crt":"eA=="}}"#,
            br#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"}}]}"#,
        ])
    },
    words: &[
        b"\n---\n",
        b": ",
        b"- ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"&a ",
        b"*a",
        b"!!binary ",
        b"|\n  ",
        b"? ",
        b"\"",
        b"null",
        b"kind: Ingress\n",
        b"spec:\n",
        b"metadata: { name: a }\n",
        b"18446744073709551616",
        b"\xef\xbb\xbf",
    ],
    longest: 8_000,
    run: |bytes| {
        roadstead_sources::fuzz_manifest(bytes);
        // The parser tells nothing; how the text is built is what makes inputs differ.
        let count = |wanted: u8| bytes.iter().filter(|byte| **byte == wanted).count().min(40) / 8;
        way((bytes.len().min(8192) / 512, count(b'{'), count(b'-'), count(b':'), count(b'&')))
    },
};
