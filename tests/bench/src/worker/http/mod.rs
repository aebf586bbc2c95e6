//! The endpoint behind the proxies of `bench ingress`, and its own clients, where `wrk` and `h2load` do not do.
//!
//! Clients write fixed requests and read just enough of the answers: they share a CPU with the endpoint, and what they
//! take there the proxy waits for. Blocking sockets, a thread a connection; the endpoint alone has a runtime.

pub(crate) mod edits;
pub(crate) mod endpoint;
pub(crate) mod handshakes;
pub(crate) mod hold;
pub(crate) mod pace;
mod tls;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// What of an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The first byte of the body: which endpoint it came from.
    pub(crate) mark: Option<u8>,
    /// The connection takes another request.
    pub(crate) stays_open: bool,
}

/// A connection's buffer; an answer is read whole, so nothing stays in it between two.
#[derive(Debug, Default)]
pub(crate) struct Reader(Vec<u8>);

/// The request of every client here.
pub(crate) fn request(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: roadstead-bench\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// A connection without delays, and without patience for whoever hangs.
pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl Reader {
    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<Answer> {
        stream.write_all(request)?;
        self.0.clear();
        let end = loop {
            self.fill(stream)?;
            if let Some(end) = end_of_head(&self.0) {
                break end;
            }
        };
        let head = parse_head(self.0.get(..end).unwrap_or_default())?;
        while !head.length.is_whole(self.0.get(end..).unwrap_or_default()) {
            self.fill(stream)?;
        }
        let mark = head.length.mark(self.0.get(end..).unwrap_or_default());
        Ok(Answer { status: head.status, mark, stays_open: head.stays_open })
    }

    fn fill(&mut self, stream: &mut impl Read) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        match stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.0.extend_from_slice(piece.get(..count).unwrap_or_default());
                Ok(())
            }
        }
    }
}

/// The part of an answer's head that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Length,
    stays_open: bool,
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
}

impl Length {
    fn is_whole(self, body: &[u8]) -> bool {
        match self {
            Self::Bytes(length) => body.len() >= length,
            Self::Chunked => body.ends_with(b"0\r\n\r\n"),
        }
    }

    /// The first byte of the content; in chunks it stands behind the line of the first one's size.
    fn mark(self, body: &[u8]) -> Option<u8> {
        let start = match self {
            Self::Bytes(_) => 0,
            Self::Chunked => body.iter().position(|byte| *byte == b'\n')? + 1,
        };
        body.get(start).copied()
    }
}

/// Behind the empty line.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|place| place + 4)
}

fn parse_head(head: &[u8]) -> io::Result<Head> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "no answer of HTTP/1.1");
    let text = std::str::from_utf8(head).map_err(|_| broken())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let mut parsed = Head { status: status.ok_or_else(broken)?, length: Length::Bytes(0), stays_open: true };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => parsed.length = Length::Bytes(value.parse().map_err(|_| broken())?),
            "transfer-encoding" => parsed.length = Length::Chunked,
            "connection" => parsed.stays_open = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// What a server sends, piece by piece; what it gets is lost.
    struct Pieces(VecDeque<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.pop_front().unwrap_or_default();
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn check(pieces: &[&'static [u8]], expected: Option<Answer>) {
        let mut stream = Pieces(pieces.iter().copied().collect());
        let answer = Reader::default().ask(&mut stream, b"").ok();
        assert_eq!(answer, expected, "{pieces:?}");
        assert!(stream.0.is_empty(), "{pieces:?} is read to its end");
    }

    #[test]
    fn answers_are_read_whole() {
        let answer = |status, mark: Option<u8>, stays_open| Some(Answer { status, mark, stays_open });
        check(&[b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 3\r\n\r", b"\na", b"aa"], answer(200, Some(b'a'), true));
        check(&[b"HTTP/1.1 503 No\r\nconnection: close\r\n\r\n"], answer(503, None, false));
        check(
            &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbb\r\n", b"0\r\n\r\n"],
            answer(200, Some(b'b'), true),
        );
        check(&[b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na"], None);
        check(&[b"SSH-2.0\r\n\r\n"], None);
    }
}
