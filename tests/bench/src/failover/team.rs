//! The nodes of one contestant in a lab of their own, and what is done to them.
//!
//! Each contestant serves the address in its own way. Roadstead's data plane serves it on every node, whoever announces it:
//! the agents do in front of pods, and without them a route of type local stands in. keepalived puts it on the owner's
//! device and takes it off there. A packet that comes to a node without it is forwarded, as nodes of a cluster forward.

use std::ops::Deref;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use roadstead_lab::{Capturing, Daemon, EchoPorts, Lab, Node, Place, Process, Program, Topology, program};

use super::keepalived::{self, Tuning};
use super::plan::{Contestant, Fault};
use super::site::{self, PORT, VIP_V4, VIP_V6, VIPS};

/// How long a process may take to start or to end.
const READY: Duration = Duration::from_secs(20);

/// A contestant at work.
pub(crate) struct Team {
    pub(crate) contestant: Contestant,
    // In this order they go: processes before the lab.
    members: Vec<Member>,
    pub(crate) lab: Lab,
    /// The host that only asks who has the address.
    pub(crate) bystander: Place,
}

/// One node.
struct Member {
    /// Its place among the nodes.
    place: usize,
    /// The pod in front of which the agent balances.
    pod: Option<Place>,
    echo: Option<Process>,
    agent: Option<Daemon>,
    announcer: Option<Announcer>,
}

/// The daemon that the address depends on.
enum Announcer {
    Speaker(Daemon),
    Keepalived(Process),
}

impl Deref for Announcer {
    type Target = Process;

    fn deref(&self) -> &Process {
        match self {
            Self::Speaker(daemon) => daemon,
            Self::Keepalived(process) => process,
        }
    }
}

impl Team {
    /// Makes the lab and starts everything.
    pub(crate) fn start(contestant: Contestant, nodes: usize) -> Result<Self> {
        let lab = Lab::with("bench-failover", Topology { nodes, capture: Capturing::Never })?;
        let bystander = lab.add_bystander()?;
        let mut members = Vec::new();
        for (place, node) in lab.nodes().iter().enumerate() {
            let pod = (contestant == Contestant::Service).then(|| node.add_pod(&format!("pod-{place}"))).transpose()?;
            members.push(Member { place, pod, echo: None, agent: None, announcer: None });
        }
        if contestant == Contestant::Speaker {
            lab.nodes().iter().try_for_each(serve_locally)?;
        }
        if contestant.is_ours() {
            site::apply(&lab)?;
        }
        let mut team = Self { contestant, members, lab, bystander };
        for place in 0..nodes {
            team.boot(place)?;
        }
        Ok(team)
    }

    /// Does it to the node of this name.
    pub(crate) fn strike(&self, node: &str, fault: Fault) -> Result<()> {
        let (node, member) = (self.lab.node(node), self.member(node)?);
        match fault {
            Fault::Node => {
                node.kill_all()?;
                self.lab.cut(node)
            }
            Fault::Link => self.lab.cut(node),
            Fault::Kill => member.signal(Signal::SIGKILL),
            Fault::Drain => member.announcer.as_ref().context("nothing announces")?.signal(Signal::SIGTERM),
        }
    }

    /// Undoes it. The node is not back when this returns: see [`Team::is_whole`].
    pub(crate) fn restore(&mut self, node: &str, fault: Fault) -> Result<()> {
        let place = self.member(node)?.place;
        match fault {
            Fault::Link => self.lab.mend(self.lab.node(node)),
            Fault::Kill | Fault::Drain => {
                self.member(node)?.wait_ended()?;
                self.start_announcer(place)
            }
            Fault::Node => {
                self.forget_what_ran(node)?;
                self.lab.mend(self.lab.node(node))?;
                self.boot(place)
            }
        }
    }

    /// Whether every node takes part, as its own daemon says.
    pub(crate) fn is_whole(&self) -> bool {
        self.members.iter().all(|member| match &member.announcer {
            Some(Announcer::Speaker(daemon)) => hears_all(daemon),
            Some(Announcer::Keepalived(process)) => keepalived::is_armed(process),
            None => false,
        })
    }

    /// Keeps logs for somebody to read.
    pub(crate) fn keep_evidence(&self) {
        self.lab.keep_evidence();
    }

    fn member(&self, node: &str) -> Result<&Member> {
        let place = self.lab.nodes().iter().position(|other| other.name() == node);
        place.and_then(|place| self.members.get(place)).with_context(|| format!("no node {node}"))
    }

    /// Starts everything on a node where nothing runs.
    fn boot(&mut self, place: usize) -> Result<()> {
        let node = self.lab.nodes().get(place).context("no such node")?;
        let member = self.members.get_mut(place).context("no such node")?;
        let at = member.pod.as_ref().unwrap_or_else(|| node.host());
        // The old one has been killed; it must be gone before its port is free.
        drop(member.echo.take());
        member.echo = Some(at.start_urgent_echo(node.name(), EchoPorts { udp: PORT, ..EchoPorts::USUAL })?);
        if self.contestant == Contestant::Service {
            drop(member.agent.take());
            let agent = node.start(Program::Agent)?;
            agent.wait_ready(READY)?;
            member.agent = Some(agent);
        }
        self.start_announcer(place)
    }

    fn start_announcer(&mut self, place: usize) -> Result<()> {
        let node = self.lab.nodes().get(place).context("no such node")?;
        let announcer = match self.contestant {
            Contestant::Speaker | Contestant::Service => Announcer::Speaker(node.start(Program::Speaker)?),
            Contestant::Tuned => Announcer::Keepalived(keepalived::start(&self.lab, node, place, Tuning::Fast)?),
            Contestant::Keepalived => {
                Announcer::Keepalived(keepalived::start(&self.lab, node, place, Tuning::Default)?)
            }
        };
        self.members.get_mut(place).context("no such node")?.announcer = Some(announcer);
        Ok(())
    }

    /// A machine that starts knows nothing of what its kernel held when its power went.
    fn forget_what_ran(&self, name: &str) -> Result<()> {
        let node = self.lab.node(name);
        self.member(name)?.wait_ended()?;
        match self.contestant {
            Contestant::Speaker => Ok(()),
            Contestant::Service => {
                let mut cleanup = Command::new(program("roadstead")?);
                cleanup.args(["cleanup", "--bpffs"]).arg(node.bpffs());
                let output = node.host().output(cleanup)?;
                ensure!(output.status.success(), "cleanup: {}", String::from_utf8_lossy(&output.stderr));
                Ok(())
            }
            Contestant::Tuned | Contestant::Keepalived => {
                let flush = VIPS.map(|ip| format!("addr flush dev eth0 to {ip}"));
                node.host().ip(&flush)
            }
        }
    }
}

impl Member {
    /// To the daemon and its children: keepalived has one that would otherwise end in order, as its parent is gone.
    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.announcer.as_ref().context("nothing announces")?;
        killpg(Pid::from_raw(process.pid()), signal).context("the daemon did not get the signal")
    }

    fn wait_ended(&self) -> Result<()> {
        let Some(process) = &self.announcer else { return Ok(()) };
        process.wait(READY).map(drop)
    }
}

/// Without an agent a route makes the node take packets to the addresses, as the agent's programs would. ARP is not
/// answered for them: no device has them.
fn serve_locally(node: &Node) -> Result<()> {
    let host = node.host();
    host.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1"))?.context("could not set arp_ignore")?;
    host.ip(&[format!("route add local {VIP_V4}/32 dev lo"), format!("route add local {VIP_V6}/128 dev lo")])
}

/// Whether a speaker is ready and hears every peer.
fn hears_all(daemon: &Daemon) -> bool {
    const PEER: &str = "roadstead_speaker_peer_alive{";
    let Ok((200, text)) = daemon.get("/metrics") else { return false };
    let mut peers = text.lines().filter(|line| line.starts_with(PEER)).peekable();
    peers.peek().is_some() && peers.all(|line| line.ends_with(" 1")) && daemon.is_ready()
}
