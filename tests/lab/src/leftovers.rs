//! Taking a lab off the host: at its end, on Ctrl-C, and where an earlier process died without doing it.
//!
//! All of it follows from the lab's name, so that a lab is removed the same way by whoever removes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context as _, Result};

use crate::identity::LabId;
use crate::{cgroup, ip, namespace};

/// Where the BPF file system is mounted.
pub(crate) const BPF_MOUNT: &str = "/sys/fs/bpf";

/// Removes what a lab has on the host: its processes and control groups, its pins, its namespaces.
pub(crate) fn remove(id: LabId) -> Result<()> {
    let cgroups = cgroup::remove(&cgroup_of(id)?);
    let pins = match fs::remove_dir_all(pins_of(id)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("pins could not be removed"),
        _ => Ok(()),
    };
    let names = namespace::names().into_iter().filter(|name| name.parse() == Ok(id));
    let lines: Vec<String> = names.map(|name| format!("netns del {name}")).collect();
    let namespaces = if lines.is_empty() { Ok(()) } else { ip::batch(None, &lines) };
    // All three are tried before the first failure is told.
    cgroups.and(pins).and(namespaces)
}

/// Removes the labs of dead processes, once in the life of this process.
pub(crate) fn sweep() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| {
        for id in found() {
            // Before its first lab, what bears this process's own number is of an earlier process of that number.
            if (!id.is_alive() || id.is_ours())
                && let Err(error) = remove(id)
            {
                eprintln!("lab: leftovers of {id} stay: {error:#}");
            }
        }
    });
}

/// Every lab of which something is on this host.
pub(crate) fn found() -> BTreeSet<LabId> {
    let folders = [PathBuf::from(BPF_MOUNT)].into_iter().chain(cgroup::mount_point().ok());
    let entries = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).chain(namespace::names());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// The control group over all groups of a lab.
pub(crate) fn cgroup_of(id: LabId) -> Result<PathBuf> {
    Ok(cgroup::mount_point()?.join(id.to_string()))
}

/// The folder over the pins of all nodes of a lab.
pub(crate) fn pins_of(id: LabId) -> PathBuf {
    Path::new(BPF_MOUNT).join(id.to_string())
}
