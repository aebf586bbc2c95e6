//! The objects that were made, by the hash of their sources, so that the compiler runs only when it must.
//!
//! Beside an object lies its stamp: the object's hash and the tools that made it. An object serves while its sources are
//! the same and its tools are the same or gone: a machine that lost its compiler keeps what it made, one that upgraded
//! it makes the object anew. One process at a time works here; a reader outside the lock sees whole files only.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::compiler::Compiler;
use crate::digest;
use crate::error::ToolchainError;
use crate::host::Host;
use crate::linker::Linker;

/// Objects kept; the oldest go first. One is some hundred kilobytes.
const KEPT_OBJECTS: usize = 16;

/// A folder of objects.
pub(crate) struct Cache {
    folder: PathBuf,
}

/// The right to work in the folder, until dropped.
pub(crate) struct Lock {
    _file: File,
}

impl Cache {
    pub(crate) fn open(folder: &Path) -> Result<Self, ToolchainError> {
        fs::create_dir_all(folder).map_err(|cause| ToolchainError::file(folder, cause))?;
        // Cargo runs elsewhere, so a relative path would mean another folder there.
        let folder = folder.canonicalize().map_err(|cause| ToolchainError::file(folder, cause))?;
        Ok(Self { folder })
    }

    /// Waits until no other process works in the folder.
    pub(crate) fn lock(&self) -> Result<Lock, ToolchainError> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(|cause| ToolchainError::file(&path, cause))?;
        file.lock().map_err(|cause| ToolchainError::file(&path, cause))?;
        Ok(Lock { _file: file })
    }

    /// The target folder of the inner Cargo. Its own, because the outer Cargo holds the lock of the other one.
    pub(crate) fn target_dir(&self) -> PathBuf {
        self.folder.join("target")
    }

    /// The object under that key, if it is whole and still what this machine would make.
    pub(crate) fn hit(&self, key: &str, host: &Host) -> Option<PathBuf> {
        let object = self.object(key);
        let content = fs::read(&object).ok()?;
        let stamp = fs::read_to_string(self.stamp(key)).ok()?;
        let mut lines = stamp.lines();
        let whole = lines.next()? == digest::of_parts([&*content]);
        let asked = lines.next()? == asked_for(host);
        let tools: Vec<&str> = lines.collect();
        let (times, paths) = (tools.iter().step_by(2), tools.iter().skip(1).step_by(2));
        let unchanged = times.zip(paths).all(|(seen, path)| identity(Path::new(path)).is_none_or(|now| now == **seen));
        (whole && asked && unchanged).then_some(object)
    }

    /// Takes the object in. Without the tools that made it, it gets no stamp and will be made anew next time.
    pub(crate) fn store(
        &self,
        key: &str,
        built: &Path,
        host: &Host,
        tools: Option<(&Compiler, &Linker)>,
    ) -> Result<PathBuf, ToolchainError> {
        let content = fs::read(built).map_err(|cause| ToolchainError::file(built, cause))?;
        let object = self.object(key);
        self.replace(&object, &content)?;
        if let Some((compiler, linker)) = tools {
            let mut stamp = format!("{}\n{}\n", digest::of_parts([&*content]), asked_for(host));
            for tool in [&compiler.rustc, &linker.path] {
                let seen = identity(tool).unwrap_or_default();
                stamp.push_str(&format!("{seen}\n{}\n", tool.display()));
            }
            self.replace(&self.stamp(key), stamp.as_bytes())?;
        }
        self.prune(&object);
        Ok(object)
    }

    fn object(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.o"))
    }

    fn stamp(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.stamp"))
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), ToolchainError> {
        let fresh = self.folder.join("fresh");
        let write = || -> io::Result<()> {
            fs::write(&fresh, content)?;
            fs::rename(&fresh, path)
        };
        write().map_err(|cause| ToolchainError::file(path, cause))
    }

    /// Removes the oldest objects. A failure here costs disk space only, so it is none.
    fn prune(&self, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let objects =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "o"));
        let mut dated: Vec<_> =
            objects.map(|path| (path.metadata().and_then(|data| data.modified()).ok(), path)).collect();
        dated.sort();
        let surplus = dated.len().saturating_sub(KEPT_OBJECTS);
        for (_, path) in dated.iter().take(surplus).filter(|(_, path)| path != newest) {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(path.with_extension("stamp"));
        }
    }
}

/// The compiler that the user insisted on; another wish is another object.
fn asked_for(host: &Host) -> String {
    host.named_rustc.as_ref().map(|named| named.display().to_string()).unwrap_or_default()
}

/// Length and time of a tool's file: enough to notice an upgrade without starting it.
fn identity(tool: &Path) -> Option<String> {
    let data = tool.metadata().ok()?;
    let changed = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} {}", data.len(), changed.as_nanos()))
}
