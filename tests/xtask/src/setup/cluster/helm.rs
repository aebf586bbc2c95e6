//! Helm, for the tests that hold the chart beside `deploy/`: built by Go from its own module.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::super::step;
use super::go::Go;
use crate::process;

const MODULE: &str = "helm.sh/helm/v3/cmd/helm@v3.22.0";

/// Builds it into a folder of its own in the cache, where neither that nor the path has it.
pub(super) fn install(cache: &Path, manifest: &str) -> Result<()> {
    let folder = cache.join("helm");
    let on_path = process::answer("helm", &["version", "--short"]);
    if folder.join("helm").is_file() || on_path.is_some_and(|version| version.starts_with("v3.")) {
        return Ok(());
    }
    // Not into its place at once: a build that was stopped must not look like one that is done.
    let fresh = folder.join("new");
    fs::create_dir_all(&fresh).with_context(|| format!("could not make {}", fresh.display()))?;
    let go = Go::find_or_install(cache, manifest)?;
    step("building helm (three minutes, once)", || go.install(MODULE, &fresh))?;
    go.remove_own_caches();
    fs::rename(fresh.join("helm"), folder.join("helm")).context("the build left no program")
}
