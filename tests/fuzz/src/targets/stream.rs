//! The guard between a client's stream and hyper: however a stream is cut into reads, the same heads come out, each of them
//! judged, and nothing behind a refused one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use roadstead_proxy::head::{Guard, Limits, MAX_HEAD_BYTES, end_of_head};
use tokio::{
    io::{AsyncRead, ReadBuf},
    runtime::Runtime,
};

use super::{
    Target,
    head::{SEEDS, WORDS},
    owned, way,
};

/// Guarding a stream.
pub(super) const STREAM: Target = Target {
    name: "stream",
    what: "HTTP/1 streams of several requests, cut into reads in any way",
    seeds: || {
        let mut seeds = owned(&SEEDS);
        seeds.push(SEEDS.concat());
        seeds.push(b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());
        seeds.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec());
        seeds
    },
    words: WORDS,
    longest: 40_000,
    run: stream,
};

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    /// hyper was told that there is no more.
    Closed,
    /// hyper was told of an error.
    Failed,
    /// hyper waits: a refused client's rest is being dropped.
    Waiting,
}

fn stream(bytes: &[u8]) -> u64 {
    thread_local! {
        // The guard has timers; they are never waited for.
        static RUNTIME: Option<Runtime> = tokio::runtime::Builder::new_current_thread().enable_time().build().ok();
    }
    RUNTIME.with(|runtime| {
        let _entered = runtime.as_ref().map(Runtime::enter);
        let (whole, end) = read(bytes, usize::MAX);
        for size in [1, 2 + bytes.len() % 61] {
            let (pieces, other) = read(bytes, size);
            assert_eq!(other, end, "cut into {size} bytes it ends otherwise");
            // Before a body breaks, more or less of it may have gone by.
            let same =
                pieces == whole || end == End::Failed && (pieces.starts_with(&whole) || whole.starts_with(&pieces));
            assert!(same, "cut into {size} bytes other bytes come out");
        }
        assert!(whole.len() <= bytes.len() + 200, "more comes out than went in");
        if let Ok(Some(end)) = end_of_head(&whole, 0) {
            assert!(end <= MAX_HEAD_BYTES);
        }
        let messages = whole.windows(9).filter(|window| *window == b" HTTP/1.1").count();
        way((end, messages.min(32), whole.len().min(1024) / 32))
    })
}

/// Everything that the guard lets through of a stream that comes in reads of this size.
fn read(bytes: &[u8], size: usize) -> (Vec<u8>, End) {
    let long = Duration::from_secs(3600);
    let mut guard = Guard::new(
        Pieces { rest: bytes, size },
        Limits { head_bytes: MAX_HEAD_BYTES, head: long, body: long, write: long, http2: true },
    );
    let mut context = Context::from_waker(Waker::noop());
    let (mut out, mut space) = (Vec::new(), [0; 4096]);
    loop {
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut guard).poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return (out, End::Closed),
            Poll::Ready(Ok(())) => out.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(_)) => return (out, End::Failed),
            Poll::Pending => return (out, End::Waiting),
        }
    }
}

/// A stream that never waits.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.size.min(out.remaining()).min(self.rest.len());
        if let Some((now, rest)) = self.rest.split_at_checked(count) {
            out.put_slice(now);
            self.rest = rest;
        }
        Poll::Ready(Ok(()))
    }
}
