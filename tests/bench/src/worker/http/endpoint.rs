//! The endpoint: 1 KiB for any request, 1 MiB for `/1m`, as fast as one thread can; a letter for each listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::end_of_head;

/// What the endpoint prints when it listens.
pub(crate) const LISTENING: &str = "listening";
/// The path of the large answer.
pub(crate) const LARGE: &str = "/1m";
/// The letters that the listeners' answers consist of, in their order.
pub(crate) const MARKS: [u8; 2] = [b'a', b'b'];

const USUAL_BYTES: usize = 1 << 10;
const LARGE_BYTES: usize = 1 << 20;
/// Proxies send no larger head here; a connection that does is closed.
const LONGEST_HEAD: usize = 16 * 1024;

/// The flags of `roadstead-bench endpoint`.
#[derive(Args, Debug)]
pub(crate) struct EndpointFlags {
    /// Where to listen; the first one answers with the first letter (repeatable)
    #[arg(long)]
    listen: Vec<SocketAddr>,
}

/// The answers of one listener.
struct Answers {
    usual: Vec<u8>,
    large: Vec<u8>,
}

impl Answers {
    fn of(mark: u8) -> Self {
        let answer = |length: usize| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
            let mut bytes = head.into_bytes();
            bytes.resize(bytes.len() + length, mark);
            bytes
        };
        Self { usual: answer(USUAL_BYTES), large: answer(LARGE_BYTES) }
    }
}

/// Serves until it is killed.
pub(crate) fn run(flags: &EndpointFlags) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("no runtime")?;
    runtime.block_on(async {
        let mut listeners = Vec::new();
        for (address, mark) in flags.listen.iter().zip(MARKS) {
            let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
            listeners.push(tokio::spawn(accept(listener, Arc::new(Answers::of(mark)))));
        }
        println!("{LISTENING}");
        for listener in listeners {
            listener.await.context("a listener ended")??;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        stream.set_nodelay(true)?;
        // A proxy that went away is its own affair.
        tokio::spawn(answer(stream, Arc::clone(&answers)));
    }
}

/// Requests have no body, so an answer is due at the end of every head.
async fn answer(mut stream: TcpStream, answers: Arc<Answers>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    while buffer.len() < LONGEST_HEAD && stream.read_buf(&mut buffer).await? > 0 {
        while let Some(end) = end_of_head(&buffer) {
            let is_large = buffer.get(4..).is_some_and(|target| target.starts_with(LARGE.as_bytes()));
            stream.write_all(if is_large { &answers.large } else { &answers.usual }).await?;
            buffer.drain(..end);
        }
    }
    Ok(())
}
