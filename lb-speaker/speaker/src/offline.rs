//! `allocate` and `explain`: what the daemon would do, from what the source says now.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use roadstead_allocator::{Allocation, Classes, allocate_beside, prior_of};
use roadstead_layer2::election::{Contest, Verdict, elect};
use roadstead_model::ObjectName;
use roadstead_sources::{Interest, LoadOptions, NamespaceFlag, SourceFlags};
use serde::{Deserialize, Serialize};

use crate::{members::Members, plan::Desired};

/// Where the offline commands read from.
#[derive(Debug, Args)]
struct Manifests {
    /// Directory or file of Kubernetes YAML or JSON (repeatable)
    #[arg(long = "manifests", value_name = "DIR", env = "ROADSTEAD_MANIFESTS", value_delimiter = ',')]
    paths: Vec<PathBuf>,
    /// The API server of this kubeconfig instead
    #[arg(long, value_name = "FILE", env = "ROADSTEAD_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// The API server of the cluster that this pod runs in instead
    #[arg(long, env = "ROADSTEAD_IN_CLUSTER")]
    in_cluster: bool,
    /// Also take the status that a daemon wrote into this state directory
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The assignments before, as `allocate -o json` printed them (default: the Services' status)
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// Serve Services of this loadBalancerClass instead of those without a class, as `run` would
    #[arg(long = "lb-class", value_name = "CLASS", env = "ROADSTEAD_LB_CLASS")]
    lb_class: Option<String>,
    /// How to print
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// Flags of `allocate`.
#[derive(Debug, Args)]
pub(crate) struct AllocateFlags {
    #[command(flatten)]
    manifests: Manifests,
}

/// Flags of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainFlags {
    #[command(flatten)]
    manifests: Manifests,
    /// Namespace of the Service
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Nodes that are alive (repeatable; default: those that the speaker of --state-dir knows, else all)
    #[arg(long = "live", value_name = "NODE", value_delimiter = ',')]
    live: Vec<String>,
    /// The Service, as NAME or NAMESPACE/NAME
    service: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// One Service in the answer of `allocate`; the fields only ever grow.
#[derive(Debug, Serialize, Deserialize)]
struct AllocatedService {
    namespace: String,
    name: String,
    ips: Vec<IpAddr>,
    pool: Option<String>,
    reason: Option<String>,
}

/// One address in the answer of `explain`.
#[derive(Debug, Serialize)]
struct ExplainedAddress {
    ip: IpAddr,
    winner: Option<String>,
    reason: Option<String>,
    nodes: Vec<ExplainedNode>,
}

#[derive(Debug, Serialize)]
struct ExplainedNode {
    node: String,
    won: bool,
    reason: String,
}

/// Prints the allocation.
pub(crate) fn allocate(flags: &AllocateFlags) -> anyhow::Result<()> {
    let desired = load(&flags.manifests)?;
    let services = rows(&desired.allocation);
    if flags.manifests.output == Output::Json {
        return print(&(serde_json::to_string_pretty(&services)? + "\n"));
    }
    let header = ["NAMESPACE", "NAME", "IPS", "POOL", "REASON"].map(str::to_owned).to_vec();
    let cells = services.into_iter().map(|service| {
        let ips: Vec<String> = service.ips.iter().map(ToString::to_string).collect();
        let ips = if ips.is_empty() { "<pending>".to_owned() } else { ips.join(",") };
        vec![service.namespace, service.name, ips, or_dash(service.pool), or_dash(service.reason)]
    });
    print(&table(&[header].into_iter().chain(cells).collect::<Vec<_>>()))
}

/// Prints the election for each address of a Service.
pub(crate) fn explain(flags: &ExplainFlags) -> anyhow::Result<()> {
    let desired = load(&flags.manifests)?;
    let name = match flags.service.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::new(&flags.namespace, &flags.service),
    };
    let Some(assignment) = desired.allocation.services.get(&name) else {
        bail!("there is no Service {name} of type LoadBalancer");
    };
    let members = flags.manifests.state_dir.as_deref().filter(|_| flags.live.is_empty()).and_then(Members::read);
    let live: BTreeSet<String> = match &members {
        Some(members) => members.live(),
        None if flags.live.is_empty() => desired.snapshot.nodes.keys().cloned().collect(),
        None => flags.live.iter().cloned().collect(),
    };
    let contests = desired.contests().into_iter().filter(|contest| assignment.ips.contains(&contest.ip));
    let addresses: Vec<ExplainedAddress> =
        contests.map(|contest| explain_one(&desired, &contest, &live, members.as_ref())).collect();
    if flags.manifests.output == Output::Json {
        return print(&(serde_json::to_string_pretty(&addresses)? + "\n"));
    }
    let pending = assignment.reason.as_ref().map(|reason| format!("{name}: {reason}\n"));
    print(&(pending.unwrap_or_default() + &addresses.into_iter().map(explained).collect::<String>()))
}

/// How the nodes fare for one address, with what a running speaker knows of them.
fn explain_one(
    desired: &Desired,
    contest: &Contest<'_>,
    live: &BTreeSet<String>,
    members: Option<&Members>,
) -> ExplainedAddress {
    let can = members.map(Members::abilities).unwrap_or_default();
    let mut outcome = elect(&desired.snapshot, contest, live, &can);
    let kept = members.filter(|members| members.election == "sticky").and_then(|members| members.claimant(contest.ip));
    let may_keep = |node: &&str| matches!(outcome.nodes.get(*node), Some(Verdict::Won | Verdict::HigherHash));
    let kept = kept.filter(may_keep).map(str::to_owned);
    let is_kept = kept.is_some();
    if let Some(kept) = kept.filter(|_| outcome.nobody.is_none()) {
        outcome.winner = Some(kept);
    }
    let nodes = outcome.nodes.into_iter().map(|(node, verdict)| {
        let won = outcome.winner.as_ref() == Some(&node);
        let reason = match verdict {
            Verdict::Won | Verdict::HigherHash if is_kept && won => "has the address and keeps it".to_owned(),
            Verdict::Won | Verdict::HigherHash if is_kept => "is eligible, but another node has the address".to_owned(),
            verdict => verdict.to_string(),
        };
        let remark = members.and_then(|members| members.remark(&node, contest.ip));
        let reason = remark.map_or_else(|| reason.clone(), |remark| format!("{reason} ({remark})"));
        ExplainedNode { won, node, reason }
    });
    let nodes = nodes.collect();
    let reason = outcome.nobody.map(|nobody| nobody.to_string());
    ExplainedAddress { ip: contest.ip, winner: outcome.winner, reason, nodes }
}

fn explained(address: ExplainedAddress) -> String {
    let winner = address.winner.map_or_else(|| "announced by nobody".to_owned(), |node| format!("announced by {node}"));
    let reason = address.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let rows = address.nodes.into_iter().map(|node| vec![format!("  {}", node.node), node.reason]);
    format!("{}: {winner}{reason}\n", address.ip) + &table(&rows.collect::<Vec<_>>())
}

fn load(flags: &Manifests) -> anyhow::Result<Desired> {
    for path in &flags.paths {
        fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    let snapshot = if flags.paths.is_empty() || flags.kubeconfig.is_some() || flags.in_cluster {
        let (manifests, kubeconfig) = (flags.paths.clone(), flags.kubeconfig.clone());
        let source = SourceFlags::of(manifests, kubeconfig, flags.in_cluster);
        roadstead_sources::read(&source, Interest::speaker(&NamespaceFlag::default().resolve()))?
    } else {
        let options = LoadOptions { state_dir: flags.state_dir.clone(), ..LoadOptions::default() };
        roadstead_sources::load(&flags.paths, &options)
    };
    let snapshot = Arc::new(snapshot);
    for problem in &snapshot.problems {
        eprintln!("{problem}");
    }
    let prior = match &flags.previous {
        Some(path) => previous(path)?,
        None => prior_of(&snapshot),
    };
    let (none, nobodys) = (BTreeMap::new(), BTreeSet::new());
    let classes = Classes::new(flags.lb_class.clone());
    let allocation = allocate_beside(&snapshot, &prior, &none, &nobodys, &classes);
    Ok(Desired { snapshot, allocation, fresh: BTreeSet::new() })
}

fn previous(path: &Path) -> anyhow::Result<BTreeMap<ObjectName, Vec<IpAddr>>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let services: Vec<AllocatedService> = serde_json::from_str(&text)
        .with_context(|| format!("{} is not what allocate -o json prints", path.display()))?;
    let held = services.into_iter().filter(|service| !service.ips.is_empty());
    Ok(held.map(|service| (ObjectName::new(&service.namespace, &service.name), service.ips)).collect())
}

fn rows(allocation: &Allocation) -> Vec<AllocatedService> {
    let row = |(name, assignment): (&ObjectName, &roadstead_allocator::Assignment)| AllocatedService {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        ips: assignment.ips.clone(),
        pool: assignment.pool.as_ref().map(|pool| pool.name.to_string()),
        reason: assignment.reason.as_ref().map(ToString::to_string),
    };
    allocation.services.iter().map(row).collect()
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// Columns as kubectl's: as wide as their widest cell and three spaces.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0) + 3;
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Unlike `print!`, a reader that stops reading (`| head`) is no panic.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
