//! One connected UDP socket that is kept and used, while its backend goes: who answered when.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer, micros};
use super::running;

/// The longest answer that is read.
const LONGEST: usize = 2048;

/// The flags of `probe datagrams`.
#[derive(Args, Clone, Copy, Debug)]
pub struct DatagramsFlags {
    /// Where to connect to
    address: SocketAddr,
    /// How long to pause between two datagrams, in milliseconds
    #[arg(long, default_value_t = 50, value_name = "MS")]
    every: u64,
}

/// Answers one after the other by the same echo server.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// When the first answer came, in microseconds since 1970.
    pub first_us: u64,
    /// When the last one came.
    pub last_us: u64,
    /// How many came.
    pub answers: u64,
}

/// What the datagrams of one socket came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DatagramsReport {
    /// Who answered, in order.
    pub spans: Vec<Span>,
    /// How many datagrams were sent.
    pub sent: u64,
    /// What the socket told, how often: an ICMP error arrives here.
    pub errors: BTreeMap<String, u64>,
    /// The longest time without an answer, in microseconds.
    pub longest_gap_us: u64,
}

impl DatagramsReport {
    /// When this echo server first answered at or after that moment.
    #[must_use]
    pub fn first_answer(&self, name: &str, after: SystemTime) -> Option<SystemTime> {
        let spans = self.spans.iter().filter(|span| span.name == name);
        spans.map(|span| UNIX_EPOCH + Duration::from_micros(span.first_us)).find(|first| *first >= after)
    }

    fn take(&mut self, name: String, at_us: u64) {
        if let Some(last) = self.spans.last() {
            self.longest_gap_us = self.longest_gap_us.max(at_us.saturating_sub(last.last_us));
        }
        match self.spans.last_mut().filter(|last| last.name == name) {
            Some(last) => (last.last_us, last.answers) = (at_us, last.answers + 1),
            None => self.spans.push(Span { name, first_us: at_us, last_us: at_us, answers: 1 }),
        }
    }
}

pub(super) fn run(flags: &DatagramsFlags) -> Result<DatagramsReport> {
    let any: IpAddr = match flags.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(flags.address)?;
    let (ended, every) = (running::standard_input_ends(), Duration::from_millis(flags.every));
    let mut report = DatagramsReport::default();
    loop {
        let next = Instant::now() + every;
        exchange(&socket, next, &mut report);
        if report.sent == 1 {
            println!("{}", running::STARTED);
        }
        if ended.recv_timeout(next.saturating_duration_since(Instant::now())) != Err(running::STILL_OPEN) {
            return Ok(report);
        }
    }
}

/// Sends one datagram and hears answers until the next one is due; what fails is an entry of the report.
fn exchange(socket: &UdpSocket, next: Instant, report: &mut DatagramsReport) {
    report.sent += 1;
    if let Err(error) = socket.send(b"ahoy") {
        report.failed(error);
    }
    let mut buffer = [0; LONGEST];
    loop {
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let mut answer = Answer::default();
                answer.take(buffer.get(..length).unwrap_or_default());
                report.take(answer.outcome(), micros(UNIX_EPOCH.elapsed().unwrap_or_default()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(error) => report.failed(error),
        }
    }
}

impl DatagramsReport {
    fn failed(&mut self, error: std::io::Error) {
        *self.errors.entry(answer::kind(&error.into())).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_one_server_are_one_span() {
        let mut report = DatagramsReport::default();
        for (name, at) in [("a", 10), ("a", 20), ("b", 90), ("a", 95)] {
            report.take(name.to_owned(), at);
        }
        let spans: Vec<_> = report.spans.iter().map(|span| (span.name.as_str(), span.first_us, span.answers)).collect();
        assert_eq!(spans, [("a", 10, 2), ("b", 90, 1), ("a", 95, 1)]);
        assert_eq!(report.longest_gap_us, 70);
        let at = |micros| UNIX_EPOCH + Duration::from_micros(micros);
        assert_eq!(report.first_answer("b", at(21)), Some(at(90)));
        assert_eq!(report.first_answer("a", at(11)), Some(at(95)));
        assert_eq!(report.first_answer("b", at(91)), None);
    }
}
