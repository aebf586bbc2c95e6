//! A place of the lab: a node's host, a pod, or the client. Processes, probes and captures are started in places.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::capture::{Capture, Evidence};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::programs;
use crate::wait::wait_until;
use crate::{frames, ip};

/// How long the echo server may take to listen.
const ECHO_START: Duration = Duration::from_secs(10);

/// A network namespace and the leaf of the control groups that belongs to it. Clones are the same place.
#[derive(Clone, Debug)]
pub struct Place(Arc<Parts>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) cgroup: PathBuf,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    /// Where logs go.
    pub(crate) folder: PathBuf,
    /// The lab's list of captures, kept where a test fails.
    pub(crate) evidence: Arc<Evidence>,
}

/// The ports of an echo server.
#[derive(Clone, Copy, Debug)]
pub struct EchoPorts {
    /// HTTP/1.1, and HTTP/2 without TLS.
    pub http: u16,
    /// A greeting, then every byte back.
    pub tcp: u16,
    /// An answer for every datagram.
    pub udp: u16,
}

impl EchoPorts {
    /// The ports of the demo's pods.
    pub const USUAL: Self = Self { http: 8080, tcp: 9000, udp: 5353 };
}

impl Place {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The same network under another name, for processes of a control group of their own.
    pub(crate) fn with_group(&self, name: &str, cgroup: PathBuf) -> Self {
        let own = &self.0;
        Self::new(Parts {
            name: name.to_owned(),
            namespace: own.namespace.clone(),
            cgroup,
            v4: own.v4,
            v6: own.v6,
            folder: own.folder.clone(),
            evidence: own.evidence.clone(),
        })
    }

    /// `node-a`, `web-1`, `client`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        self.0.v4
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        self.0.v6
    }

    /// The name of its namespace to `ip netns`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.namespace.name()
    }

    /// The leaf of its processes.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.0.cgroup
    }

    /// Starts a process here; its output goes to `<place>-<log>.log`.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn spawn(&self, log: &str, mut command: Command) -> Result<Process> {
        self.enter(&mut command)?;
        let name = format!("{}-{log}", self.name());
        Process::start(&name, &self.0.folder.join(format!("{name}.log")), command)
    }

    /// Runs a process here to its end.
    ///
    /// # Errors
    ///
    /// Where it cannot be started. How it ended is in the output.
    pub fn output(&self, mut command: Command) -> Result<Output> {
        self.enter(&mut command)?;
        command
            .output()
            .with_context(|| format!("could not start {} in {}", command.get_program().display(), self.name()))
    }

    /// Runs the work on a thread inside this place's network (but not in its control group: sockets opened by it are
    /// not seen by the node's socket programs).
    ///
    /// # Errors
    ///
    /// Where the namespace cannot be entered, or the work panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.0.namespace.run(work)
    }

    /// Starts the echo server here and waits until it listens. It answers under the place's name.
    ///
    /// # Errors
    ///
    /// Where it does not listen soon, with what it said.
    pub fn start_echo(&self, ports: EchoPorts) -> Result<Process> {
        self.start_echo_with(self.name(), ports, &[])
    }

    /// Like [`start_echo`](Self::start_echo) under another name, for a test in which every answer must be timely: it goes
    /// before all ordinary work, where that is allowed.
    ///
    /// # Errors
    ///
    /// Where it does not listen soon, with what it said.
    pub fn start_urgent_echo(&self, name: &str, ports: EchoPorts) -> Result<Process> {
        self.start_echo_with(name, ports, &["--urgent"])
    }

    fn start_echo_with(&self, name: &str, ports: EchoPorts, flags: &[&str]) -> Result<Process> {
        let ports = [("--http", ports.http), ("--tcp", ports.tcp), ("--udp", ports.udp)];
        let ports = ports.into_iter().flat_map(|(flag, port)| [flag.to_owned(), port.to_string()]);
        let flags = flags.iter().map(|flag| (*flag).to_owned());
        self.start_echo_by(
            &["--name".to_owned(), name.to_owned()].into_iter().chain(flags).chain(ports).collect::<Vec<_>>(),
        )
    }

    /// Starts an echo server with these flags and waits until it listens.
    pub(crate) fn start_echo_by(&self, flags: &[String]) -> Result<Process> {
        let mut command = Command::new(programs::lab()?);
        command.arg("echo").args(flags);
        let process = self.spawn("echo", command)?;
        wait_until(ECHO_START, "the echo server listens", || {
            process.log().contains(crate::echo::LISTENING) || !process.is_running()
        })?;
        if !process.is_running() {
            bail!("the echo server in {} ended: {}", self.name(), process.log_tail(5));
        }
        Ok(process)
    }

    /// Captures the frames of a device of this place until the capture is dropped.
    ///
    /// # Errors
    ///
    /// Where the device is not there.
    pub fn capture(&self, device: &str) -> Result<Capture> {
        let capture = Capture::start(&self.0.namespace, device, None)?;
        self.0.evidence.add(format!("{}-{device}", self.name()), &capture);
        Ok(capture)
    }

    /// Sends frames as they are from a device of this place, so many in a millisecond.
    ///
    /// # Errors
    ///
    /// Where the device is not there, or does not take one.
    pub fn inject(&self, device: &str, frames: &[Vec<u8>], a_millisecond: usize) -> Result<()> {
        self.run(|| {
            let socket = frames::open(device, 0)?;
            for some in frames.chunks(a_millisecond) {
                let next = Instant::now() + Duration::from_millis(1);
                some.iter().try_for_each(|frame| frames::send(&socket, frame)).context("a frame was not sent")?;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(())
        })?
    }

    /// Runs commands of `ip -batch` here, such as `route add ...`; stops at the first that fails.
    ///
    /// # Errors
    ///
    /// Where one fails, with what `ip` says.
    pub fn ip(&self, lines: &[impl ToString]) -> Result<()> {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        ip::batch(Some(self.namespace()), &lines)
    }

    pub(crate) fn network(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Makes the command's process enter this place before it becomes its program.
    ///
    /// # Errors
    ///
    /// Where the place is gone.
    pub fn enter(&self, command: &mut Command) -> Result<()> {
        let namespace = self.0.namespace.file()?;
        enter(command, namespace.into(), &self.0.cgroup)
    }
}

/// Makes the command's process enter a namespace and a control group before it becomes its program.
pub(crate) fn enter(command: &mut Command, namespace: std::os::fd::OwnedFd, cgroup: &Path) -> Result<()> {
    let group = cgroup.join("cgroup.procs");
    let group = OpenOptions::new().write(true).open(&group).with_context(|| format!("no {}", group.display()))?;
    let work = move || {
        // "0" is the process that writes.
        nix::unistd::write(&group, b"0")?;
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls on descriptors that it owns; it neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(work) };
    Ok(())
}
