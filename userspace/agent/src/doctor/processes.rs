//! The programs that run on this host, as far as this process sees them, and whose the watched sockets are.

use std::{fs, path::Path};

use super::listeners::Listener;

/// A running program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// The last part of its first argument, or the kernel's name for it.
    pub(super) name: String,
    /// Its other arguments.
    pub(super) arguments: Vec<String>,
    /// It shares the network of this process.
    pub(super) shares_network: bool,
}

/// Longest command line that is read, in bytes; what stands behind is cut off.
const COMMAND_LINE: usize = 16 * 1024;

/// All of them, by the folder where the kernel shows processes.
pub(super) fn all(proc: &Path) -> Vec<Process> {
    let own = fs::read_link(proc.join("self/ns/net")).ok();
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut all: Vec<Process> = pids.filter_map(|pid| process(proc, pid, own.as_deref())).collect();
    all.sort_by_key(|process| process.pid);
    all
}

/// `None` where it has ended, or is a thread of the kernel.
fn process(proc: &Path, pid: u32, own: Option<&Path>) -> Option<Process> {
    let folder = proc.join(pid.to_string());
    let line = fs::read(folder.join("cmdline")).ok()?;
    let line = String::from_utf8_lossy(line.get(..COMMAND_LINE).unwrap_or(&line)).into_owned();
    let mut arguments = line.split('\0').filter(|argument| !argument.is_empty()).map(str::to_owned);
    let first = arguments.next()?;
    // nginx puts words of its own there: `nginx: master process /usr/sbin/nginx`.
    let program = first.split(':').next().unwrap_or(&first);
    let name = program.rsplit('/').next().unwrap_or(program).to_owned();
    // Whoever may not look takes it for one that shares the network: better one finding too many.
    let theirs = fs::read_link(folder.join("ns/net")).ok();
    let shares_network = theirs.is_none() || theirs.as_deref() == own;
    Some(Process { pid, name, arguments: arguments.collect(), shares_network })
}

/// Finds who holds each of the sockets; who may not look finds nobody.
pub(super) fn name_owners(listeners: &mut [Listener], processes: &[Process], proc: &Path) {
    if listeners.is_empty() {
        return;
    }
    for process in processes {
        let descriptors = fs::read_dir(proc.join(process.pid.to_string()).join("fd"));
        let targets = descriptors.into_iter().flatten().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        for inode in targets.filter_map(|target| inode(&target)) {
            let held = listeners.iter_mut().filter(|listener| listener.inode == inode && listener.owner.is_none());
            held.for_each(|listener| listener.owner = Some(process.name.clone()));
        }
    }
}

/// The number in `socket:[12345]`.
fn inode(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::doctor::listeners::Protocol;

    #[test]
    fn programs_and_owners_of_sockets_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        let add = |pid: &str, line: &str, network: &str, socket: Option<u64>| {
            let own = proc.join(pid);
            fs::create_dir_all(own.join("fd")).unwrap();
            fs::create_dir_all(own.join("ns")).unwrap();
            fs::write(own.join("cmdline"), line).unwrap();
            symlink(network, own.join("ns/net")).unwrap();
            if let Some(inode) = socket {
                symlink(format!("socket:[{inode}]"), own.join("fd/3")).unwrap();
            }
        };
        add("self", "roadstead\0doctor\0", "net:[1]", None);
        add("12", "/usr/local/bin/kube-proxy\0--config=/x\0", "net:[1]", None);
        add("13", "nginx: master process /usr/sbin/nginx", "net:[2]", Some(77));
        add("2", "", "net:[1]", None);
        fs::write(proc.join("version"), "x").unwrap();
        let found = all(proc);
        let shown: Vec<_> = found.iter().map(|found| (found.pid, found.name.as_str(), found.shares_network)).collect();
        assert_eq!(shown, [(12, "kube-proxy", true), (13, "nginx", false)]);
        assert_eq!(found[0].arguments, ["--config=/x"]);

        let listener =
            |inode| Listener { protocol: Protocol::Tcp, at: "0.0.0.0:80".parse().unwrap(), inode, owner: None };
        let mut listeners = [listener(77), listener(78)];
        name_owners(&mut listeners, &found, proc);
        assert_eq!(listeners.map(|listener| listener.owner), [Some("nginx".to_owned()), None]);
    }
}
