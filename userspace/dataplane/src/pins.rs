//! Where maps and links are pinned: `<bpffs>/v<ABI version>/{maps,links}`, and `<bpffs>/speaker-<version>/maps` for those
//! that the speaker writes.
//!
//! Pins keep the data plane running without the agent. Two ABI versions never share a folder, so a map is never opened
//! with another layout; the speaker's maps have a version of their own, so that an upgrade of the agent changes nothing
//! for a speaker that runs.

use std::{
    fs::Permissions,
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use nix::{mount, sys::statfs};
use roadstead_abi::{ABI_VERSION, announced};

use crate::syscall;

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: libc::__fsword_t = 0xcafe_4a11;

/// The folder of links, below that of a version.
const LINKS: &str = "links";

/// The folders of one agent's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    version: PathBuf,
}

/// Why pins cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// No BPF file system there.
    #[error("{} is not on a BPF file system: mount one with \"mount -t bpf bpf /sys/fs/bpf\"", .0.display())]
    NotBpffs(PathBuf),
    /// A folder could not be made or removed.
    #[error("cannot use {}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

impl Pins {
    /// The folders below `root` (`--bpffs`), made where they are missing; a BPF file system is mounted at
    /// `/sys/fs/bpf` if the root is below it and nothing is mounted there.
    ///
    /// # Errors
    /// When `root` is not on a BPF file system, or a folder cannot be made.
    pub fn open(root: &Path) -> Result<Self, PinsError> {
        let standard = Path::new("/sys/fs/bpf");
        if root.starts_with(standard) && !is_bpffs(standard) {
            // Failing shows below, with a sentence that says what to do.
            let _ = mount::mount(Some("bpf"), standard, Some("bpf"), mount::MsFlags::empty(), None::<&str>);
        }
        let nearest = root.ancestors().find(|path| path.exists()).unwrap_or(root);
        if !is_bpffs(nearest) {
            return Err(PinsError::NotBpffs(root.to_path_buf()));
        }
        let pins = Self::at(root);
        for folder in [pins.maps(), pins.links(), pins.speaker_maps()] {
            std::fs::create_dir_all(&folder).map_err(|source| PinsError::Io { path: folder, source })?;
        }
        Ok(pins)
    }

    /// The same folders, whether they are there or not.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf(), version: root.join(format!("v{ABI_VERSION}")) }
    }

    /// The folder of pinned maps.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.version.join("maps")
    }

    /// The folder of the pinned maps that the speaker writes.
    #[must_use]
    pub fn speaker_maps(&self) -> PathBuf {
        self.root.join(format!("{SPEAKER}{}", announced::VERSION)).join("maps")
    }

    /// Lets a group write the speaker's maps, and nothing else that is pinned. Who may write to a pin needs no right to BPF
    /// for it (from kernel 5.19 on), so a speaker in that group can do without.
    ///
    /// # Errors
    /// When this process may not give files to the group: it must be in it, or have CAP_CHOWN.
    pub fn share_speaker_maps(&self, group: u32) -> Result<(), PinsError> {
        let maps = self.speaker_maps();
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| PinsError::Io { path, source }
        };
        let entries = std::fs::read_dir(&maps).map_err(failed(&maps))?;
        let pins = entries.filter_map(Result::ok).map(|entry| (entry.path(), 0o660));
        let folders = [maps.parent().unwrap_or(&maps), &maps].map(|folder| (folder.to_path_buf(), 0o750));
        for (path, mode) in folders.into_iter().chain(pins) {
            chown(&path, None, Some(group)).map_err(failed(&path))?;
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed(&path))?;
        }
        Ok(())
    }

    /// The folder of pinned links.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.version.join(LINKS)
    }

    /// ABI versions other than this one of which maps are pinned, the latest first.
    #[must_use]
    pub fn other_versions(&self) -> Vec<(u32, Self)> {
        let folders = version_folders(&self.root).unwrap_or_default();
        let number = |folder: &Path| folder.file_name()?.to_str()?.strip_prefix('v')?.parse().ok();
        let others = folders.into_iter().filter(|folder| *folder != self.version);
        let mut versions: Vec<_> = others
            .filter_map(|folder| Some((number(&folder)?, Self { root: self.root.clone(), version: folder })))
            .filter(|(_, pins)| pins.maps().join(roadstead_abi::map_names::CONNTRACK).exists())
            .collect();
        versions.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        versions
    }

    /// Removes what agents of other ABI versions have pinned, once this one's programs are attached.
    ///
    /// # Errors
    /// When a folder cannot be read or removed.
    pub fn remove_other_versions(&self) -> Result<(), PinsError> {
        for folder in version_folders(&self.root)? {
            if folder != self.version && !is_speakers(&folder) {
                remove_all(&folder)?;
            }
        }
        Ok(())
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs::statfs(path).is_ok_and(|stat| stat.filesystem_type().0 == BPF_FS_MAGIC)
}

/// What the name of the folder with the speaker's maps begins with.
const SPEAKER: &str = "speaker-";

fn is_speakers(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(SPEAKER))
}

/// Folders that an agent has made: `v` or `speaker-` and a number. Whatever else is there is somebody else's.
fn version_folders(root: &Path) -> Result<Vec<PathBuf>, PinsError> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(PinsError::Io { path: root.to_path_buf(), source }),
    };
    let is_version = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(SPEAKER).or_else(|| name.strip_prefix('v')));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_version).collect())
}

/// Detaches what is pinned in a folder of links, so that no packet and no call meets a program once this has returned.
fn detach_links(folder: &Path) {
    for pin in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // What cannot be detached goes with its pin, a moment later.
        let _ = syscall::open_pinned(&pin.path()).and_then(|link| syscall::detach_link(link.as_fd()));
    }
}

/// Removes what agents of all versions have pinned below `root`, and the folder itself if nobody else's pins are in it. The
/// programs are off their hooks when it returns.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_versions(root: &Path) -> Result<(), PinsError> {
    for folder in version_folders(root)? {
        detach_links(&folder.join(LINKS));
        remove_all(&folder)?;
    }
    // Not empty: somebody else's.
    let _ = std::fs::remove_dir(root);
    Ok(())
}

/// Removes a folder of pins and everything in it; a link whose last pin goes is detached.
///
/// # Errors
/// When something cannot be removed. A folder that is not there is no error.
pub fn remove_all(folder: &Path) -> Result<(), PinsError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| PinsError::Io { path: folder.to_path_buf(), source }),
    }
}
