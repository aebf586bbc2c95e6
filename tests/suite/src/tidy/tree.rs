//! The view of the checkout that the rules see: what Cargo says of the crates, and the text of the files.

use std::collections::{BTreeMap, BTreeSet};

/// The checkout in memory. Paths are relative to its top, with `/` between folders.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// The crates of the workspace and the eBPF crate.
    pub packages: Vec<Package>,
    /// Every file that is text, by path.
    pub files: BTreeMap<String, String>,
    /// The names at the top level.
    pub top_level: BTreeSet<String>,
    /// For each pure crate, by folder: the names of all crates that it is compiled with.
    pub compiled_with: BTreeMap<String, BTreeSet<String>>,
    /// Every crate from elsewhere, as `name vVERSION`, with its licence expression.
    pub licences: BTreeMap<String, String>,
}

/// One of our crates.
#[derive(Debug, Clone, Default)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: String,
    /// The oldest Rust it asks for.
    pub rust_version: String,
    /// What its manifest names.
    pub dependencies: Vec<Dependency>,
    /// Its libraries, programs and tests.
    pub targets: Vec<Target>,
}

/// A crate that another names.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// The package's name, whatever it is called in the code.
    pub name: String,
    /// What it is needed for.
    pub kind: Kind,
    /// Whether only a feature brings it in.
    pub optional: bool,
    /// Its folder, if it is one of ours.
    pub folder: Option<String>,
}

/// What a dependency is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The crate itself.
    Normal,
    /// Its tests.
    Dev,
    /// Its build script.
    Build,
}

/// Something that Cargo builds.
#[derive(Debug, Clone)]
pub struct Target {
    /// Whether it is a library or a program, rather than a test, an example or a build script.
    pub shipped: bool,
    /// The file that its modules hang on.
    pub root: String,
}

/// The crates without async, clock, files or sockets.
pub(crate) const PURE_CRATES: [&str; 5] =
    ["ebpf/datapath", "userspace/model", "ingress/routes", "lb-speaker/allocator", "lb-speaker/layer2"];

impl Tree {
    /// The Rust files below a folder.
    pub(crate) fn rust_files<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let below =
            move |path: &str| folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let files = self.files.iter().filter(move |(path, _)| path.ends_with(".rs") && below(path));
        files.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The text of a file; empty where there is none.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }
}
