//! What the manifests and the texts at the top level must say.

use std::collections::BTreeSet;

use super::RULES;
use super::tree::Tree;

/// The folders that hold crates, and what stands beside crates there: the test cluster is a Go module.
const CRATE_FOLDERS: [&str; 5] = ["ebpf", "ingress", "lb-speaker", "tests", "userspace"];
const GO_MODULES: [&str; 1] = ["tests/cluster"];

pub(super) fn folder_is_crate(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    let folders: BTreeSet<&str> = tree.files.keys().filter_map(|path| crate_folder(path)).collect();
    for folder in folders {
        let is_crate = tree.packages.iter().any(|package| package.folder == folder);
        let is_module = GO_MODULES.contains(&folder);
        if !is_crate && !is_module {
            faults.push(format!("{folder} is no crate"));
        }
        if is_module && tree.rust_files(folder).next().is_some() {
            faults.push(format!("{folder} is a Go module and holds Rust"));
        }
    }
    for package in &tree.packages {
        let leaf = package.folder.rsplit('/').next().unwrap_or_default();
        if package.name != format!("roadstead-{leaf}") {
            faults.push(format!("{} is called {}", package.folder, package.name));
        }
        if package.folder.split('/').count() != 2 {
            faults.push(format!("{} is not one level deep", package.folder));
        }
    }
    faults
}

/// `tests/lab` of `tests/lab/src/lib.rs`; `None` for files that stand higher up.
fn crate_folder(path: &str) -> Option<&str> {
    let (top, rest) = path.split_once('/').filter(|(top, _)| CRATE_FOLDERS.contains(top))?;
    let (leaf, _) = rest.split_once('/')?;
    path.get(..top.len() + 1 + leaf.len())
}

pub(super) fn dependencies_have_reasons(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for line in section(tree.text("Cargo.toml"), "workspace.dependencies").filter(|line| !line.contains("path = ")) {
        let (name, rest) = line.split_once('=').unwrap_or((line, ""));
        let (settings, reason) = rest.split_once('#').unwrap_or((rest, ""));
        if !settings.contains("default-features = false") {
            faults.push(format!("{} has no default-features = false", name.trim()));
        }
        if reason.split_whitespace().count() < 2 {
            faults.push(format!("{} has no reason", name.trim()));
        }
    }
    // The eBPF crate is a workspace of its own.
    let members = tree.packages.iter().filter(|package| package.folder != "ebpf/programs");
    for manifest in members.map(|package| format!("{}/Cargo.toml", package.folder)) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let own = section(tree.text(&manifest), kind).filter(|line| !line.contains("workspace = true"));
            faults.extend(own.map(|line| format!("{manifest}: \"{line}\" is not taken from the workspace")));
        }
    }
    faults
}

/// The lines of a section of a manifest, without comments and blank ones.
fn section<'a>(manifest: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let head = format!("[{name}]");
    let lines = manifest.lines().skip_while(move |line| *line != head).skip(1);
    lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The visible names that the layout has. Names with a dot in front belong to tools.
const TOP_LEVEL: [&str; 15] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "deploy",
    "ebpf",
    "ingress",
    "lb-speaker",
    "rustfmt.toml",
    "tests",
    "userspace",
];

pub(super) fn top_level_is_fixed(tree: &Tree) -> Vec<String> {
    let known = |name: &str| TOP_LEVEL.contains(&name) || name.starts_with('.') || name.starts_with("LICENSE");
    tree.top_level.iter().filter(|name| !known(name)).map(|name| format!("{name} is no part of the layout")).collect()
}

pub(super) fn architecture_is_written_down(tree: &Tree) -> Vec<String> {
    let text = tree.text("ARCHITECTURE.md");
    let crates = tree.packages.iter().filter(|package| !text.contains(&package.folder));
    let mut faults: Vec<String> =
        crates.map(|package| format!("ARCHITECTURE.md does not name {}", package.folder)).collect();
    let rules = RULES.iter().filter(|rule| !text.contains(&format!("- **{}**", rule.name)));
    faults.extend(rules.map(|rule| format!("ARCHITECTURE.md does not list \"- **{}**\"", rule.name)));
    // An invariant that no rule keeps is a promise without a test.
    let listed = text.lines().skip_while(|line| !line.starts_with('#') || !line.contains("Invariants")).skip(1);
    for line in listed.take_while(|line| !line.starts_with('#')) {
        let name = line.strip_prefix("- **").and_then(|rest| rest.split_once("**")).map(|(name, _)| name);
        let unknown = name.filter(|name| !RULES.iter().any(|rule| rule.name == *name));
        faults.extend(unknown.map(|name| format!("no rule keeps the invariant \"{name}\"")));
    }
    faults
}
