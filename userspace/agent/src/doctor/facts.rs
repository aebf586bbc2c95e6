//! The facts that `doctor` judges, read once. What cannot be read is `None` or empty, never an error: that is a fact too.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Purpose,
    listeners::{self, Listener},
    processes::{self, Process},
    rulesets::{self, Rulesets},
};
use crate::devices::Devices;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// `6.18.44-generic`.
    pub(super) release: String,
    /// Whether the kernel's type information names the function that attaches to tcx; `None` where it has none to read.
    pub(super) tcx: Option<bool>,
    pub(super) mounts: Vec<Mount>,
    /// The kernel knows the BPF file system.
    pub(super) knows_bpffs: bool,
    /// The cgroup that the socket programs are to be attached to is not the one that holds all processes of the machine.
    pub(super) cgroup_is_part: bool,
    /// What this process may (`CapEff`), by bits.
    pub(super) capabilities: u64,
    /// Values below /proc/sys, by their path there.
    pub(super) parameters: BTreeMap<String, String>,
    /// The devices of this network namespace, or why they cannot be listed.
    pub(super) devices: Option<Devices>,
    pub(super) rulesets: Rulesets,
    /// Virtual servers of IPVS in this network namespace.
    pub(super) ipvs_servers: usize,
    pub(super) processes: Vec<Process>,
    /// Sockets on the ports that the daemons and their rivals use.
    pub(super) listeners: Vec<Listener>,
    /// Cilium has pinned something on the BPF file system.
    pub(super) cilium_pins: bool,
}

/// A line of /proc/self/mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: PathBuf,
    pub(super) kind: String,
}

/// What is read below /proc/sys whatever devices there are.
const PARAMETERS: [&str; 8] = [
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/route_localnet",
    "net/core/bpf_jit_enable",
    "net/core/bpf_jit_harden",
    "kernel/unprivileged_bpf_disabled",
];

/// The function of the kernel that attaches a program to tcx (kernel/bpf/tcx.c).
const TCX: &[u8] = b"\0tcx_prog_attach\0";

impl Facts {
    /// Reads them from this host, as this process sees it.
    pub(super) fn gather(purpose: &Purpose) -> Self {
        // Where the devices cannot be listed, the finding about them says so.
        let devices = Devices::look(&[]).ok();
        let mut facts = Self::read(Path::new("/"), purpose, devices);
        facts.rulesets = rulesets::look();
        facts
    }

    /// Reads what is in files, below a folder that takes the place of `/`.
    pub(super) fn read(root: &Path, purpose: &Purpose, devices: Option<Devices>) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let mounts = mounts(&read("proc/self/mounts"));
        let cgroup = purpose
            .cgroup_root
            .clone()
            .or_else(|| mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.path.clone()));
        let in_root = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        // Only a cgroup that is not the root has a type (Documentation/admin-guide/cgroup-v2.rst, "cgroup.type").
        let cgroup_is_part = cgroup.is_some_and(|path| in_root(&path).join("cgroup.type").exists());
        let processes = processes::all(&root.join("proc"));
        let mut listeners = listeners::all(|table| read(&format!("proc/self/net/{table}")));
        processes::name_owners(&mut listeners, &processes, &root.join("proc"));
        Self {
            release: read("proc/sys/kernel/osrelease").trim().to_owned(),
            tcx: fs::read(root.join("sys/kernel/btf/vmlinux")).ok().map(|types| contains(&types, TCX)),
            knows_bpffs: read("proc/filesystems").lines().any(|line| line.split_whitespace().last() == Some("bpf")),
            cgroup_is_part,
            capabilities: capabilities(&read("proc/self/status")),
            parameters: parameters(&root.join("proc/sys"), devices.as_ref(), &purpose.devices),
            rulesets: Rulesets::default(),
            ipvs_servers: ipvs_servers(&read("proc/self/net/ip_vs")),
            cilium_pins: in_root(Path::new("/sys/fs/bpf/cilium")).exists(),
            mounts,
            devices,
            processes,
            listeners,
        }
    }

    /// A value below /proc/sys.
    pub(super) fn parameter(&self, path: &str) -> Option<&str> {
        self.parameters.get(path).map(String::as_str)
    }

    /// A value below /proc/sys that is a number.
    pub(super) fn number(&self, path: &str) -> Option<u32> {
        self.parameter(path)?.parse().ok()
    }
}

fn mounts(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Mount { path: PathBuf::from(path), kind: kind.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

fn capabilities(status: &str) -> u64 {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default()
}

fn parameters(folder: &Path, devices: Option<&Devices>, named: &[String]) -> BTreeMap<String, String> {
    let filters = devices.into_iter().flat_map(|devices| {
        let uplinks = devices.uplinks(named, &[]).unwrap_or_default();
        devices.pods(&uplinks).into_values().map(|device| reverse_path_filter(&device)).collect::<Vec<_>>()
    });
    let paths = PARAMETERS.iter().map(|path| (*path).to_owned()).chain(filters);
    let read = |path: String| -> io::Result<(String, String)> {
        let value = fs::read_to_string(folder.join(&path))?;
        Ok((path, value.trim().to_owned()))
    };
    paths.filter_map(|path| read(path).ok()).collect()
}

/// Where the kernel keeps a device's reverse path filter, below /proc/sys.
pub(super) fn reverse_path_filter(device: &str) -> String {
    format!("net/ipv4/conf/{device}/rp_filter")
}

/// /proc/net/ip_vs has three lines of headings; a virtual server's line begins with its protocol, a real one's with `->`.
fn ipvs_servers(table: &str) -> usize {
    let servers = ["TCP ", "UDP ", "SCTP ", "FWM "];
    table.lines().skip(3).filter(|line| servers.iter().any(|server| line.starts_with(server))).count()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
