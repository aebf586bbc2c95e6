//! `roadstead explain SRC DST:PORT[/udp]`: how this node would treat a new flow, and which rule says so.
//!
//! It runs the model of the verdict on the maps that an agent has pinned, or without any daemon on manifests. Whose flow
//! it is, the source's address says: this node's and its pods' are met when they call connect(2), others on an uplink.

mod answer;
mod offline;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use roadstead_abi::{Addr, Be16, CtKey, proto};
use roadstead_dataplane::{
    addresses::to_map,
    explain::{self, Call, Explanation, Hook, KernelRoutes, KernelView, Packet, Place, Routes, Socket, Verdict, View},
    load::SOCKET_PROGRAMS,
    pins::Pins,
};
use roadstead_sources::SourceFlags;

use self::{answer::Answer, offline::NodeFlags};
use crate::{
    desired,
    flags::{DEFAULT_BPFFS, Switch},
};

/// What `explain` takes.
#[derive(Args, Debug)]
pub(crate) struct ExplainFlags {
    /// The client's address; with a port as ADDRESS:PORT or [ADDRESS]:PORT
    #[arg(value_name = "SRC")]
    source: Source,
    /// What the client asks for
    #[arg(value_name = "DST:PORT[/udp]")]
    destination: Destination,
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Where the agent's pins are: the live maps are asked. Beside it, --manifests only names the Services
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
    #[command(flatten)]
    from: SourceFlags,
    #[command(flatten)]
    node: NodeFlags,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// One JSON object
    Json,
}

/// The client: an address, and a port if it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    ip: IpAddr,
    port: Option<u16>,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        let with_port: SocketAddr =
            text.parse().map_err(|_| format!("{text:?} is no address, and none with a port"))?;
        Ok(Self { ip: with_port.ip(), port: Some(with_port.port()) })
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Destination {
    at: SocketAddr,
    protocol: u8,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => proto::TCP,
            "udp" => proto::UDP,
            other => return Err(format!("{other:?} is neither tcp nor udp")),
        };
        let at = at.parse().map_err(|_| format!("{at:?} is no ADDRESS:PORT, nor an [ADDRESS]:PORT"))?;
        Ok(Self { at, protocol })
    }
}

/// A new flow.
#[derive(Clone, Copy, Debug)]
struct Question {
    key: CtKey,
    /// The source port is not known.
    any_port: bool,
}

impl ExplainFlags {
    fn question(&self) -> anyhow::Result<Question> {
        let Self { source, destination, .. } = self;
        let (from, to) = (source.ip.to_canonical(), destination.at.ip().to_canonical());
        ensure!(from.is_ipv4() == to.is_ipv4(), "{from} and {to} are of two families");
        let key = CtKey {
            src: to_map(from),
            dst: to_map(to),
            sport: Be16::new(source.port.unwrap_or(0)),
            dport: Be16::new(destination.at.port()),
            proto: destination.protocol,
            reserved: [0; 3],
        };
        Ok(Question { key, any_port: source.port.is_none() })
    }
}

/// Prints the explanation.
pub(crate) fn run(flags: &ExplainFlags) -> anyhow::Result<ExitCode> {
    let question = flags.question()?;
    let answer = match &flags.bpffs {
        // In a pod of the agent `in_cluster` is set, and the maps are what is asked for.
        None if !flags.from.manifests.is_empty() || flags.from.kubeconfig.is_some() => {
            offline::answer(flags, question)?
        }
        bpffs => live(flags, bpffs.as_deref().unwrap_or(Path::new(DEFAULT_BPFFS)), question)?,
    };
    let mut out = io::stdout().lock();
    match flags.output {
        Some(Output::Json) => answer.print_json(&mut out),
        None => answer.print(&mut out),
    }
    .context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the maps that are pinned.
fn live(flags: &ExplainFlags, bpffs: &Path, question: Question) -> anyhow::Result<Answer> {
    let pins = Pins::at(bpffs);
    ensure!(
        pins.maps().exists(),
        "nothing is pinned in {}: no agent has run here; --manifests DIR asks without one",
        bpffs.display()
    );
    let (view, routes) = (KernelView::open(&pins)?, KernelRoutes::open(&pins)?);
    let links = std::fs::read_dir(pins.links()).into_iter().flatten().flatten();
    let names: Vec<_> = links.map(|link| link.file_name().to_string_lossy().into_owned()).collect();
    let sockets = names.iter().any(|name| SOCKET_PROGRAMS.iter().any(|program| name.starts_with(program)));
    let node = Node { view: &view, routes: &routes, sockets, uplink: routes.uplinks().first().copied().unwrap_or(0) };
    let (explained, met) = node.explain(question)?;
    let name = desired::names(&flags.from, &pins)?.remove(&explained.service);
    Ok(Answer::new(&explained, met, name))
}

/// Where a new flow is met first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    /// A process calls connect(2).
    Socket,
    /// A packet at this hook.
    Packet(Hook),
    /// No program stands on the way.
    Nowhere,
}

/// A node, as far as a flow meets it.
struct Node<'a, V, R> {
    view: &'a V,
    routes: &'a R,
    /// The socket programs are attached.
    sockets: bool,
    uplink: u32,
}

/// `ifindex` of the loopback device.
const LOOPBACK: u32 = 1;

impl<V: View, R: Routes> Node<'_, V, R> {
    fn explain(&self, question: Question) -> anyhow::Result<(Explanation, Met)> {
        let client = question.key.src;
        let is_nodes = client.is_loopback() || self.view.node_address(&client)?.is_some();
        let place = self.routes.place(&Addr::UNSPECIFIED, &client)?;
        let is_pods = || -> anyhow::Result<bool> {
            let known = self.view.network(&client)?.is_some_and(|flags| flags & roadstead_abi::network::POD != 0);
            Ok(known || matches!(place, Ok((Place::Behind, _))))
        };
        if is_nodes {
            return self.of_process(question, true, self.uplink);
        }
        if is_pods()? {
            // A device that is not there is no loopback device.
            let device = place.map_or(0, |(_, device)| device);
            return self.of_process(question, false, device);
        }
        let device = place.map_or(self.uplink, |(_, device)| if device == 0 { self.uplink } else { device });
        self.at(Hook::UplinkIn, question, device)
    }

    /// What the socket programs leave alone, the packet programs meet.
    fn of_process(&self, question: Question, is_nodes: bool, device: u32) -> anyhow::Result<(Explanation, Met)> {
        if self.sockets {
            let node = self.view.node()?.unwrap_or_default();
            let netns_cookie = is_nodes.then_some(node.netns_cookie);
            let CtKey { dst: asked, dport: port, proto: protocol, .. } = question.key;
            let family = if asked.is_v4() { 4 } else { 6 };
            let call = Call { asked, port, protocol, family, socket: Socket { netns_cookie, cookie: None } };
            let explained = explain::connect(self.view, &call)?;
            if explained.verdict != Verdict::Pass {
                return Ok((explained, Met::Socket));
            }
        }
        if !is_nodes {
            return self.at(Hook::IntIn, question, device);
        }
        match self.routes.place(&Addr::UNSPECIFIED, &question.key.dst)? {
            Ok((Place::Here, _)) if !self.sockets => self.at(Hook::IntIn, question, LOOPBACK),
            Ok((Place::Here | Place::Behind, _)) => Ok((Explanation::untouched(), Met::Nowhere)),
            _ => self.at(Hook::UplinkOut, question, device),
        }
    }

    fn at(&self, hook: Hook, question: Question, ifindex: u32) -> anyhow::Result<(Explanation, Met)> {
        let packet = Packet { any_port: question.any_port, ..Packet::first(question.key, ifindex) };
        Ok((explain::packet(self.view, self.routes, hook, &packet)?, Met::Packet(hook)))
    }
}

/// Whether the socket programs are to be taken for attached.
fn is_on(switch: Switch) -> bool {
    switch == Switch::On
}
