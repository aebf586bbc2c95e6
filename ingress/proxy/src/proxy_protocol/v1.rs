//! Version 1: one line of text, written as exactly as the specification's section 2.1 has it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::{self, FromStr},
};

use super::{Flow, Header, Malformed};

/// With its line end; the specification's own worst case.
const MAX_LINE_BYTES: usize = 107;
const START: &[u8] = b"PROXY ";

pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let common = bytes.len().min(START.len());
    if bytes.get(..common) != START.get(..common) {
        return Err(Malformed("neither version's start"));
    }
    let window = bytes.get(..bytes.len().min(MAX_LINE_BYTES)).unwrap_or_default();
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_LINE_BYTES { Ok(None) } else { Err(Malformed("the line does not end in time")) };
    };
    let line = window.get(START.len()..end).unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| Malformed("the line is no text"))?;
    Ok(Some(Header { length: end + 2, flow: flow(line)? }))
}

/// What follows `PROXY `.
fn flow(line: &str) -> Result<Option<Flow>, Malformed> {
    // What is behind UNKNOWN is to be ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (Some(family), Some(source), Some(destination), Some(source_port), Some(destination_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed("the line is not six words"));
    };
    let (source, destination) = match family {
        "TCP4" => (address::<Ipv4Addr>(source)?, address::<Ipv4Addr>(destination)?),
        "TCP6" => (address::<Ipv6Addr>(source)?, address::<Ipv6Addr>(destination)?),
        _ => return Err(Malformed("unknown family")),
    };
    Ok(Some(Flow {
        source: SocketAddr::new(source, port(source_port)?),
        destination: SocketAddr::new(destination, port(destination_port)?),
    }))
}

fn address<A: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, Malformed> {
    word.parse().map(A::into).map_err(|_| Malformed("an address is not of the family"))
}

/// Decimal digits without a leading zero.
fn port(word: &str) -> Result<u16, Malformed> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain).ok_or(Malformed("a port is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Option<(&str, &str)>, ()>) {
        let expected = expected.map(|flow| {
            flow.map(|(source, destination)| Flow {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
            })
        });
        let parsed = parse(line.as_bytes()).map(|header| header.expect("it is complete").flow).map_err(drop);
        assert_eq!(parsed, expected, "{line:?}");
    }

    #[test]
    fn lines_are_read() {
        check("PROXY TCP4 192.0.2.1 192.0.2.2 51234 443\r\n", Ok(Some(("192.0.2.1:51234", "192.0.2.2:443"))));
        check("PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n", Ok(Some(("255.255.255.255:0", "0.0.0.0:65535"))));
        check("PROXY TCP6 2001:db8::1 ::1 1 2\r\nGET /", Ok(Some(("[2001:db8::1]:1", "[::1]:2"))));
        check("PROXY UNKNOWN\r\n", Ok(None));
        check("PROXY UNKNOWN ffff::1 whatever 1 x\r\n", Ok(None));
    }

    #[test]
    fn loose_lines_are_faults() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.02.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nX\r\n",
            "PROXY UNKNOWNS\r\n",
        ] {
            check(line, Err(()));
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(MAX_LINE_BYTES));
        assert!(parse(endless.as_bytes()).is_err());
        assert!(parse(format!("{endless}\r\n").as_bytes()).is_err());
    }
}
