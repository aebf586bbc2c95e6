//! Which files of a directory are manifests, and their content.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::limits;

/// What a directory or a file given by name holds: paths in order, each with what `stat` says, links followed.
pub(crate) type Listing = BTreeMap<PathBuf, io::Result<Stamp>>;

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

/// Lists the manifests under a path: a directory's own files, not those of its folders, or the file itself.
pub(crate) fn list(path: &Path) -> io::Result<Listing> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Ok(BTreeMap::from([(path.to_owned(), Ok(Stamp::of(&metadata)))]));
    }
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(is_manifest) {
            continue;
        }
        let file = entry.path();
        match fs::metadata(&file) {
            Ok(metadata) if metadata.is_dir() => {}
            // A pipe or a device would block the reader for ever.
            Ok(metadata) if !metadata.is_file() => {}
            found => {
                files.insert(file, found.map(|metadata| Stamp::of(&metadata)));
            }
        }
    }
    Ok(files)
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
