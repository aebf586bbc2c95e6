//! `cargo-deb`: its build from crates.io, where it is not there.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use roadstead_toolchain::Host;

use super::step;
use crate::{process, workspace};

/// The version that was used first.
const VERSION: &str = "3.8.0";

/// The program; built into Cargo's home where it is missing.
pub(super) fn install() -> Result<PathBuf> {
    let home = Host::from_environment().cargo_home.context("neither CARGO_HOME nor HOME is set")?;
    let program = home.join("bin/cargo-deb");
    if process::answer(&program, &["--version"]).is_some() {
        return Ok(program);
    }
    step(&format!("building cargo-deb {VERSION} (some minutes)"), || {
        let mut install = workspace::cargo();
        install.args(["install", "cargo-deb", "--locked", "--version", VERSION, "--no-default-features"]);
        process::run(install.args(["--features", "gzip"]).arg("--root").arg(&home))
    })?;
    Ok(program)
}
