//! Control groups: the socket programs of a node see the processes below that node's own group.
//!
//! Processes stand in leaves only (cgroup v2's rule): `<lab>/<node>/host` and `<lab>/<node>/<pod>`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// How long killed processes may take to leave their group.
const LEAVING: Duration = Duration::from_secs(5);

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
pub(crate) fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("could not read /proc/self/mounts")?;
    let found = mount_of_type(&mounts, "cgroup2").context(
        "cgroup v2 is not mounted; \"mount -t cgroup2 none /sys/fs/cgroup\" mounts it where nothing else is there",
    )?;
    Ok(PathBuf::from(found))
}

/// The first mount point of a type of file system.
pub(crate) fn mount_of_type<'a>(mounts: &'a str, kind: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?;
        (fields.next()? == kind).then_some(point)
    })
}

/// Kills all processes below a group and removes it.
pub(crate) fn remove(group: &Path) -> Result<()> {
    if !group.exists() {
        return Ok(());
    }
    wait_until(LEAVING, "the processes of the lab's control group end", || {
        let members = members(group);
        for process in &members {
            // It may have ended by itself in between.
            let _ended = kill(*process, Signal::SIGKILL);
        }
        members.is_empty() && remove_empty(group).is_ok()
    })?;
    Ok(())
}

/// Everything that runs in a group or below.
fn members(group: &Path) -> Vec<Pid> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.parse().ok().map(Pid::from_raw));
    own.chain(children(group).iter().flat_map(|child| members(child))).collect()
}

fn remove_empty(group: &Path) -> std::io::Result<()> {
    for child in children(group) {
        remove_empty(&child)?;
    }
    fs::remove_dir(group)
}

fn children(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_is_that_of_version_2() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let cases = [
            (hybrid, Some("/sys/fs/cgroup/unified")),
            ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", Some("/sys/fs/cgroup")),
            ("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", None),
            ("", None),
        ];
        for (mounts, expected) in cases {
            assert_eq!(mount_of_type(mounts, "cgroup2"), expected, "{mounts}");
        }
    }
}
