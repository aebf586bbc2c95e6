//! MetalLB itself, for the test that moves from it and back: controller and speaker built by Go from their module, and the
//! manifest that belongs to them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::super::step;
use super::go::Go;

/// The newest release of which the module proxy has all dependencies: those after it ask for versions that were never there.
const MODULE: &str = "go.universe.tf/metallb@v0.15.2";
const PROGRAMS: [&str; 2] = ["controller", "speaker"];
const MANIFEST: &str = "config/manifests/metallb-native.yaml";
/// What the folder is called beside the other programs.
const NAME: &str = "metallb";

/// Builds it into a folder of its own in the cache, and leads to it from the folder of the cluster's programs.
pub(super) fn install(cache: &Path, programs: &Path, manifest: &str) -> Result<()> {
    let folder = cache.join(NAME).join(MODULE.rsplit_once('@').map_or(MODULE, |(_, version)| version));
    if !folder.join("manifest.yaml").is_file() {
        build(cache, &folder, manifest)?;
    }
    let link = programs.join(NAME);
    if fs::read_link(&link).ok().as_deref() != Some(&*folder) {
        let _none = fs::remove_file(&link);
        symlink(&folder, &link).with_context(|| format!("could not make {}", link.display()))?;
    }
    Ok(())
}

fn build(cache: &Path, folder: &Path, manifest: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let go = Go::find_or_install(cache, manifest)?;
    step(&format!("building {MODULE} (three minutes, once)"), || {
        let (module, version) = MODULE.split_once('@').context("a module without a version")?;
        PROGRAMS.iter().try_for_each(|program| go.install(&format!("{module}/{program}@{version}"), folder))
    })?;
    // Last, so that it tells that all is there.
    let manifest = fs::read(go.module_folder(MODULE, folder)?.join(MANIFEST)).context("the module has no manifest")?;
    let fresh = folder.join("manifest.new");
    fs::write(&fresh, manifest).and_then(|()| fs::rename(&fresh, folder.join("manifest.yaml")))?;
    go.remove_own_caches();
    Ok(())
}
