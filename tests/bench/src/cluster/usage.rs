//! What a daemon has used, as the kernel accounts for it: memory of its process, processor time of its control group, bytes
//! that came to its node.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use roadstead_lab::Place;

/// Memory of a process in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// Everything that is resident.
    pub(crate) resident: f64,
    /// The same, with pages that several processes share divided among them.
    pub(crate) proportional: f64,
    /// What it has allocated.
    pub(crate) anonymous: f64,
}

impl Memory {
    /// What a process has now.
    pub(crate) fn of(process: i32) -> Result<Self> {
        let file = Path::new("/proc").join(process.to_string()).join("smaps_rollup");
        let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
        Self::read(&text).with_context(|| format!("{} has other fields", file.display()))
    }

    fn read(text: &str) -> Option<Self> {
        let field = |name: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
            Some(kilobytes / 1024.0)
        };
        Some(Self { resident: field("Rss:")?, proportional: field("Pss:")?, anonymous: field("Anonymous:")? })
    }
}

/// Processor time and bytes up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    /// Seconds of processors that everything of the place's control group has used, ended processes included.
    pub(crate) seconds: f64,
    /// Bytes that have come to the place's `eth0`.
    pub(crate) received: f64,
}

impl Spent {
    /// Up to now.
    pub(crate) fn at(place: &Place) -> Result<Self> {
        let file = place.cgroup().join("cpu.stat");
        let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
        let seconds = used(&text).with_context(|| format!("{} has other fields", file.display()))?;
        let devices = place.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?.context("no /proc/net/dev")?;
        Ok(Self { seconds, received: received(&devices, "eth0").context("the place has no eth0")? })
    }

    /// From then to now.
    pub(crate) fn since(self, then: Self) -> Self {
        Self { seconds: self.seconds - then.seconds, received: self.received - then.received }
    }
}

/// `usage_usec` of a control group (cgroup v2), in seconds.
fn used(text: &str) -> Option<f64> {
    let micros: f64 = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
    Some(micros / 1e6)
}

/// The first column of a device (proc_pid_net(5)).
fn received(text: &str, device: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_kernel_tells() {
        let text = "55 7f [rollup]\nRss:  2048 kB\nPss:  1536 kB\nPss_Anon: 5 kB\nAnonymous:  1024 kB\n";
        assert_eq!(Memory::read(text), Some(Memory { resident: 2.0, proportional: 1.5, anonymous: 1.0 }));
        assert_eq!(Memory::read("Rss: 1 kB\n"), None);
        let own = Memory::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.resident >= own.proportional && own.anonymous > 0.0, "{own:?}");
    }

    #[test]
    fn time_and_bytes_are_found_in_their_files() {
        assert_eq!(used("usage_usec 1500000\nuser_usec 1\n"), Some(1.5));
        assert_eq!(used("user_usec 1\n"), None);
        let devices = "Inter-| Receive\n face |bytes\n  eth01: 7 0\n    lo: 1 2\n  eth0: 123456 9 0\n";
        assert_eq!(received(devices, "eth0"), Some(123_456.0));
        assert_eq!(received(devices, "eth1"), None);
    }
}
