//! Version 2: a binary header (section 2.2). TLVs behind the addresses are skipped unread.

use std::net::{IpAddr, SocketAddr};

use super::{Flow, Header, MAX_HEADER_BYTES, Malformed};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const FIXED_BYTES: usize = 16;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return start(bytes).map(|()| None) };
    start(bytes)?;
    let [.., family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED_BYTES + length > MAX_HEADER_BYTES {
        return Err(Malformed("the header is too long"));
    }
    let Some(block) = rest.get(..length) else { return Ok(None) };
    let flow = if is_local(bytes) { None } else { flow(family, block)? };
    Ok(Some(Header { length: FIXED_BYTES + length, flow }))
}

/// Version and command, as soon as they are there.
fn start(bytes: &[u8]) -> Result<(), Malformed> {
    match bytes.get(SIGNATURE.len()) {
        None | Some(0x20 | 0x21) => Ok(()),
        Some(_) => Err(Malformed("neither LOCAL nor PROXY of version 2")),
    }
}

/// The sender's own connection, such as a health check: whatever the block holds is to be ignored.
fn is_local(bytes: &[u8]) -> bool {
    bytes.get(SIGNATURE.len()) == Some(&0x20)
}

/// The addresses at the start of the block, where they are those of a TCP connection. Others are valid and tell nothing.
fn flow(family: u8, block: &[u8]) -> Result<Option<Flow>, Malformed> {
    const SHORT: Malformed = Malformed("the addresses do not fit the length");
    match family {
        0x11 => {
            let [a, b, c, d, e, f, g, h, ports @ ..] = *block.first_chunk::<12>().ok_or(SHORT)?;
            let ends = (IpAddr::from([a, b, c, d]), IpAddr::from([e, f, g, h]));
            Ok(Some(connect(ends, ports)))
        }
        0x21 => {
            let (source, rest) = block.split_first_chunk::<16>().ok_or(SHORT)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            let ports = rest.first_chunk::<4>().ok_or(SHORT)?;
            let ends = (IpAddr::from(*source), IpAddr::from(*destination));
            Ok(Some(connect(ends, *ports)))
        }
        // Unspecified, datagrams, and UNIX sockets of either kind.
        0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32 => Ok(None),
        _ => Err(Malformed("unassigned family or transport")),
    }
}

fn connect((source, destination): (IpAddr, IpAddr), [a, b, c, d]: [u8; 4]) -> Flow {
    Flow {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    fn check(command: u8, family: u8, block: &[u8], expected: Result<Option<(&str, &str)>, ()>) {
        let expected = expected.map(|flow| {
            flow.map(|(source, destination)| Flow {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
            })
        });
        let bytes = header(command, family, block);
        let parsed = parse(&bytes).map_err(drop).map(|header| {
            let header = header.expect("it is complete");
            assert_eq!(header.length, bytes.len());
            header.flow
        });
        assert_eq!(parsed, expected, "{command:x} {family:x} {block:?}");
    }

    const V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0xc8, 0x22, 1, 187];

    #[test]
    fn addresses_are_read_and_tlvs_skipped() {
        let v4 = Some(("192.0.2.1:51234", "192.0.2.2:443"));
        check(0x21, 0x11, V4, Ok(v4));
        check(0x21, 0x11, &[V4, &[0x03, 0, 4, 1, 2, 3, 4, 0x20, 0xff]].concat(), Ok(v4));
        let ends: Vec<u8> = ["2001:db8::1", "::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).concat();
        check(0x21, 0x21, &[&ends[..], &[0, 1, 0, 2]].concat(), Ok(Some(("[2001:db8::1]:1", "[::1]:2"))));
    }

    #[test]
    fn connections_of_the_balancer_itself_tell_no_client() {
        check(0x20, 0x11, V4, Ok(None));
        check(0x20, 0x00, &[], Ok(None));
        check(0x20, 0xff, &[1, 2, 3], Ok(None));
        for family in [0x00, 0x12, 0x22, 0x31, 0x32] {
            check(0x21, family, &[0; 216], Ok(None));
        }
    }

    #[test]
    fn what_is_not_assigned_or_too_short_is_a_fault() {
        for command in [0x00, 0x11, 0x22, 0x2f, 0x31] {
            check(command, 0x11, V4, Err(()));
        }
        for family in [0x03, 0x13, 0x41, 0xff] {
            check(0x21, family, V4, Err(()));
        }
        check(0x21, 0x11, &V4[..11], Err(()));
        check(0x21, 0x21, &[0; 35], Err(()));
        check(0x21, 0x11, &[0; MAX_HEADER_BYTES - FIXED_BYTES + 1], Err(()));
        check(0x21, 0x31, &[0; MAX_HEADER_BYTES - FIXED_BYTES], Ok(None));
        // Told from the first bytes, before a block of 64 KiB has come.
        assert!(parse(&[SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat()).is_err());
    }
}
