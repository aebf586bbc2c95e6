//! Capabilities of the calling thread and of files, by number as in `linux/capability.h`.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// The names in order of their numbers, as Kubernetes writes them: without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// `linux/capability.h`: version 3 of the system calls, and the file attribute's version 2 with the effective bit.
const VERSION_3: u32 = 0x2008_0522;
const FILE_VERSION_2_EFFECTIVE: u32 = 0x0200_0001;

/// One right, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capability(u32);

impl Capability {
    /// Reads `NET_RAW`, with or without `CAP_`, in capitals or not.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let upper = name.to_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| *known == plain).and_then(|at| u32::try_from(at).ok());
        number.map(Self).with_context(|| format!("{name} is no capability"))
    }

    /// What runtimes grant to a privileged container: all that they have themselves.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let bits = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).context("no line CapPrm")?;
        let bits = u64::from_str_radix(bits.trim(), 16)?;
        Ok((0..64).filter(|number| bits >> number & 1 == 1).map(Self).collect())
    }

    /// What runtimes grant where a pod drops nothing.
    pub(crate) fn usual() -> Vec<Self> {
        // The list of containerd's and Docker's default specification.
        let usual = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];
        usual.into_iter().map(Self).collect()
    }
}

/// Lets a change of the user keep what is permitted.
pub(super) fn keep_over_change_of_user() -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1).context("capabilities are not kept")
}

/// Drops all others from the bounding set: no program that is started will get them.
pub(super) fn bound(kept: &[Capability]) -> Result<()> {
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?.trim().parse()?;
    for number in (0..=last).filter(|number| !kept.contains(&Capability(*number))) {
        prctl(libc::PR_CAPBSET_DROP, number.into()).with_context(|| format!("capability {number} stays"))?;
    }
    Ok(())
}

/// Permits these and no others from now on.
pub(super) fn permit(capabilities: &[Capability]) -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let [low, high] = words(capabilities);
    let data = [low, high].map(|word| Data { effective: word, permitted: word, inheritable: 0 });
    // SAFETY: both structures have the layout of version 3 and outlive the call, which only reads them.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if done != 0 {
        bail!(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives a program's file capabilities, as `setcap CAPABILITIES=ep FILE` does.
pub(super) fn grant(file: &Path, capabilities: &[Capability]) -> Result<()> {
    let [low, high] = words(capabilities);
    let value: Vec<u8> =
        [FILE_VERSION_2_EFFECTIVE, low, 0, high, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = super::c_string(file)?;
    let name = c"security.capability";
    // SAFETY: name and path end with a zero byte, the value has the length that is told; all outlive the call.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done != 0 {
        let error = io::Error::last_os_error();
        return Err(error).with_context(|| format!("{} gets no capabilities", file.display()));
    }
    Ok(())
}

/// The bits of 64 capabilities in two words.
fn words(capabilities: &[Capability]) -> [u32; 2] {
    let bits = capabilities.iter().fold(0_u64, |bits, one| bits | 1 << one.0);
    #[expect(clippy::cast_possible_truncation, reason = "each half of it is taken")]
    let halves = [bits as u32, (bits >> 32) as u32];
    halves
}

fn prctl(option: libc::c_int, argument: u64) -> io::Result<()> {
    // SAFETY: these options take a number and no memory of ours.
    match unsafe { libc::prctl(option, argument, 0_u64, 0_u64, 0_u64) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_numbers() {
        let cases = [
            ("CHOWN", 0),
            ("NET_BIND_SERVICE", 10),
            ("CAP_NET_ADMIN", 12),
            ("net_raw", 13),
            ("PERFMON", 38),
            ("BPF", 39),
        ];
        for (name, number) in cases {
            assert_eq!(Capability::named(name).unwrap(), Capability(number), "{name}");
        }
        assert!(Capability::named("NET").is_err());
        assert_eq!(words(&[Capability(10), Capability(39)]), [1 << 10, 1 << 7]);
    }
}
