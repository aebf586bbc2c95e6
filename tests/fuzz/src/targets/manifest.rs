//! YAML and JSON documents: whatever a file holds, reading ends, and every problem names its line. MetalLB's old configuration:
//! besides, what it is converted to can be read again.

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

/// MetalLB's configuration of before its objects.
pub(super) const OLD_CONFIG: Target = Target {
    name: "old-config",
    what: "MetalLB's old ConfigMap, and the text in it",
    seeds: || {
        owned(&[
            include_bytes!("../../../../userspace/sources/tests/metallb/samples/old-layer2.yaml"),
            include_bytes!("../../../../userspace/sources/tests/metallb/samples/old-bgp.yaml"),
            b"address-pools:\n- name: My_Pool\n  protocol: layer2\n  addresses: [192.0.2.0/24, 2001:db8::1-2001:db8::9]\n",
            b"apiVersion: metallb.io/v1beta1\nkind: AddressPool\nmetadata: {name: a}\nspec: {protocol: layer2, addresses: [192.0.2.0/24]}\n",
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
        b"|\n  ",
        b"\"",
        b"null",
        b"peers:\n",
        b"address-pools:\n- name: a\n",
        b"  protocol: bgp\n",
        b"  addresses: [192.0.2.1/32]\n",
        b"  auto-assign: false\n",
        b"  bgp-advertisements: [{localpref: 1}]\n",
        b"bgp-communities: {a: b}\n",
        b"bfd-profiles: [{name: x}]\n",
        b"18446744073709551616",
    ],
    longest: 4_000,
    run: |bytes| {
        let objects = roadstead_sources::fuzz_old(bytes);
        let count = |wanted: u8| bytes.iter().filter(|byte| **byte == wanted).count().min(40) / 8;
        way((objects.min(16), bytes.len().min(4096) / 512, count(b'{'), count(b'-'), count(b':')))
    },
};
