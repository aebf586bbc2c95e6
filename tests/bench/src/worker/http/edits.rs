//! Clients while the configuration changes: one notices the new answer, the others count what they lose.
//!
//! The host that changes is asked over a new connection each time, as somebody who comes now would be served. The
//! clients beside ask a host that does not change: each of their requests should be answered.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{Reader, connect, request};
use crate::clock;

/// Between two looks at the host that changes.
const LOOK: Duration = Duration::from_millis(1);
/// Between two requests of each client beside.
const PACE: Duration = Duration::from_millis(10);
/// Clients of each kind beside.
const CLIENTS: usize = 4;

/// The flags of `roadstead-bench edits`.
#[derive(Args, Debug)]
pub(crate) struct EditFlags {
    /// Address and port
    #[arg(long)]
    to: SocketAddr,
    /// The host that changes
    #[arg(long)]
    flips: String,
    /// The host that does not
    #[arg(long)]
    stays: String,
    /// Ends when this file is there
    #[arg(long)]
    until: PathBuf,
}

/// Requests and how many of them were lost.
#[derive(Debug, Default)]
struct Tally {
    asked: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    fn count(&self, is_answered: bool) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(u64::from(!is_answered), Ordering::Relaxed);
    }

    fn json(&self) -> serde_json::Value {
        json!({ "asked": self.asked.load(Ordering::Relaxed), "lost": self.lost.load(Ordering::Relaxed) })
    }
}

/// Prints a line of JSON for every change of the answer, with the monotonic time at which it was there, and one with the
/// tallies at the end.
pub(crate) fn run(flags: &EditFlags) -> Result<()> {
    let (kept, fresh, stays) = (Tally::default(), Tally::default(), request(&flags.stays, "/"));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| keep_asking(flags, &stays, &kept));
            scope.spawn(|| ask_afresh(flags, &stays, &fresh));
        }
        watch(flags)
    })?;
    println!("{}", json!({ "kept": kept.json(), "fresh": fresh.json() }));
    Ok(())
}

fn watch(flags: &EditFlags) -> Result<()> {
    let (wanted, mut last) = (request(&flags.flips, "/"), None);
    while !flags.until.exists() {
        let answer = connect(flags.to).and_then(|mut stream| Reader::default().ask(&mut stream, &wanted));
        // What breaks here is counted by the clients beside.
        let mark = answer.ok().filter(|answer| answer.status == 200).and_then(|answer| answer.mark);
        if mark.is_some() && mark != last {
            let mark = mark.map(|mark| char::from(mark).to_string());
            println!("{}", json!({ "mark": mark, "nanoseconds": u64::try_from(clock::monotonic()?.as_nanos())? }));
        }
        last = mark.or(last);
        thread::sleep(LOOK);
    }
    Ok(())
}

/// One connection for as long as it lasts. A server that closes it between two requests costs nothing; one that takes a
/// request and closes without an answer costs that request.
fn keep_asking(flags: &EditFlags, wanted: &[u8], tally: &Tally) {
    let (mut stream, mut reader) = (None, Reader::default());
    while !flags.until.exists() {
        let connection = match stream.take().filter(is_open) {
            Some(connection) => Ok(connection),
            None => connect(flags.to),
        };
        let answer = connection.and_then(|mut connection| Ok((reader.ask(&mut connection, wanted)?, connection)));
        tally.count(answer.as_ref().is_ok_and(|(answer, _)| answer.status == 200));
        stream = answer.ok().filter(|(answer, _)| answer.stays_open).map(|(_, connection)| connection);
        thread::sleep(PACE);
    }
}

/// Whether the server has not closed it: a client that reuses connections looks before it does.
fn is_open(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let is_silent = looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    is_silent && stream.set_nonblocking(false).is_ok()
}

fn ask_afresh(flags: &EditFlags, wanted: &[u8], tally: &Tally) {
    while !flags.until.exists() {
        let answer = connect(flags.to).and_then(|mut stream| Reader::default().ask(&mut stream, wanted));
        tally.count(answer.is_ok_and(|answer| answer.status == 200));
        thread::sleep(PACE);
    }
}
