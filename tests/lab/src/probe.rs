//! Probes: one client's view of an address. A test asks a place to probe; the probe runs as a process there, because the
//! node's socket programs see only processes of the node's control group, and prints one line of JSON an attempt.

mod answer;
mod datagram;
mod datagrams;
mod hold;
mod http;
mod load;
mod requests;
mod running;
mod stream;
mod tls;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

pub use self::answer::Answer;
pub use self::datagram::UdpFlags;
pub use self::datagrams::{DatagramsFlags, DatagramsReport, Span};
pub use self::hold::{HoldFlags, HoldReport};
pub use self::http::HttpFlags;
pub use self::load::{LoadFlags, LoadReport};
pub use self::requests::RequestsFlags;
pub use self::running::Running;
pub use self::stream::TcpFlags;
use crate::place::Place;
use crate::programs;

/// How often, and how long each may take.
#[derive(Args, Clone, Copy, Debug)]
pub struct Repeat {
    /// How many attempts, each with a new socket
    #[arg(long, default_value_t = 1, overrides_with = "count")]
    count: u32,
    /// How long an attempt may take, in milliseconds
    #[arg(long, default_value_t = 2000, overrides_with = "timeout", value_name = "MS")]
    timeout: u64,
    /// How long to pause between two attempts, in milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pause: u64,
}

/// What to probe: the subcommands of `roadstead-lab probe`.
#[derive(Debug, Subcommand)]
pub enum ProbeCommand {
    /// Connect, read the echo server's greeting
    Tcp(TcpFlags),
    /// Send a datagram, read the answer
    Udp(UdpFlags),
    /// Send a request
    Http(HttpFlags),
    /// Keep connections and exchange lines until standard input ends
    Hold(HoldFlags),
    /// Keep one connected UDP socket and send datagrams until standard input ends
    Datagrams(DatagramsFlags),
    /// Open connections at a steady rate until standard input ends
    Load(LoadFlags),
    /// Send requests at a steady rate until standard input ends
    Requests(RequestsFlags),
}

/// Probes, printing one line of JSON an attempt.
///
/// # Errors
///
/// Where the probe itself cannot be made. An attempt that fails is an answer.
pub fn run(command: &ProbeCommand) -> Result<()> {
    match command {
        ProbeCommand::Tcp(flags) => attempts(flags.repeat, |timeout| stream::probe(flags, timeout)),
        ProbeCommand::Udp(flags) => attempts(flags.repeat, |timeout| datagram::probe(flags, timeout)),
        ProbeCommand::Http(flags) => {
            let client = http::Client::new(flags)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
            attempts(flags.repeat, |timeout| client.probe(&runtime, timeout))
        }
        ProbeCommand::Hold(flags) => print(&hold::run(flags)?),
        ProbeCommand::Datagrams(flags) => print(&datagrams::run(flags)?),
        ProbeCommand::Load(flags) => print(&load::run(flags)?),
        ProbeCommand::Requests(flags) => print(&requests::run(flags)?),
    }
}

fn attempts(repeat: Repeat, probe: impl Fn(Duration) -> Answer) -> Result<()> {
    for attempt in 0..repeat.count {
        if attempt > 0 && repeat.pause > 0 {
            std::thread::sleep(Duration::from_millis(repeat.pause));
        }
        print(&probe(Duration::from_millis(repeat.timeout)))?;
    }
    Ok(())
}

fn print(answer: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(answer).context("an answer is plain data")?);
    Ok(())
}

/// A probe to be run in a place.
#[derive(Clone, Debug)]
pub struct Probe(Vec<OsString>);

impl Probe {
    /// A TCP connection to an echo server.
    #[must_use]
    pub fn tcp(address: impl Into<SocketAddr>) -> Self {
        Self(vec!["tcp".into(), address.into().to_string().into()])
    }

    /// A datagram on a connected socket, which hears ICMP errors.
    #[must_use]
    pub fn udp(address: impl Into<SocketAddr>) -> Self {
        Self(vec!["udp".into(), address.into().to_string().into()])
    }

    /// A datagram on a socket that is not connected, which hears whoever answers.
    #[must_use]
    pub fn udp_unconnected(address: impl Into<SocketAddr>) -> Self {
        Self::udp(address).with("--unconnected")
    }

    /// An HTTP request; `https` by the URL. The host's name is not looked up: see [`at`](Self::at).
    #[must_use]
    pub fn http(url: &str) -> Self {
        Self(vec!["http".into(), url.into()])
    }

    /// Where the host of the URL is.
    #[must_use]
    pub fn at(self, address: impl Into<SocketAddr>) -> Self {
        self.with("--resolve-to").with(address.into().to_string())
    }

    /// The certificates that an `https` server must show one of, or be signed by.
    #[must_use]
    pub fn ca(self, file: &Path) -> Self {
        self.with("--ca").with(file)
    }

    /// Any certificate does.
    #[must_use]
    pub fn insecure(self) -> Self {
        self.with("--insecure")
    }

    /// A header of the request.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.with("--header").with(format!("{name}: {value}"))
    }

    /// The own address of a TCP or UDP socket.
    #[must_use]
    pub fn from(self, ip: impl Into<IpAddr>) -> Self {
        self.with("--from").with(ip.into().to_string())
    }

    /// What a datagram holds, in place of a word.
    #[must_use]
    pub fn payload(self, payload: &str) -> Self {
        self.with("--payload").with(payload)
    }

    /// So many attempts, each with a new socket; the last call counts.
    #[must_use]
    pub fn count(self, count: u32) -> Self {
        self.with("--count").with(count.to_string())
    }

    /// How long each attempt may take, in place of 2 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with("--timeout").with(timeout.as_millis().to_string())
    }

    /// The own address, where one was chosen.
    #[must_use]
    pub fn own(&self) -> Option<IpAddr> {
        let at = self.0.iter().position(|argument| argument == "--from")?;
        self.0.get(at + 1)?.to_str()?.parse().ok()
    }

    /// Where a TCP or UDP probe goes to.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.get(1)?.to_str()?.parse().ok()
    }

    /// The same HTTP request again and again.
    pub(crate) fn at_rate(&self, rate: u32) -> Vec<OsString> {
        let http = self.0.iter().skip(1).cloned();
        ["requests".into()].into_iter().chain(http).chain(["--rate".into(), rate.to_string().into()]).collect()
    }

    fn with(mut self, argument: impl Into<OsString>) -> Self {
        self.0.push(argument.into());
        self
    }
}

impl Place {
    /// Runs a probe here: one answer for each attempt.
    ///
    /// # Errors
    ///
    /// Where the probe cannot be run. An attempt that fails is an answer.
    pub fn probe(&self, probe: &Probe) -> Result<Vec<Answer>> {
        let mut command = Command::new(programs::lab()?);
        command.arg("probe").args(&probe.0);
        let output = self.output(command)?;
        if !output.status.success() {
            bail!("the probe in {} failed: {}", self.name(), String::from_utf8_lossy(&output.stderr).trim());
        }
        let lines = String::from_utf8(output.stdout).context("a probe prints text")?;
        lines.lines().map(|line| serde_json::from_str(line).context("a probe prints answers")).collect()
    }

    /// Runs a probe of one attempt here.
    ///
    /// # Errors
    ///
    /// Where the probe cannot be run.
    pub fn probe_once(&self, probe: &Probe) -> Result<Answer> {
        self.probe(probe)?.pop().context("the probe printed nothing")
    }
}
