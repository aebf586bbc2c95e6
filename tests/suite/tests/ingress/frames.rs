//! HTTP/2 by hand (RFC 9113): frames as bytes, in the order and number that no library would send.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::client::connect;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// On DATA and HEADERS; on SETTINGS and PING the same bit is ACK.
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// A connection on which the preface has been sent.
pub(super) struct Frames {
    stream: TcpStream,
}

/// A frame that came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// How the proxy answered one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Status(u16),
    /// The stream was reset, with this error code.
    Reset(u32),
    /// The connection was ended, with this error code.
    GoAway(u32),
    /// It was closed without a word.
    Closed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Frames {
    pub(super) fn open(address: SocketAddr) -> Self {
        let mut frames = Self { stream: connect(address) };
        frames.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames.write(&frame(SETTINGS, 0, 0, &[])).unwrap();
        frames
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame; `None` at the end, by a reset too.
    pub(super) fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], stream, payload })
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("neither a frame nor an end in time")
            }
            Err(_) => None,
        }
    }

    /// What becomes of a stream.
    pub(super) fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some(frame) = self.read() {
            match frame.kind {
                HEADERS if frame.stream == stream => return Outcome::Status(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(word(&frame.payload)),
                GOAWAY => return Outcome::GoAway(word(&frame.payload[4..])),
                _ => {}
            }
        }
        Outcome::Closed
    }

    /// Reads to the end of the connection: the error code of its GOAWAY, if one came.
    pub(super) fn end(&mut self) -> Outcome {
        let mut outcome = Outcome::Closed;
        while let Some(frame) = self.read() {
            if frame.kind == GOAWAY {
                outcome = Outcome::GoAway(word(&frame.payload[4..]));
            }
        }
        outcome
    }

    /// A write that waits for longer fails.
    pub(super) fn set_patience(&self, patience: Duration) {
        self.stream.set_write_timeout(Some(patience)).unwrap();
    }

    /// A second handle on the connection, to read while another thread writes.
    pub(super) fn reader(&self) -> Self {
        Self { stream: self.stream.try_clone().unwrap() }
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields as HPACK literals that leave the dynamic table alone (RFC 7541, section 6.2.2), whatever they hold.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            // A length of seven bits, or more in groups of seven.
            match text.len() {
                length @ ..127 => bytes.push(u8::try_from(length).unwrap()),
                length => {
                    bytes.push(127);
                    let mut rest = length - 127;
                    while rest >= 128 {
                        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    bytes.push(u8::try_from(rest).unwrap());
                }
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// `GET target` for the host `a`, the whole request in one frame.
pub(super) fn get(stream: u32, target: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", target)];
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&fields))
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// `:status`, the first field of an answer's block, where nothing is in the dynamic table yet.
fn status(block: &[u8]) -> u16 {
    match block {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(*index - 0x88)],
        // A literal value for the name at 8: plain digits, or digits in Huffman's code (RFC 7541, appendix B).
        [0x48 | 0x08, length, rest @ ..] if length & 0x80 == 0 => {
            std::str::from_utf8(&rest[..3]).unwrap().parse().unwrap()
        }
        [0x48 | 0x08, _, rest @ ..] => digits(u32::from_be_bytes([rest[0], rest[1], *rest.get(2).unwrap_or(&0), 0])),
        other => panic!("no status in {other:?}"),
    }
}

/// Three digits: 0 to 2 are five bits, the others six bits from 011001 on.
fn digits(mut bits: u32) -> u16 {
    let mut number = 0;
    for _ in 0..3 {
        let digit = match bits >> 27 {
            short @ 0..=2 => {
                bits <<= 5;
                short
            }
            _ => {
                let long = (bits >> 26) - 0b01_1001 + 3;
                bits <<= 6;
                long
            }
        };
        number = number * 10 + digit;
    }
    u16::try_from(number).unwrap()
}
