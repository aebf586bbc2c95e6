//! The contestants as processes: started as they come, ready, ended in order, and gone without a trace.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use roadstead_lab::cluster::ProxyMode;
use roadstead_lab::{Daemon, Process, Program, Source, program, wait_for};

use super::plan::Contestant;
use super::site::Site;

/// How long a contestant may take to become ready. One transaction of nftables with all Services takes its time.
pub(super) const READY: Duration = Duration::from_secs(240);
/// How long it may take to end.
const END: Duration = Duration::from_secs(20);

/// A running contestant.
pub(super) enum Running {
    Ours(Daemon),
    Peer(Process),
}

impl Running {
    /// Starts it; it is not waited for.
    pub(super) fn start(site: &Site, contestant: Contestant) -> Result<Self> {
        let (node, control) = (site.node(contestant), &site.control);
        let program = match contestant {
            Contestant::Agent => Program::Agent,
            Contestant::Ingress => Program::Ingress,
            Contestant::Speaker => Program::Speaker,
            Contestant::KubeProxy => return control.start_kube_proxy(node, ProxyMode::Nftables).map(Self::Peer),
        };
        let command = node.command_from(program, Source::Kubeconfig(control.admin_kubeconfig()))?;
        node.start_with(program, command).map(Self::Ours)
    }

    pub(super) fn process(&self) -> &Process {
        match self {
            Self::Ours(daemon) => daemon,
            Self::Peer(process) => process,
        }
    }

    /// Waits until it says that it is ready. kube-proxy says so before it has written its first rules, so of it nothing is
    /// waited for but that it runs.
    pub(super) fn wait_ready(&self) -> Result<()> {
        let Self::Ours(daemon) = self else { return Ok(()) };
        let ready = wait_for(READY, "the daemon is ready", || {
            let ended = !daemon.is_running();
            (ended || daemon.is_ready()).then_some(!ended)
        });
        if !ready.unwrap_or(false) {
            bail!("{} did not become ready: {}", daemon.program().file(), daemon.log_tail(5));
        }
        Ok(())
    }

    /// Ends it in order: what it has programmed stays.
    pub(super) fn stop(self) -> Result<()> {
        let status = self.process().terminate(END)?;
        // kube-proxy does not take the signal as a wish to end well.
        let is_peer = matches!(self, Self::Peer(_));
        ensure!(is_peer || status.success(), "it ended with {status}: {}", self.process().log_tail(5));
        Ok(())
    }
}

/// Takes away what a contestant has programmed, so that the next start is the first one.
pub(super) fn clean_up(site: &Site, contestant: Contestant) -> Result<()> {
    let node = site.node(contestant);
    match contestant {
        Contestant::Agent => {}
        Contestant::KubeProxy => return site.control.clean_up_kube_proxy(node),
        Contestant::Ingress | Contestant::Speaker => return Ok(()),
    }
    let mut cleanup = Command::new(program(Program::Agent.file())?);
    cleanup.args(["cleanup", "--bpffs"]).arg(node.bpffs());
    let output = node.host().output(cleanup)?;
    ensure!(output.status.success(), "roadstead cleanup: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
