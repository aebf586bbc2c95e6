//! The server: answers requests on one port, swallows streams on another.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};
use clap::Args;

use super::PATIENCE;

/// What the server prints when it listens.
pub(crate) const LISTENING: &str = "listening";

/// The flags of `roadstead-bench serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeFlags {
    /// Answer here with the address that the connection came to
    #[arg(long)]
    port: Option<u16>,
    /// Swallow here and answer with the number of bytes
    #[arg(long)]
    sink: Option<u16>,
}

/// Serves until it is killed.
pub(crate) fn run(flags: &ServeFlags) -> Result<()> {
    let listen = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot listen");
    let (requests, sink) = (flags.port.map(listen).transpose()?, flags.sink.map(listen).transpose()?);
    println!("{LISTENING}");
    thread::scope(|scope| {
        if let Some(listener) = &sink {
            scope.spawn(|| each(listener, swallow));
        }
        if let Some(listener) = &requests {
            each(listener, answer);
        }
    });
    Ok(())
}

fn each(listener: &TcpListener, serve: impl Fn(TcpStream) -> Result<()>) {
    for stream in listener.incoming() {
        // A client that went away is its own affair.
        let _gone = stream.map(|stream| serve(stream).ok());
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = [0; 1024];
    if stream.read(&mut request)? == 0 {
        return Ok(());
    }
    let here = stream.local_addr()?.ip();
    stream.write_all(format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{here}").as_bytes())?;
    Ok(())
}

fn swallow(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; 1 << 17];
    let mut total = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            more => total += more as u64,
        }
    }
    stream.write_all(&total.to_be_bytes())?;
    Ok(())
}
