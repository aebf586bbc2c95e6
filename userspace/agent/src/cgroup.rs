//! Finding the cgroup that the socket programs hook.

use std::path::PathBuf;

use anyhow::Context as _;

/// The mount point of cgroup2: at `/sys/fs/cgroup`, or beside version 1 at `/sys/fs/cgroup/unified`.
///
/// # Errors
/// When none is mounted.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    find(&mounts).context("no cgroup2 file system is mounted: mount one, or name a cgroup with --cgroup-root")
}

fn find(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_among_others() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0\n";
        assert_eq!(find(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find("proc /proc proc rw 0 0\n"), None);
    }
}
