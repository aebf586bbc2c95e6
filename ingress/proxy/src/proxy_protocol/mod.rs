//! The PROXY protocol, versions 1 and 2: what a load balancer in front says about the client of a connection.
//!
//! On the packet's way it stands first, before TLS and HTTP: `intake` collects the bytes, this parses them. Pure: bytes in, a
//! header, "more" or a fault out. Whether an address is believed is not decided here, but by `edge` and the list of trusted
//! peers. Source: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

mod v1;
mod v2;

use std::net::SocketAddr;

/// The longest header of either version that is read, as in nginx. A first version's line has its own limit of 107 bytes.
pub const MAX_HEADER_BYTES: usize = 4096;

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it takes; what is behind them is the connection's own.
    pub length: usize,
    /// Whom it speaks of; `None` for the balancer's own connections (LOCAL), UNKNOWN, and families that are not IP.
    pub flow: Option<Flow>,
}

/// The client's connection, as the sender of the header accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

/// The bytes are no header of either version, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid header of the PROXY protocol: {0}")]
pub struct Malformed(&'static str);

/// Parses the header that `bytes` begin with; `None` while it is incomplete.
///
/// # Errors
/// No more bytes can make this a header; the specification asks to close the connection.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let common = bytes.len().min(v2::SIGNATURE.len());
    if bytes.get(..common) == v2::SIGNATURE.get(..common) {
        return if common < v2::SIGNATURE.len() { Ok(None) } else { v2::parse(bytes) };
    }
    v1::parse(bytes)
}

/// Parses whatever bytes come, as the edge would; for fuzzing. A header never claims bytes that are not there.
#[must_use]
pub fn fuzz_proxy_protocol(bytes: &[u8]) -> Option<Header> {
    let header = parse(bytes).ok()??;
    (header.length <= bytes.len() && header.length <= MAX_HEADER_BYTES).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer must not depend on how the bytes arrive: no start of a good header is a fault or a header.
    #[test]
    fn starts_of_a_header_are_incomplete() {
        let second = [v2::SIGNATURE, &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187]].concat();
        for whole in [b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 443\r\n".to_vec(), second] {
            for end in 0..whole.len() {
                assert_eq!(parse(&whole[..end]), Ok(None), "{end} bytes of {whole:?}");
            }
            let followed = [&whole, &b"GET / HTTP/1.1\r\n"[..]].concat();
            assert_eq!(parse(&followed).unwrap().unwrap().length, whole.len());
            assert_eq!(fuzz_proxy_protocol(&followed), parse(&whole).unwrap());
        }
    }

    #[test]
    fn other_protocols_are_no_header() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/2.0\r\n\r\n", b"\r\n\r\n\0\n"]
        {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }

    /// Bytes from a generator: nothing panics, and nothing is claimed that is not there.
    #[test]
    fn arbitrary_bytes_do_no_harm() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut bytes = if state.is_multiple_of(2) { v2::SIGNATURE.to_vec() } else { b"PROXY ".to_vec() };
            for _ in 0..state % 40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push((state >> 33) as u8);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 1;
            if let Ok(Some(header)) = parse(&bytes) {
                assert!(header.length <= bytes.len(), "{bytes:?}");
            }
        }
    }
}
