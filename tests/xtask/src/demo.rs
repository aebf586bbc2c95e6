//! `demo`: builds the daemons and the lab and hands the terminal to the lab.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, bail};

use crate::{host, process, setup, workspace};

/// `cargo xtask demo [--keep]`. Returns only where it fails: the lab takes this process over.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::install()?;
    let lacks = host::lacks();
    if !lacks.is_empty() {
        bail!("the demo needs\n  {}", lacks.join("\n  "));
    }
    workspace::build_programs()?;
    let mut command = process::as_root(workspace::program_dir().join("roadstead-lab"));
    command.arg("demo").args(arguments);
    command.env("ROADSTEAD_BIN_DIR", workspace::program_dir()).env("PATH", workspace::path_with_sbin());
    // In place of this process: Ctrl-C and the exit code are the lab's own.
    let error = command.exec();
    Err(error).with_context(|| format!("could not start {}", process::shown(&command)))
}
