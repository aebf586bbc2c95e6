//! What comes before HTTP on a connection, the PROXY protocol and TLS's first message; and the cookie that binds a client to an
//! endpoint.

use roadstead_proxy::{
    edge::fuzz_client_hello,
    handler::fuzz_session,
    proxy_protocol::{MAX_HEADER_BYTES, fuzz_proxy_protocol, parse},
};

use super::{Target, owned, way};

/// The PROXY protocol.
pub(super) const PROXY: Target = Target {
    name: "proxy",
    what: "headers of the PROXY protocol, versions 1 and 2",
    seeds: || {
        let second = b"\r\n\r\n\0\r\nQUIT\n".as_slice();
        let mut seeds = owned(&[
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 80\r\nGET / HTTP/1.1\r\n",
            b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 65535 443\r\n",
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN whatever it likes\r\n",
        ]);
        for rest in [
            b"\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x50\x01\xbb".as_slice(),
            b"\x21\x11\0\x13\xc0\0\x02\x01\xc0\0\x02\x02\0\x50\x01\xbb\x03\0\x04\0\0\0\0",
            b"\x20\0\0\0",
            b"\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\0\x50\x01\xbb",
        ] {
            seeds.push([second, rest].concat());
        }
        seeds
    },
    words: &[
        b"PROXY ",
        b"TCP4 ",
        b"TCP6 ",
        b"UNKNOWN",
        b"\r\n",
        b" ",
        b"0",
        b"65536",
        b"::",
        b"\xff\xff",
        b"\0\0",
        b"\x21\x12",
    ],
    longest: 6_000,
    run: proxy,
};

/// The peek at the ClientHello.
pub(super) const HELLO: Target = Target {
    name: "hello",
    what: "TLS ClientHello messages, peeked at for the name of the host",
    seeds: || {
        vec![hello(Some("a.example"), &[b"h2", b"http/1.1"]), hello(Some("a.example"), &[]), hello(None, &[b"h2"])]
    },
    words: &[
        b"\0\0",
        b"\x16\x03\x01",
        b"\x01\0",
        b"\0\x10",
        b"\0\x2b",
        b"\x03\x04",
        b"\xff\xff",
        b"a.example",
        b"\0\x0d",
    ],
    longest: 20_000,
    run: |bytes| {
        let found = fuzz_client_hello(bytes);
        if let Some((Some(name), _)) = &found {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            assert!(plain && !name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name:?} is a strange name");
        }
        way(found.map(|(name, protocols)| (name.map(|name| name.len().min(64)), protocols.len().min(16))))
    },
};

/// The cookie of a session.
pub(super) const SESSION: Target = Target {
    name: "session",
    what: "fields Cookie, as they choose an endpoint for a session",
    seeds: || {
        owned(&[
            b"s=0123456789abcdef0123456789abcdef|fedcba9876543210fedcba9876543210",
            b"a=1; s=x|y; b=2",
            b"s=\"quoted\"",
            b"route=1;s=|;s=second",
        ])
    },
    words: &[b"s=", b"|", b"; ", b";", b"=", b"ffffffffffffffffffffffffffffffff", b"\xff", b"\"", b" "],
    longest: 4_000,
    run: |bytes| {
        assert!(fuzz_session(bytes), "whatever a cookie says, there is an endpoint");
        let count = |wanted: &[u8]| bytes.windows(wanted.len()).filter(|window| *window == wanted).count().min(4);
        way([count(b"s="), count(b"|"), count(b";"), count(b"\xff")])
    },
};

fn proxy(bytes: &[u8]) -> u64 {
    let parsed = parse(bytes);
    // Whatever the start of a header says, the whole does not contradict it.
    for end in [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        match parse(bytes.get(..end).unwrap_or_default()) {
            Ok(None) => {}
            settled => assert_eq!(settled, parsed, "the first {end} bytes say otherwise"),
        }
    }
    match parsed {
        Ok(Some(header)) => {
            assert!(header.length <= bytes.len() && header.length <= MAX_HEADER_BYTES, "{header:?}");
            assert_eq!(fuzz_proxy_protocol(bytes), Some(header));
            assert_eq!(parse(bytes.get(..header.length).unwrap_or_default()), Ok(Some(header)));
            way((header.flow.map(|flow| (flow.source.is_ipv4(), flow.destination.is_ipv4())), header.length.min(256)))
        }
        Ok(None) => {
            assert!(bytes.len() <= MAX_HEADER_BYTES, "it waits for more than it reads");
            way("incomplete")
        }
        Err(malformed) => way(malformed.to_string()),
    }
}

/// A ClientHello as TLS 1.2 and 1.3 clients send it (RFC 8446, section 4.1.2), with a name and protocols.
fn hello(name: Option<&str>, protocols: &[&[u8]]) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        extensions.push((0u16, sized(2, &[&[0], &*sized(2, name.as_bytes())].concat())));
    }
    extensions.push((10, sized(2, &[0, 0x1d, 0, 0x17])));
    extensions.push((13, sized(2, &[4, 3, 8, 4, 4, 1])));
    extensions.push((43, sized(1, &[3, 4, 3, 3])));
    extensions.push((51, sized(2, &[&[0, 0x1d], &*sized(2, &[7; 32])].concat())));
    if !protocols.is_empty() {
        extensions.push((16, sized(2, &protocols.iter().flat_map(|name| sized(1, name)).collect::<Vec<u8>>())));
    }
    let extensions: Vec<u8> =
        extensions.iter().flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &sized(2, data)].concat()).collect();
    let body = [
        &[3, 3][..],
        &[9; 32],
        &sized(1, &[8; 32]),
        &sized(2, &[0x13, 1, 0x13, 2, 0xc0, 0x2b, 0xc0, 0x2f]),
        &sized(1, &[0]),
        &sized(2, &extensions),
    ]
    .concat();
    let message = [&[1][..], &sized(3, &body)].concat();
    [&[22, 3, 1][..], &sized(2, &message)].concat()
}

/// With its length in so many bytes before it.
fn sized(bytes: usize, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or_default().to_be_bytes();
    [length.get(4 - bytes..).unwrap_or_default(), data].concat()
}
