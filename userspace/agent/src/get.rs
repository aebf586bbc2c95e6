//! `roadstead get KIND [NAME]`: desired state as read from manifests and status or an API server, in kubectl's columns or as objects.
//!
//! Needs no daemon: what it prints is what a daemon with the same flags would act on.

mod object;
mod rows;
mod speaker;
mod yaml;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use roadstead_sources::{Interest, SourceFlags};
use serde_json::{Value, json};

use crate::table::Table;

/// What `get` takes.
#[derive(Args, Debug)]
pub(crate) struct GetFlags {
    /// What to show
    kind: GetKind,
    /// Only the one of this name
    name: Option<String>,
    /// The namespace to look in
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Look in all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Form of the output (default: a table)
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    #[command(flatten)]
    source: SourceFlags,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetKind {
    /// Services, with assigned addresses and ports
    #[value(aliases = ["service", "svc"])]
    Services,
    /// Endpoints of each Service
    #[value(aliases = ["endpoint", "ep", "endpointslices", "endpointslice"])]
    Endpoints,
    /// Ingresses
    #[value(aliases = ["ingress", "ing"])]
    Ingresses,
    /// MetalLB's address pools
    #[value(aliases = ["pool", "ipaddresspools", "ipaddresspool"])]
    Pools,
    /// Nodes
    #[value(aliases = ["node", "no"])]
    Nodes,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table with more columns
    Wide,
    /// JSON objects
    Json,
    /// YAML objects
    Yaml,
}

/// One object, ready to be shown in any form.
struct Shown {
    /// Empty for cluster-wide objects.
    namespace: String,
    name: String,
    /// Cells of the plain table, then those of the wide one.
    cells: Vec<String>,
    object: Value,
    /// What a reader of the table should know and no column of it tells.
    warnings: Vec<String>,
}

/// Prints the objects asked for; exit code 1 where a named one is not there.
pub(crate) fn run(args: &GetFlags) -> anyhow::Result<ExitCode> {
    let interest = match args.kind {
        // Of what the agent's own account may read.
        GetKind::Services | GetKind::Endpoints | GetKind::Nodes => Interest::agent().in_full(),
        GetKind::Ingresses | GetKind::Pools => Interest::overview(),
    };
    let snapshot = roadstead_sources::read(&args.source, interest)?;
    if args.source.name_a_server() {
        // Files are checked by `roadstead check`.
        snapshot.problems.iter().filter(|problem| problem.object.is_none()).for_each(|problem| eprintln!("{problem}"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut told = roadstead_sources::status_objects(&args.source.state_dir);
    if args.kind == GetKind::Services && args.output == Some(Output::Wide) && args.source.name_a_server() {
        // Of what this node announces too.
        told.retain(|object| object.get("kind").is_none_or(|kind| kind != "ServiceL2Status"));
        told.extend(roadstead_sources::read_announcements(&args.source)?);
    }
    let speaker = speaker::Told::new(&told);
    let shown = rows::all(args.kind, &snapshot, &speaker, i64::try_from(now).unwrap_or(i64::MAX));
    print(args, shown, &mut io::stdout().lock(), &mut io::stderr().lock()).context("cannot print")
}

/// Warnings go where kubectl's go, so that the table stays one for scripts.
fn print(
    args: &GetFlags,
    mut shown: Vec<Shown>,
    out: &mut impl Write,
    warnings: &mut impl Write,
) -> io::Result<ExitCode> {
    let cluster_wide = args.kind == GetKind::Nodes;
    shown.retain(|one| {
        let here = cluster_wide || args.all_namespaces || one.namespace == args.namespace;
        here && args.name.as_ref().is_none_or(|name| *name == one.name)
    });
    if shown.is_empty() {
        return nothing(args, cluster_wide, out);
    }
    match args.output {
        Some(Output::Json) => writeln!(out, "{:#}", together(args, shown))?,
        Some(Output::Yaml) => write!(out, "{}", yaml::text(&together(args, shown)))?,
        None | Some(Output::Wide) => {
            for warning in shown.iter().flat_map(|one| &one.warnings) {
                writeln!(warnings, "Warning: {warning}")?;
            }
            table(args, shown, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn nothing(args: &GetFlags, cluster_wide: bool, out: &mut impl Write) -> io::Result<ExitCode> {
    if let Some(name) = &args.name {
        eprintln!("{name:?} not found");
        return Ok(ExitCode::FAILURE);
    }
    match args.output {
        Some(Output::Json) => writeln!(out, "{:#}", together(args, Vec::new()))?,
        Some(Output::Yaml) => write!(out, "{}", yaml::text(&together(args, Vec::new())))?,
        _ if args.all_namespaces || cluster_wide => eprintln!("No resources found"),
        _ => eprintln!("No resources found in {} namespace.", args.namespace),
    }
    Ok(ExitCode::SUCCESS)
}

/// As kubectl: one named object by itself, several as a List.
fn together(args: &GetFlags, shown: Vec<Shown>) -> Value {
    let mut items: Vec<Value> = shown.into_iter().map(|one| one.object).collect();
    match items.pop() {
        Some(only) if args.name.is_some() && items.is_empty() => only,
        last => {
            items.extend(last);
            json!({"apiVersion": "v1", "kind": "List", "items": items})
        }
    }
}

fn table(args: &GetFlags, shown: Vec<Shown>, out: &mut impl Write) -> io::Result<()> {
    let (plain, wide) = rows::headings(args.kind);
    let columns = if args.output == Some(Output::Wide) { plain.len() + wide.len() } else { plain.len() };
    let with_namespace = args.all_namespaces && args.kind != GetKind::Nodes;
    let headings = with_namespace.then_some("NAMESPACE").into_iter();
    let mut table = Table::new(headings.chain(plain.iter().chain(wide).copied().take(columns)));
    for one in shown {
        let namespace = with_namespace.then_some(one.namespace).into_iter();
        table.row(namespace.chain(one.cells.into_iter().take(columns)));
    }
    table.print(out)
}

#[cfg(test)]
#[path = "get/tests.rs"]
mod tests;
