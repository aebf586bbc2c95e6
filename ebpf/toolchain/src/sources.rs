//! Which files decide how the object comes out, and their hash.
//!
//! The eBPF crate and its siblings in [`HASHED_CRATES`] count: every `.rs`, every `.toml` and the lock file, save what
//! only tests compile. A tidy test holds the list against the path dependencies that Cargo sees. The workspace's root
//! manifest is left out although the siblings inherit their edition from it: it changes daily for reasons that cannot
//! reach the object, and a new edition is a reason to raise the recipe's number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest;
use crate::error::ToolchainError;

/// The folders beside the eBPF crate that are compiled into its object.
pub const HASHED_CRATES: [&str; 2] = ["abi", "datapath"];

/// Folders of a crate whose content is no part of the object.
const IGNORED_FOLDERS: [&str; 5] = ["target", "tests", "benches", "examples", "fuzz"];

/// One state of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    code: String,
    lock: String,
}

impl Fingerprint {
    /// Whether the two differ at most in the lock file.
    pub(crate) fn same_code(&self, other: &Self) -> bool {
        self.code == other.code
    }

    /// The hash over code, lock file and whatever else decides.
    pub(crate) fn key<'a>(&'a self, more: impl IntoIterator<Item = &'a str>) -> String {
        digest::of_parts([self.code.as_str(), self.lock.as_str()].into_iter().chain(more).map(str::as_bytes))
    }
}

/// Hashes the sources of the eBPF crate and of its siblings.
pub(crate) fn fingerprint(programs_dir: &Path) -> Result<Fingerprint, ToolchainError> {
    let mut parts = Vec::new();
    for folder in crate_folders(programs_dir) {
        // The place of a sibling relative to the crate does not depend on where the checkout is.
        let name = folder.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
        for file in source_files(&folder)? {
            let inside = file.strip_prefix(&folder).unwrap_or(&file).as_os_str().as_encoded_bytes().to_vec();
            let content = fs::read(&file).map_err(|cause| ToolchainError::file(&file, cause))?;
            parts.extend([name.clone(), inside, content]);
        }
    }
    let lock = match fs::read(programs_dir.join("Cargo.lock")) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|cause| ToolchainError::file(&programs_dir.join("Cargo.lock"), cause))?,
    };
    Ok(Fingerprint { code: digest::of_parts(parts.iter().map(Vec::as_slice)), lock: digest::of_parts([&*lock]) })
}

/// The paths a build script watches: files, and folders for the sake of new files.
pub(crate) fn watched_paths(programs_dir: &Path) -> Result<Vec<PathBuf>, ToolchainError> {
    let mut paths = Vec::new();
    for folder in crate_folders(programs_dir) {
        paths.extend(source_files(&folder)?);
        paths.extend([folder.join("src"), folder.join("Cargo.lock")]);
    }
    // Cargo takes a path that does not exist for changed, always.
    paths.retain(|path| path.exists());
    Ok(paths)
}

fn crate_folders(programs_dir: &Path) -> Vec<PathBuf> {
    let siblings = HASHED_CRATES.iter().map(|name| programs_dir.with_file_name(name)).filter(|folder| folder.is_dir());
    [programs_dir.to_owned()].into_iter().chain(siblings).collect()
}

/// All `.rs` and `.toml` files below a crate's folder, sorted.
fn source_files(folder: &Path) -> Result<Vec<PathBuf>, ToolchainError> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(current) = open.pop() {
        let entries = fs::read_dir(&current).map_err(|cause| ToolchainError::file(&current, cause))?;
        for entry in entries {
            let entry = entry.map_err(|cause| ToolchainError::file(&current, cause))?;
            let path = entry.path();
            if path.is_dir() {
                if current != folder || !is_ignored(&path) {
                    open.push(path);
                }
            } else if is_source(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Hidden files are an editor's, not Cargo's.
fn is_source(file: &Path) -> bool {
    let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && file.extension().is_some_and(|extension| extension == "rs" || extension == "toml")
}

fn is_ignored(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default();
    IGNORED_FOLDERS.iter().any(|ignored| name == *ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Changes one file of a small tree and tells whether code and lock came out the same.
    fn check(change: &str, same_code: bool, same_lock: bool) {
        let top = tempfile::tempdir().unwrap();
        let programs = top.path().join("programs");
        for file in ["programs/Cargo.toml", "programs/src/main.rs", "abi/src/lib.rs", "datapath/src/parse/tcp.rs"] {
            write(top.path().join(file), "first");
        }
        let before = fingerprint(&programs).unwrap();
        write(top.path().join(change), "second");
        let after = fingerprint(&programs).unwrap();
        assert_eq!((before.code == after.code, before.lock == after.lock), (same_code, same_lock), "{change}");
        assert_eq!(before.same_code(&after), same_code, "{change}");
    }

    #[test]
    fn what_decides_changes_the_hash() {
        check("programs/src/main.rs", false, true);
        check("programs/src/new.rs", false, true);
        check("programs/.cargo/config.toml", false, true);
        check("abi/src/lib.rs", false, true);
        check("datapath/src/parse/tcp.rs", false, true);
        check("programs/Cargo.lock", true, false);
        check("programs/target/debug/build.rs", true, true);
        check("datapath/tests/packets.rs", true, true);
        check("datapath/README.md", true, true);
        check("datapath/src/.parse.rs", true, true);
        check("toolchain/src/lib.rs", true, true);
    }

    #[test]
    fn a_renamed_file_is_another_source() {
        let top = tempfile::tempdir().unwrap();
        write(top.path().join("programs/src/a.rs"), "same");
        let before = fingerprint(&top.path().join("programs")).unwrap();
        fs::rename(top.path().join("programs/src/a.rs"), top.path().join("programs/src/b.rs")).unwrap();
        assert_ne!(before, fingerprint(&top.path().join("programs")).unwrap());
    }

    #[test]
    fn a_missing_crate_is_named() {
        let error = fingerprint(Path::new("no/such/programs")).unwrap_err();
        assert!(error.to_string().contains("no/such/programs"), "{error}");
    }
}
