//! `bench`: builds the daemons as they are shipped, installs the peers and hands the terminal to the benchmark.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, bail};

use crate::{host, process, setup, workspace};

/// The benchmarks that there are.
const BENCHMARKS: [&str; 1] = ["service"];

/// `cargo xtask bench NAME [FLAGS]`. Returns only where it fails: the benchmark takes this process over.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let Some((name, flags)) = arguments.split_first().filter(|(name, _)| BENCHMARKS.contains(&name.as_str())) else {
        bail!("which one? There is: {}", BENCHMARKS.join(", "));
    };
    setup::install()?;
    setup::install_peers()?;
    let lacks = host::lacks();
    if !lacks.is_empty() {
        bail!("the benchmark needs\n  {}", lacks.join("\n  "));
    }
    let mut build = workspace::cargo();
    build.args(["build", "--profile", workspace::SHIPPED_PROFILE, "--bins"]);
    process::run(build.args(["--package", "roadstead-agent", "--package", "roadstead-bench"]))?;
    let mut command = process::as_root(workspace::shipped_dir().join("roadstead-bench"));
    command.arg(name).args(flags).arg("--out").arg(workspace::target_dir().join("bench"));
    let typed = format!("cargo xtask bench {}", arguments.join(" "));
    command.args(["--command", typed.trim_end()]);
    command.env("ROADSTEAD_BIN_DIR", workspace::shipped_dir()).env("PATH", workspace::path_with_sbin());
    // In place of this process: Ctrl-C and the exit code are the benchmark's own.
    let error = command.exec();
    Err(error).with_context(|| format!("could not start {}", process::shown(&command)))
}
