//! Reads the checkout into a [`Tree`]: the files from the disk, the crates from Cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs, io};

use serde_json::Value;

use super::tree::{Dependency, Kind, PURE_CRATES, Package, Target, Tree};

/// Why the checkout could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// A file or folder.
    File(PathBuf, io::Error),
    /// Cargo could not be started, or it failed.
    Cargo(String),
    /// Cargo answered something unknown.
    Answer(serde_json::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, cause) => write!(f, "could not read {}: {cause}", path.display()),
            Self::Cargo(said) => write!(f, "cargo failed: {said}"),
            Self::Answer(cause) => write!(f, "cargo's answer is not understood: {cause}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl Tree {
    /// Reads the checkout that this crate was built from.
    pub fn read() -> Result<Self, ReadError> {
        let top = &*crate::top();
        let mut tree = Self::default();
        read_files(top, top, &mut tree)?;
        for manifest in ["Cargo.toml", "ebpf/programs/Cargo.toml"] {
            let answer = cargo(top, &["metadata", "--no-deps", "--format-version=1", "--manifest-path", manifest])?;
            let answer: Value = serde_json::from_str(&answer).map_err(ReadError::Answer)?;
            tree.packages.extend(array(&answer, "packages").map(|package| self::package(package, top)));
        }
        for folder in PURE_CRATES {
            let manifest = format!("{folder}/Cargo.toml");
            let answer = cargo(top, &["tree", "--manifest-path", &manifest, "--edges=normal", "--prefix=none"])?;
            let names = answer.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
            tree.compiled_with.insert(folder.to_owned(), names.collect());
        }
        tree.licences = licences(top, "Cargo.toml")?;
        tree.licences.extend(licences(top, "ebpf/programs/Cargo.toml")?);
        Ok(tree)
    }
}

/// Takes in all text below a folder, save what Cargo, git and editors keep for themselves.
fn read_files(top: &Path, folder: &Path, tree: &mut Tree) -> Result<(), ReadError> {
    let entries = fs::read_dir(folder).map_err(|cause| ReadError::File(folder.to_owned(), cause))?;
    for entry in entries {
        let path = entry.map_err(|cause| ReadError::File(folder.to_owned(), cause))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "target" || name == ".git" || name.ends_with(".swp") || path.join("CACHEDIR.TAG").exists() {
            continue;
        }
        if folder == top {
            tree.top_level.insert(name);
        }
        if path.is_dir() {
            read_files(top, &path, tree)?;
            continue;
        }
        // What is no text (a picture, a captured packet) holds nothing that the rules read.
        if let Ok(text) = fs::read_to_string(&path) {
            tree.files.insert(relative(&path, top), text);
        }
    }
    Ok(())
}

fn relative(path: &Path, top: &Path) -> String {
    path.strip_prefix(top).unwrap_or(path).to_string_lossy().into_owned()
}

/// Cargo's answer. Its compiler is named because the tests may run under sudo, which has a PATH of its own.
fn cargo(top: &Path, arguments: &[&str]) -> Result<String, ReadError> {
    let program = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut command = Command::new(&program);
    command.current_dir(top).args(arguments);
    let rustc = program.with_file_name("rustc");
    if rustc.is_absolute() && rustc.exists() {
        command.env("RUSTC", rustc);
    }
    let output = command.output().map_err(|cause| ReadError::Cargo(cause.to_string()))?;
    if !output.status.success() {
        return Err(ReadError::Cargo(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn array<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn string<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn package(value: &Value, top: &Path) -> Package {
    let manifest = Path::new(string(value, "manifest_path"));
    Package {
        name: string(value, "name").to_owned(),
        folder: relative(manifest.parent().unwrap_or(manifest), top),
        rust_version: string(value, "rust_version").to_owned(),
        dependencies: array(value, "dependencies").map(|value| dependency(value, top)).collect(),
        targets: array(value, "targets").map(|value| target(value, top)).collect(),
    }
}

fn dependency(value: &Value, top: &Path) -> Dependency {
    let kind = match string(value, "kind") {
        "dev" => Kind::Dev,
        "build" => Kind::Build,
        _ => Kind::Normal,
    };
    Dependency {
        name: string(value, "name").to_owned(),
        kind,
        optional: value.get("optional").and_then(Value::as_bool).unwrap_or(false),
        folder: value.get("path").and_then(Value::as_str).map(|path| relative(Path::new(path), top)),
    }
}

fn target(value: &Value, top: &Path) -> Target {
    let kinds: BTreeSet<&str> = array(value, "kind").filter_map(Value::as_str).collect();
    Target {
        shipped: kinds.contains("lib") || kinds.contains("bin") || kinds.contains("proc-macro"),
        root: relative(Path::new(string(value, "src_path")), top),
    }
}

/// The crates from elsewhere that a workspace is built with on this host, with their licences.
fn licences(top: &Path, manifest: &str) -> Result<BTreeMap<String, String>, ReadError> {
    let arguments = ["tree", "--workspace", "--prefix=none", "--format={p}\t{l}", "--manifest-path", manifest];
    let answer = cargo(top, &arguments)?;
    // A crate of ours is followed by its folder; a crate seen before ends in (*).
    let foreign = answer.lines().filter(|line| !line.contains(" (/"));
    let pairs = foreign.filter_map(|line| line.trim_end_matches(" (*)").split_once('\t'));
    Ok(pairs
        .map(|(package, licence)| (package.trim_end_matches(" (proc-macro)").to_owned(), licence.to_owned()))
        .collect())
}
