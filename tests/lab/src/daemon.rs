//! The daemons in the lab: their commands, and their health as they tell it themselves.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::place::Place;
use crate::process::Process;
use crate::programs;
use crate::wait::wait_until;

/// How long one health question may take.
const ANSWER: Duration = Duration::from_secs(2);
/// The longest answer that is read.
const LONGEST_ANSWER: u64 = 8 << 20;

/// One of the three daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `roadstead`.
    Agent,
    /// `roadstead-ingress`.
    Ingress,
    /// `roadstead-speaker`.
    Speaker,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Ingress, Self::Speaker];

    /// The program's file.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Agent => "roadstead",
            Self::Ingress => "roadstead-ingress",
            Self::Speaker => "roadstead-speaker",
        }
    }

    /// The word for it in logs.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Ingress => "ingress",
            Self::Speaker => "speaker",
        }
    }

    /// Where it tells its health, in its node's network.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        let port = match self {
            Self::Agent => 9901,
            Self::Ingress => 9902,
            Self::Speaker => 9903,
        };
        (Ipv4Addr::LOCALHOST, port).into()
    }

    pub(crate) fn command(self) -> Result<Command> {
        let mut command = Command::new(programs::find(self.file())?);
        command.arg("run");
        // Every flag is also a variable: what a developer has set for a node of theirs must not reach the lab's.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"ROADSTEAD_") {
                command.env_remove(name);
            }
        }
        Ok(command)
    }
}

/// A running daemon; dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    program: Program,
    place: Place,
    process: Process,
}

impl Daemon {
    pub(crate) fn start(place: &Place, program: Program, command: Command) -> Result<Self> {
        let process = place.spawn(program.role(), command)?;
        Ok(Self { program, place: place.clone(), process })
    }

    /// Which one it is.
    #[must_use]
    pub fn program(&self) -> Program {
        self.program
    }

    /// Whether it says that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// Where it ends or is not ready within the deadline, with the end of its log.
    pub fn wait_ready(&self, deadline: Duration) -> Result<()> {
        let what = format!("{} on {} is ready", self.program.file(), self.place.name());
        let waited = wait_until(deadline, &what, || self.is_ready() || !self.is_running());
        if waited.is_err() || !self.is_running() {
            bail!("{what}: no; the end of its log:\n{}", self.log_tail(15));
        }
        Ok(())
    }

    /// What it tells at a path of its health address: status and text.
    ///
    /// # Errors
    ///
    /// Where it does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let address = self.program.address();
        let answer = self.place.run(|| ask(address, path))?;
        let answer = answer.with_context(|| format!("{} does not answer at {address}", self.program.file()))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        Ok((status, body.to_owned()))
    }
}

impl Deref for Daemon {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// One HTTP/1.0 request: the answer ends with the connection and comes in one piece.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
