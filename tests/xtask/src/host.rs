//! What the kernel and the rights of this host give: the lab needs BPF, namespaces and cgroups.

use std::fs;

/// The oldest kernel that has tcx, as major and minor. (Linux 6.6, commit e420bed02507.)
const KERNEL_WITH_TCX: (u32, u32) = (6, 6);

/// The rights of root that containers tend to lack, with their bit in `CapEff` (capability.h).
const NEEDED_RIGHTS: [(&str, u32); 4] =
    [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_SYS_ADMIN", 21), ("CAP_BPF", 39)];

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    status_field(&read("/proc/self/status"), "Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// Whether an ordinary user can become root here.
pub(crate) fn has_sudo() -> bool {
    crate::process::answer("sudo", &["--version"]).is_some()
}

/// What this host lacks for demo and tests, each with what helps; empty where all is there.
pub(crate) fn lacks() -> Vec<String> {
    let found = Host {
        release: read("/proc/sys/kernel/osrelease"),
        file_systems: read("/proc/filesystems"),
        mounts: read("/proc/mounts"),
        status: read("/proc/self/status"),
        btf: fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false),
        sudo: has_sudo(),
        root: is_root(),
    };
    found.lacks()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What was read from the host.
struct Host {
    release: String,
    file_systems: String,
    mounts: String,
    status: String,
    btf: bool,
    sudo: bool,
    root: bool,
}

impl Host {
    fn lacks(&self) -> Vec<String> {
        let (major, minor) = KERNEL_WITH_TCX;
        let kernel = version(&self.release);
        let mut lacks = Vec::new();
        if kernel.is_none_or(|kernel| kernel < KERNEL_WITH_TCX) {
            lacks.push(format!("Linux {major}.{minor} or newer (for tcx); this is {}", self.release.trim()));
        }
        if !self.btf {
            lacks.push("/sys/kernel/btf/vmlinux: a kernel built with CONFIG_DEBUG_INFO_BTF".to_owned());
        }
        if !self.mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")) {
            lacks.push(
                "cgroup v2: \"mount -t cgroup2 none /sys/fs/cgroup/unified\", or boot without cgroup v1".to_owned(),
            );
        }
        if !self.file_systems.lines().any(|line| line.split_whitespace().last() == Some("bpf")) {
            lacks.push("the bpf file system: a kernel built with CONFIG_BPF_SYSCALL".to_owned());
        }
        lacks.extend(self.missing_rights());
        lacks
    }

    /// An ordinary user gets all rights by sudo; root in a container may still lack some.
    fn missing_rights(&self) -> Option<String> {
        if !self.root {
            return (!self.sudo).then(|| "root: neither root nor sudo is there".to_owned());
        }
        let rights =
            status_field(&self.status, "CapEff:").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())?;
        let missing = NEEDED_RIGHTS.iter().filter(|(_, bit)| rights & (1 << bit) == 0).map(|(name, _)| *name);
        let missing: Vec<&str> = missing.collect();
        (!missing.is_empty()).then(|| format!("{}: start the container with these rights", missing.join(", ")))
    }
}

fn status_field<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(field))
}

/// Major and minor of a kernel release such as `6.18.44-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Host {
        Host {
            release: "6.18.44-fc\n".to_owned(),
            file_systems: "nodev\tproc\nnodev\tbpf\n\text4\n".to_owned(),
            mounts: "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n".to_owned(),
            status: "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n".to_owned(),
            btf: true,
            sudo: false,
            root: true,
        }
    }

    fn check(change: impl FnOnce(&mut Host), expected: Option<&str>) {
        let mut host = good();
        change(&mut host);
        let lacks = host.lacks();
        match expected {
            None => assert_eq!(lacks, Vec::<String>::new()),
            Some(part) => assert!(lacks.len() == 1 && lacks[0].contains(part), "{part}: {lacks:?}"),
        }
    }

    #[test]
    fn each_missing_thing_is_named() {
        check(|_| (), None);
        check(|host| host.release = "6.6.0".to_owned(), None);
        check(|host| host.release = "6.1.0-43-amd64".to_owned(), Some("this is 6.1.0-43-amd64"));
        check(|host| host.release = String::new(), Some("Linux 6.6"));
        check(|host| host.btf = false, Some("BTF"));
        check(|host| host.mounts = "cgroup /sys/fs/cgroup cgroup rw 0 0".to_owned(), Some("cgroup v2"));
        check(|host| host.file_systems = "nodev\tbpffs_other\n".to_owned(), Some("bpf file system"));
        check(
            |host| host.status = "CapEff:\t00000000a80425fb\n".to_owned(),
            Some("CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF:"),
        );
        check(|host| host.root = false, Some("neither root nor sudo"));
        check(|host| (host.root, host.sudo) = (false, true), None);
    }
}
