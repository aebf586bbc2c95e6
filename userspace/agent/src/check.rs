//! `roadstead check PATH...`: reads manifests as the daemons do and prints what is wrong with them.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use roadstead_model::{Severity, Snapshot};
use roadstead_sources::{LoadOptions, NodePortRange};

/// What validation depends on besides the manifests.
#[derive(Args, Debug)]
pub(crate) struct CheckFlags {
    /// Range of cluster addresses, one a family (repeatable)
    #[arg(
        long = "service-cidr",
        value_name = "CIDR",
        env = "ROADSTEAD_SERVICE_CIDR",
        value_delimiter = ',',
        default_values_t = LoadOptions::default().service_cidrs
    )]
    service_cidrs: Vec<IpNet>,
    /// Range that node ports are taken from
    #[arg(long, value_name = "FIRST-LAST", env = "ROADSTEAD_NODE_PORT_RANGE", default_value_t)]
    node_port_range: NodePortRange,
}

/// Prints every problem and a summary; exit code 1 on errors, 0 with warnings only.
pub(crate) fn run(paths: &[PathBuf], flags: &CheckFlags) -> anyhow::Result<ExitCode> {
    let options = LoadOptions {
        service_cidrs: flags.service_cidrs.clone(),
        node_port_range: flags.node_port_range,
        // Status is no part of the manifests.
        state_dir: None,
    };
    let snapshot = roadstead_sources::load(paths, &options);
    report(&snapshot, &mut io::stdout().lock()).context("cannot print")
}

fn report(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<ExitCode> {
    for problem in &snapshot.problems {
        writeln!(out, "{problem}")?;
    }
    let count = |severity| snapshot.problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let slices = snapshot.slices.values().map(Vec::len).sum();
    let parts = [
        plural(snapshot.services.len(), "Service"),
        plural(slices, "endpoint slice"),
        plural(snapshot.ingresses.len(), "Ingress"),
        plural(snapshot.nodes.len(), "Node"),
        plural(snapshot.pools.len(), "address pool"),
    ];
    writeln!(out, "{}: {}, {}", parts.join(", "), plural(errors, "error"), plural(warnings, "warning"))?;
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plural(count: usize, word: &str) -> String {
    let ending = match word {
        _ if count == 1 => "",
        word if word.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {word}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: &[&str], code: ExitCode) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), yaml).unwrap();
        let snapshot = roadstead_sources::load(&[folder.path().to_owned()], &LoadOptions::default());
        let mut out = Vec::new();
        let found = report(&snapshot, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap().replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert_eq!(format!("{found:?}"), format!("{code:?}"));
    }

    #[test]
    fn problems_and_a_summary() {
        let head = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n";
        check(
            &format!("{head}  - port: 80\n"),
            &["1 Service, 0 endpoint slices, 0 Ingresses, 0 Nodes, 0 address pools: 0 errors, 0 warnings"],
            ExitCode::SUCCESS,
        );
        check(
            &format!("{head}  - port: 80\n    protocol: SCTP\n"),
            &[
                "a.yaml:7: warning: Service default/web: spec.ports[0].protocol: SCTP is not balanced yet",
                "1 Service, 0 endpoint slices, 0 Ingresses, 0 Nodes, 0 address pools: 0 errors, 1 warning",
            ],
            ExitCode::SUCCESS,
        );
        check(
            &format!("{head}  - protocol: TCP\n    port: 0\n"),
            &[
                "a.yaml:7: error: Service default/web: spec.ports[0].port: 0 is no port, expected 1 to 65535",
                "0 Services, 0 endpoint slices, 0 Ingresses, 0 Nodes, 0 address pools: 1 error, 0 warnings",
            ],
            ExitCode::FAILURE,
        );
    }
}
