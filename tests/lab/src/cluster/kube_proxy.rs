//! kube-proxy, Kubernetes' own, as a process on a node's network: what was there before us, and what we are measured beside.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::assets::{Assets, Part};
use super::{ControlPlane, flags};
use crate::node::Node;
use crate::process::Process;

/// Which rules it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProxyMode {
    /// By `nft`.
    Nftables,
    /// By `iptables`.
    Iptables,
}

impl ProxyMode {
    /// As kube-proxy's flag and configuration have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    /// What it calls, which must be on the host.
    #[must_use]
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Nftables => &["nft"],
            Self::Iptables => &["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save"],
        }
    }
}

/// Why kube-proxy cannot run here in this mode, where it cannot.
#[must_use]
pub fn lack_of_kube_proxy(mode: ProxyMode) -> Option<String> {
    let assets = match Assets::find() {
        Ok(assets) => assets,
        Err(error) => return Some(error.to_string()),
    };
    // An older build of everything in one program knows no such part.
    let answers = assets.command(Part::KubeProxy).arg("--version").output().is_ok_and(|output| output.status.success());
    if !assets.has(Part::KubeProxy) || !answers {
        return Some("there is no kube-proxy: \"cargo xtask setup --cluster\" builds it".to_owned());
    }
    let missing = mode.programs().iter().find(|name| host_program(name).is_none())?;
    Some(format!("kube-proxy needs {missing}"))
}

/// A program of the host, by its name alone.
#[must_use]
pub fn host_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The program that is kube-proxy where it is started under that name.
///
/// # Errors
///
/// Where there is none.
pub fn kube_proxy() -> Result<PathBuf> {
    Assets::find()?.program(Part::KubeProxy).context("there is no kube-proxy")
}

impl ControlPlane {
    /// Starts kube-proxy on a node. Its rules are not waited for.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn start_kube_proxy(&self, node: &Node, mode: ProxyMode) -> Result<Process> {
        let kubeconfig = self.authority.kubeconfig(self.address(), "system:kube-proxy", "")?;
        let command = self.kube_proxy_command(&flags::kube_proxy(&kubeconfig, node.name(), mode.name()))?;
        node.host().spawn("kube-proxy", command)
    }

    /// Takes away what kube-proxy has left on a node, by its own `--cleanup`.
    ///
    /// # Errors
    ///
    /// Where it says that something stays, with its words.
    pub fn clean_up_kube_proxy(&self, node: &Node) -> Result<()> {
        let output = node.host().output(self.kube_proxy_command(&["--cleanup".to_owned()])?)?;
        if !output.status.success() {
            bail!("kube-proxy --cleanup: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// The file of the cluster's authority, for the kubeconfigs of what runs in pods.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.files.authority
    }

    fn kube_proxy_command(&self, flags: &[String]) -> Result<Command> {
        if !self.assets.has(Part::KubeProxy) {
            bail!("there is no kube-proxy");
        }
        let mut command = self.assets.command(Part::KubeProxy);
        command.args(flags);
        Ok(command)
    }
}
