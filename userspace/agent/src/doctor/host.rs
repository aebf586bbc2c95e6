//! The kernel and the rights: what no setting of the network mends.

use std::path::{Path, PathBuf};

use super::{
    DaemonName, Purpose,
    facts::{Facts, Mount},
    finding::Finding,
};

/// The oldest kernel with tcx, as major and minor. (Linux 6.6, commit e420bed02507.)
const KERNEL: (u32, u32) = (6, 6);

/// Rights by name and bit (capability.h).
const BIND: (&str, u32) = ("CAP_NET_BIND_SERVICE", 10);
const NET_ADMIN: (&str, u32) = ("CAP_NET_ADMIN", 12);
const NET_RAW: (&str, u32) = ("CAP_NET_RAW", 13);
const PERFMON: (&str, u32) = ("CAP_PERFMON", 38);
const BPF: (&str, u32) = ("CAP_BPF", 39);

pub(super) fn check(facts: &Facts, purpose: &Purpose) -> Vec<Finding> {
    let mut findings = Vec::new();
    if purpose.runs(DaemonName::Agent) {
        findings.push(kernel(facts));
        findings.push(tcx(facts));
        findings.push(jit(facts));
        findings.push(bpffs(facts, &purpose.bpffs));
        findings.push(cgroup(facts, purpose.cgroup_root.as_deref()));
    }
    findings.push(rights(facts, purpose));
    findings
}

fn kernel(facts: &Facts) -> Finding {
    let (major, minor) = KERNEL;
    let found = format!("Linux {}", facts.release);
    match version(&facts.release) {
        Some(kernel) if kernel >= KERNEL => Finding::ok("kernel", found),
        Some(_) => Finding::fail("kernel", found, format!("boot Linux {major}.{minor} or a newer one")),
        None => Finding::warn(
            "kernel",
            "the kernel does not tell its version",
            format!("it must be {major}.{minor} or newer"),
        ),
    }
}

fn tcx(facts: &Facts) -> Finding {
    match facts.tcx {
        Some(true) => Finding::ok("tcx", "programs can be attached to devices by tcx"),
        Some(false) => Finding::fail(
            "tcx",
            "the kernel was built without tcx",
            "boot a kernel with CONFIG_NET_XGRESS, which CONFIG_NET_CLS_ACT selects",
        ),
        None if version(&facts.release).is_some_and(|kernel| kernel >= KERNEL) => {
            Finding::ok("tcx", "by its version the kernel has tcx; it shows no /sys/kernel/btf/vmlinux to make sure by")
        }
        None => Finding::fail("tcx", "the kernel has no tcx", "boot a newer one"),
    }
}

fn jit(facts: &Facts) -> Finding {
    let advice = "write 1 to /proc/sys/net/core/bpf_jit_enable: interpreted programs take several times as long";
    match facts.number("net/core/bpf_jit_enable") {
        Some(0) => Finding::warn("jit", "BPF programs are interpreted", advice),
        Some(_) if facts.number("net/core/bpf_jit_harden") == Some(2) => Finding::warn(
            "jit",
            "BPF programs of root are hardened as well, which costs every packet",
            "write 1 to /proc/sys/net/core/bpf_jit_harden: it hardens those of others alone",
        ),
        Some(_) => Finding::ok("jit", "BPF programs are compiled"),
        // The kernel shows it in its first network namespace alone.
        None => Finding::ok("jit", "from this network namespace it cannot be seen whether BPF programs are compiled"),
    }
}

fn bpffs(facts: &Facts, folder: &Path) -> Finding {
    let mounted = mount_of(&facts.mounts, folder).is_some_and(|mount| mount.kind == "bpf");
    let shown = folder.display();
    if mounted {
        return Finding::ok("bpffs", format!("{shown} is on a BPF file system"));
    }
    if !facts.knows_bpffs {
        return Finding::fail("bpffs", "the kernel knows no BPF file system", "boot a kernel with CONFIG_BPF_SYSCALL");
    }
    let standard = Path::new("/sys/fs/bpf");
    if folder.starts_with(standard) && !facts.mounts.iter().any(|mount| mount.path == standard) {
        return Finding::warn(
            "bpffs",
            format!("no BPF file system is mounted at {}", standard.display()),
            "mount -t bpf bpf /sys/fs/bpf (the agent does it where it has CAP_SYS_ADMIN; in a container it must be there)",
        );
    }
    Finding::fail(
        "bpffs",
        format!("{shown} is not on a BPF file system"),
        "mount -t bpf bpf /sys/fs/bpf, or name another folder with --bpffs",
    )
}

/// The mount that a folder is on: the last one whose path is the longest of those over it.
fn mount_of<'a>(mounts: &'a [Mount], folder: &Path) -> Option<&'a Mount> {
    let over = mounts.iter().filter(|mount| folder.starts_with(&mount.path));
    over.max_by_key(|mount| mount.path.components().count())
}

fn cgroup(facts: &Facts, named: Option<&Path>) -> Finding {
    let mounted = facts.mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.path.clone());
    let Some(path) = named.map(Path::to_owned).or_else(|| mounted.clone()) else {
        return Finding::fail(
            "cgroup2",
            "no cgroup2 file system is mounted",
            "boot with systemd.unified_cgroup_hierarchy=1, or: mount -t cgroup2 none /sys/fs/cgroup/unified",
        );
    };
    let on_cgroup2 = mount_of(&facts.mounts, &path).is_some_and(|mount| mount.kind == "cgroup2");
    let shown = path.display();
    if !on_cgroup2 {
        let mounted = mounted.unwrap_or_else(|| PathBuf::from("nowhere"));
        return Finding::fail(
            "cgroup2",
            format!("{shown} is on no cgroup2 file system"),
            format!("leave --cgroup-root out; cgroup2 is mounted at {}", mounted.display()),
        );
    }
    if facts.cgroup_is_part {
        return Finding::warn(
            "cgroup2",
            format!("{shown} does not hold all processes of this machine"),
            "the sockets of the others are not translated: in a container, mount the host's /sys/fs/cgroup and name it with --cgroup-root",
        );
    }
    Finding::ok("cgroup2", format!("{shown} holds all processes"))
}

fn rights(facts: &Facts, purpose: &Purpose) -> Finding {
    let of_agent: &[_] = &[BPF, NET_ADMIN, PERFMON];
    let needed = [(DaemonName::Agent, of_agent), (DaemonName::Ingress, &[BIND]), (DaemonName::Speaker, &[NET_RAW])];
    let needed = needed.iter().filter(|(daemon, _)| purpose.runs(*daemon)).flat_map(|(_, rights)| rights.iter());
    let lacking: Vec<&str> =
        needed.filter(|(_, bit)| facts.capabilities & (1 << bit) == 0).map(|(name, _)| *name).collect();
    if lacking.is_empty() {
        return Finding::ok("rights", "this process has what the daemons need");
    }
    Finding::warn(
        "rights",
        format!("this process lacks {}", lacking.join(", ")),
        "start the daemons with them; as root, doctor sees more",
    )
}

/// Major and minor of a kernel release such as `6.18.44-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
