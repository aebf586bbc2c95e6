//! Which files of a directory are manifests, and their content.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::limits;

/// What a directory or a file given by name holds: paths in order, each with what `stat` says, links followed. In one
/// directory the order of texts is that of paths, and comparing thousands of paths by their components takes long.
pub(crate) type Listing = BTreeMap<OsString, io::Result<Stamp>>;

/// Which files to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope<'a> {
    /// All there are.
    All,
    /// Those that events named, where everything else is known to be as it was.
    Files(&'a BTreeSet<PathBuf>),
}

impl Scope<'_> {
    pub(crate) fn contains(&self, path: &Path) -> bool {
        match self {
            Self::All => true,
            Self::Files(files) => files.contains(path),
        }
    }
}

/// Tells a changed file from an unchanged one without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file changed less than this many milliseconds ago: the clock behind file times is coarse, so a
    /// later write may leave the same stamp.
    pub(crate) fn is_younger_than(&self, milliseconds: i128) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i128::try_from(now.as_millis()).unwrap_or(i128::MAX);
        let changed = i128::from(self.changed.0) * 1000 + i128::from(self.changed.1) / 1_000_000;
        (0..milliseconds).contains(&(now - changed))
    }
}

/// Lists the manifests in scope under a path: a directory's own files, not those of its folders, or the file itself.
pub(crate) fn list(path: &Path, scope: Scope<'_>) -> io::Result<Listing> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Ok(BTreeMap::from([(path.into(), Ok(Stamp::of(&metadata)))]));
    }
    let mut files = Listing::new();
    match scope {
        Scope::All => {
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                if entry.file_name().to_str().is_some_and(is_manifest) {
                    files.extend(stat(entry.path()));
                }
            }
        }
        Scope::Files(named) => {
            let of_folder = |file: &&PathBuf| file.parent() == Some(path) && names_manifest(file);
            for file in named.iter().filter(of_folder) {
                // What is gone is not there, but a link that leads nowhere is a file that cannot be read.
                if fs::symlink_metadata(file).is_ok() {
                    files.extend(stat(file.clone()));
                }
            }
        }
    }
    Ok(files)
}

fn stat(file: PathBuf) -> Option<(OsString, io::Result<Stamp>)> {
    match fs::metadata(&file) {
        // A pipe or a device would block the reader for ever.
        Ok(metadata) if !metadata.is_file() => None,
        found => Some((file.into(), found.map(|metadata| Stamp::of(&metadata)))),
    }
}

/// Whether the file's name is that of a manifest.
pub(crate) fn names_manifest(file: &Path) -> bool {
    file.file_name().and_then(|name| name.to_str()).is_some_and(is_manifest)
}

/// Names of manifests; those of hidden files and of what editors leave behind are none.
fn is_manifest(name: &str) -> bool {
    let suffix = [".yaml", ".yml", ".json"].iter().any(|suffix| name.ends_with(suffix));
    suffix && !name.starts_with(['.', '#'])
}

/// Reads a file up to the limit.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(limits::FILE_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limits::FILE_BYTES {
        let reason = format!("is larger than {} MiB", limits::FILE_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_by_name() {
        let cases = [
            ("a.yaml", true),
            ("a.yml", true),
            ("a.json", true),
            ("a.b.yaml", true),
            ("a.yaml~", false),
            (".a.yaml", false),
            (".#a.yaml", false),
            ("#a.yaml#", false),
            (".a.yaml.swp", false),
            ("4913", false),
            ("..data", false),
            ("a.txt", false),
            ("yaml", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_manifest(name), expected, "{name}");
        }
    }
}
