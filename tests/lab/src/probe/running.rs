//! Probes that run beside a test until they are no longer needed: they say that they started, end when their standard
//! input does, and then print a report.

use std::io::{BufRead as _, BufReader, Read as _};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use super::{DatagramsReport, HoldReport, LoadReport, Probe};
use crate::place::Place;
use crate::programs;

/// What the probe prints first.
pub(super) const STARTED: &str = "started";
/// What a look at the channel of [`standard_input_ends`] says before the end.
pub(super) const STILL_OPEN: RecvTimeoutError = RecvTimeoutError::Timeout;

/// Disconnects where standard input ends.
pub(super) fn standard_input_ends() -> Receiver<()> {
    let (open, ended) = channel::<()>();
    thread::spawn(move || {
        // Whatever is written is passed over; an error ends it as well.
        let _ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(open);
    });
    ended
}

/// A probe that runs in a place; dropping it kills it.
#[derive(Debug)]
pub struct Running<Report> {
    child: Child,
    output: BufReader<ChildStdout>,
    report: PhantomData<Report>,
}

impl<Report: DeserializeOwned> Running<Report> {
    fn start(place: &Place, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Result<Self> {
        let mut command = Command::new(programs::lab()?);
        command.arg("probe").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        place.enter(&mut command)?;
        let mut child = command.spawn().context("could not start the probe")?;
        let output = BufReader::new(child.stdout.take().context("the probe has no standard output")?);
        let mut running = Self { child, output, report: PhantomData };
        let mut line = String::new();
        running.output.read_line(&mut line)?;
        if line.trim_end() != STARTED {
            bail!("the probe in {} did not start: {line}", place.name());
        }
        Ok(running)
    }

    /// Ends the probe and takes its report.
    ///
    /// # Errors
    ///
    /// Where the probe died.
    pub fn finish(mut self) -> Result<Report> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        serde_json::from_str(&text).with_context(|| format!("the probe printed no report: {text}"))
    }
}

impl<Report> Drop for Running<Report> {
    fn drop(&mut self) {
        // After its report it has ended by itself, or is about to.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Place {
    /// Opens a TCP connection to an echo server from here and uses it every few milliseconds until it is finished.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened.
    pub fn hold(&self, address: impl Into<SocketAddr>) -> Result<Running<HoldReport>> {
        Running::start(self, &["hold", &address.into().to_string()])
    }

    /// Like [`hold`](Self::hold), with so many connections, each used ten times a second.
    ///
    /// # Errors
    ///
    /// Where one of them cannot be opened.
    pub fn hold_many(&self, address: impl Into<SocketAddr>, connections: u16) -> Result<Running<HoldReport>> {
        let (address, connections) = (address.into().to_string(), connections.to_string());
        Running::start(self, &["hold", &address, "--connections", &connections, "--every", "100"])
    }

    /// Sends a datagram every 50 ms on one connected socket to an echo server from here until it is finished.
    ///
    /// # Errors
    ///
    /// Where the probe cannot be started. Datagrams that nobody answers are counted.
    pub fn datagrams(&self, address: impl Into<SocketAddr>) -> Result<Running<DatagramsReport>> {
        Running::start(self, &["datagrams", &address.into().to_string()])
    }

    /// Opens so many new TCP connections a second to an echo server from here until it is finished.
    ///
    /// # Errors
    ///
    /// Where the probe cannot be started. Connections that fail are counted.
    pub fn load(&self, address: impl Into<SocketAddr>, rate: u32) -> Result<Running<LoadReport>> {
        Running::start(self, &["load", &address.into().to_string(), "--rate", &rate.to_string()])
    }

    /// Sends an HTTP probe's request so many times a second from here until it is finished. Whatever is no answer of an
    /// echo server with the status 200 has failed.
    ///
    /// # Errors
    ///
    /// Where the probe cannot be started. Requests that fail are counted.
    pub fn requests(&self, probe: &Probe, rate: u32) -> Result<Running<LoadReport>> {
        Running::start(self, &probe.at_rate(rate))
    }
}
