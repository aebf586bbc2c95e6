//! The place of all proxies: one namespace with the endpoint, a processor for the proxy that is measured, another one for
//! endpoint and client.
//!
//! Everything talks over the loopback device of that namespace, so that no port of the host is taken. All of ours go
//! before other processes of the machine (SCHED_FIFO), which disturb the least so; but not where a proxy changes its
//! configuration ([`Turn::WithAll`]).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use roadstead_lab::{Capturing, Lab, Place, Process, Topology, wait_for, wait_until};
use serde_json::Value;

use super::cpu;
use super::plan::{IngressFlags, Plan};
use super::proxies::{Ports, Programs, Proxy};
use super::site::{Certificate, ENDPOINT_PORTS, PLAIN, Site};
use crate::machine::Machine;
use crate::worker::http::{Reader, connect, endpoint, request};

/// A large configuration may take a while.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(10);
/// No client takes so long.
const CLIENT_SECONDS: &str = "60";
/// Descriptors that each process may have, where root may raise the limit.
const FILES: u64 = 40_000;

/// Where everything runs.
pub(crate) struct Stage {
    // In this order they go.
    _endpoint: Process,
    lab: Lab,
    programs: Programs,
    site: Site,
    cpus: Cpus,
    /// Descriptors that each process may have.
    pub(crate) files: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cpus {
    proxy: usize,
    client: usize,
}

/// How a proxy gets its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// One processor, before everybody else: for figures of CPU and time.
    BeforeAll,
    /// Any processor, as any process does. One that loads its configuration beside its workers, as nginx and HAProxy do, would
    /// keep them off their only processor for as long as that takes, which no ordinary scheduler does to them.
    WithAll,
}

/// A running proxy.
pub(crate) struct Running {
    pub(crate) proxy: Proxy,
    pub(crate) site: Site,
    process: Process,
    /// From the start of the process to its first right answer for the host that was asked for.
    pub(crate) start: Duration,
}

impl Stage {
    pub(crate) fn build(machine: &Machine, flags: &IngressFlags) -> Result<Self> {
        let lab = Lab::with("bench-ingress", Topology { nodes: 1, capture: Capturing::Never })?;
        let place = lab.node("node-a").host();
        let cpus = Cpus { proxy: 0, client: machine.measuring_cpu() };
        let files = allowed_files()?;
        let mut command = own()?;
        command.arg("endpoint");
        for port in ENDPOINT_PORTS {
            command.args(["--listen", &SocketAddr::from((place.v4(), port)).to_string()]);
        }
        let endpoint = place.spawn("endpoint", pinned(&command, cpus.client, files))?;
        wait_until(STOP, "the endpoint listens", || {
            endpoint.log().contains(endpoint::LISTENING) || !endpoint.is_running()
        })?;
        ensure!(endpoint.is_running(), "the endpoint ended: {}", endpoint.log_tail(3));
        let site =
            Site { endpoint: place.v4(), hosts: 0, folder: lab.folder().to_owned(), certificate: Certificate::make()? };
        let programs = Programs { envoy: flags.envoy.clone() };
        Ok(Self { _endpoint: endpoint, lab, programs, site, cpus, files })
    }

    /// The proxies that this host has.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = Proxy> {
        Proxy::ALL.into_iter().filter(|proxy| self.programs.has(*proxy))
    }

    /// Starts a proxy with this many hosts beside the usual ones, and waits until it serves `ask`.
    pub(crate) fn start(&self, proxy: Proxy, hosts: u32, ask: &str) -> Result<Running> {
        self.start_at(Turn::BeforeAll, proxy, hosts, ask)
    }

    /// As [`Stage::start`], with a say in when it runs.
    pub(crate) fn start_at(&self, turn: Turn, proxy: Proxy, hosts: u32, ask: &str) -> Result<Running> {
        let folder = self.site.folder.join(format!("{}-{hosts}", proxy.word()));
        let _none = fs::remove_dir_all(&folder);
        let site = Site { hosts, ..self.site.at(&folder) };
        proxy.configure(&site)?;
        let command = proxy.command(&site, &self.programs)?;
        let command = match turn {
            Turn::BeforeAll => pinned(&command, self.cpus.proxy, self.files),
            Turn::WithAll => behind(limited(self.files), &command),
        };
        let began = Instant::now();
        let process = self.place().spawn(proxy.word(), command)?;
        let (to, wanted) = (proxy.ports().http_address(), request(ask, "/"));
        let is_served = || {
            let answer = connect(to).and_then(|mut stream| Reader::default().ask(&mut stream, &wanted));
            let served = answer.is_ok_and(|answer| answer.status == 200);
            (served || !process.is_running()).then(|| served.then(|| began.elapsed()))
        };
        let waited = self.place().run(|| wait_for(START, &format!("{} serves", proxy.name()), is_served))?;
        let start = waited.ok().flatten();
        let start = start.with_context(|| format!("{} does not serve: {}", proxy.name(), process.log_tail(5)))?;
        Ok(Running { proxy, site, process, start })
    }

    /// Starts all proxies with the usual hosts alone.
    pub(crate) fn start_all(&self) -> Result<Vec<Running>> {
        self.proxies().map(|proxy| self.start(proxy, 0, PLAIN)).collect()
    }

    /// Runs a client to its end, on its processor. One that hangs is killed.
    pub(crate) fn run(&self, command: &Command) -> Result<Output> {
        let mut bounded = Command::new("timeout");
        bounded.args(["--signal=KILL", CLIENT_SECONDS]).arg(command.get_program()).args(command.get_args());
        let output = self.place().output(pinned(&bounded, self.cpus.client, self.files))?;
        if !output.status.success() {
            let said = [output.stderr, output.stdout].concat();
            bail!("{} failed: {}", command.get_program().display(), String::from_utf8_lossy(&said).trim());
        }
        Ok(output)
    }

    /// Runs a client of our own to its end; its answer is a line of JSON.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = own()?;
        let output = self.run(command.args(arguments))?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| format!("\"{text}\" is no answer of a client"))
    }

    /// Starts a client of our own.
    pub(crate) fn spawn(&self, log: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = own()?;
        command.args(arguments);
        self.place().spawn(log, pinned(&command, self.cpus.client, self.files))
    }

    /// A file for a client.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.site.folder.join(name)
    }

    fn place(&self) -> &Place {
        self.lab.node("node-a").host()
    }
}

impl Running {
    /// Nanoseconds that it has run so far.
    pub(crate) fn nanoseconds(&self) -> Result<u64> {
        cpu::nanoseconds(self.process_id()?)
    }

    /// Its memory in MiB.
    pub(crate) fn mebibytes(&self) -> Result<f64> {
        cpu::mebibytes(self.process_id()?)
    }

    /// Tells it something.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Empties what it has logged: a benchmark's log is of no use and grows by megabytes a second.
    pub(crate) fn empty_logs(&self) -> Result<()> {
        let logs = [self.proxy.access_log(&self.site), Some(self.process.log_file().to_owned())];
        for log in logs.into_iter().flatten() {
            let emptied = fs::OpenOptions::new().write(true).open(&log).and_then(|file| file.set_len(0));
            emptied.with_context(|| format!("could not empty {}", log.display()))?;
        }
        Ok(())
    }

    /// Ends it. A proxy that takes its time to let connections go is not waited for.
    pub(crate) fn stop(self) {
        // What does not end in time is killed when the process is dropped.
        let _late = self.process.terminate(STOP);
    }

    fn process_id(&self) -> Result<u32> {
        u32::try_from(self.process.pid()).map_err(|_| anyhow!("no process number"))
    }
}

impl Ports {
    /// Where clients find it in the clear.
    pub(crate) fn http_address(self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.http).into()
    }

    /// Where clients find it over TLS.
    pub(crate) fn https_address(self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.https).into()
    }
}

/// All from another one on in every round, so that none always follows the same neighbour.
pub(crate) fn turn(running: &[Running], round: usize) -> impl Iterator<Item = &Running> {
    running.iter().cycle().skip(round % running.len().max(1)).take(running.len())
}

/// Waits for a quiet machine.
pub(crate) fn quiet(plan: &Plan) -> Result<()> {
    cpu::wait_for_quiet(Duration::from_millis(plan.quiet_millis))
}

/// This program.
fn own() -> Result<Command> {
    Ok(Command::new(std::env::current_exe().context("this program does not know where it is")?))
}

/// The same command on one processor, before everybody else's, with enough descriptors.
fn pinned(command: &Command, cpu: usize, files: u64) -> Command {
    let mut pinned = limited(files);
    pinned.args(["chrt", "--fifo", "50", "taskset", "--cpu-list", &cpu.to_string()]);
    behind(pinned, command)
}

/// What gives the rest of its line enough descriptors.
fn limited(files: u64) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={files}:{files}"));
    limited
}

/// A command behind one that runs it.
fn behind(mut runner: Command, command: &Command) -> Command {
    runner.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => runner.env(name, value),
            None => runner.env_remove(name),
        };
    }
    runner
}

/// As many descriptors as we want, or as many as root may have here.
fn allowed_files() -> Result<u64> {
    let raised = Command::new("prlimit").args([&format!("--nofile={FILES}:{FILES}"), "true"]).output();
    if raised.context("there is no prlimit")?.status.success() {
        return Ok(FILES);
    }
    let limits = fs::read_to_string("/proc/self/limits").context("no limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no limit of files")?;
    line.split_whitespace().nth(4).and_then(|hard| hard.parse().ok()).context("no hard limit of files")
}
