//! `lint` and `ci`: what a change must hold besides the tests.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{process, setup, workspace};

/// `cargo xtask lint`: formatting of both workspaces, clippy without warnings.
pub(crate) fn run() -> Result<()> {
    setup::install()?;
    for tool in ["fmt", "clippy"] {
        let there = workspace::cargo().args([tool, "--version"]).output().is_ok_and(|output| output.status.success());
        if !there {
            bail!("cargo {tool} is missing: run \"rustup component add rustfmt clippy\"");
        }
    }
    process::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    process::run(workspace::cargo().args(["fmt", "--manifest-path", "ebpf/programs/Cargo.toml", "--check"]))?;
    process::run(workspace::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// `cargo xtask ci`: exactly what the CI machine runs, so that the two cannot differ.
pub(crate) fn ci() -> Result<()> {
    process::run(Command::new(workspace::root().join(".ci/run")).current_dir(workspace::root()))
}
