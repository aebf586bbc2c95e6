//! What processes have used: processor time and memory of a whole tree, as the kernel accounts for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Ticks of `/proc/*/stat` in a second; Linux has shown 100 to programs on every machine for decades.
const TICKS: f64 = 100.0;
/// How long a look at the machine takes.
const LOOK: Duration = Duration::from_millis(100);
/// A machine on which less than this part of one processor is busy is quiet.
const QUIET: f64 = 0.15;

/// Nanoseconds that all threads of a process and of those below it have run.
pub(crate) fn nanoseconds(root: u32) -> Result<u64> {
    let mut total = 0;
    for process in tree(root)? {
        let threads = fs::read_dir(folder(process).join("task")).into_iter().flatten().flatten();
        for thread in threads {
            // A thread may end in between; what it ran is lost to the sum, which is why nobody reloads while measured.
            let line = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            total += line.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Ok(total)
}

/// Memory of a process and of those below it in MiB. Pages that several share are divided among them.
pub(crate) fn mebibytes(root: u32) -> Result<f64> {
    let kilobytes = |process: u32, file: &str, name: &str| -> Option<f64> {
        let text = fs::read_to_string(folder(process).join(file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").trim().parse().ok()
    };
    let of = |process| {
        kilobytes(process, "smaps_rollup", "Pss:")
            .or_else(|| kilobytes(process, "status", "VmRSS:"))
            .unwrap_or_default()
    };
    Ok(tree(root)?.into_iter().map(of).sum::<f64>() / 1024.0)
}

/// A stretch of time, for what the rest of the machine did in it.
pub(crate) struct Stretch {
    began: Instant,
    all: f64,
    own: f64,
}

impl Stretch {
    pub(crate) fn begin() -> Result<Self> {
        Ok(Self { began: Instant::now(), all: busy_seconds()?, own: own_seconds()? })
    }

    /// Processors that others kept busy meanwhile, on average.
    pub(crate) fn foreign(&self) -> Result<f64> {
        let busy = busy_seconds()? - self.all - (own_seconds()? - self.own);
        Ok((busy / self.began.elapsed().as_secs_f64()).max(0.0))
    }
}

/// Waits until the machine is quiet, or as long as this.
pub(crate) fn wait_for_quiet(longest: Duration) -> Result<()> {
    let began = Instant::now();
    loop {
        let stretch = Stretch::begin()?;
        thread::sleep(LOOK);
        if stretch.foreign()? < QUIET || began.elapsed() > longest {
            return Ok(());
        }
    }
}

/// Of all processors since the start.
fn busy_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("no /proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user, nice, system; then idle and iowait; then irq, softirq, steal. What guests run is in user already.
    let busy = ticks.iter().enumerate().filter(|(place, _)| ![3, 4, 8, 9].contains(place));
    Ok(busy.map(|(_, ticks)| ticks).sum::<f64>() / TICKS)
}

/// Of this process, those below it and those that it has waited for.
fn own_seconds() -> Result<f64> {
    // utime, stime, and both of children that were waited for: fields 14 to 17 (proc_pid_stat(5)).
    let of = |process| -> f64 {
        let fields = stat(process).unwrap_or_default();
        fields.iter().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum()
    };
    Ok(tree(std::process::id())?.into_iter().map(of).sum::<f64>() / TICKS)
}

/// A process and all below it.
fn tree(root: u32) -> Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("no /proc")?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let parent = stat(process).and_then(|fields| fields.get(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children.remove(process).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

/// The fields of `/proc/PID/stat` from the third on: the second, the name, may hold anything.
fn stat(process: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(folder(process).join("stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn folder(process: u32) -> PathBuf {
    Path::new("/proc").join(process.to_string())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_tree_holds_children_and_their_work() {
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; read end";
        let mut child = Command::new("sh").args(["-c", work]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let own = std::process::id();
        let deadline = Instant::now() + Duration::from_secs(20);
        while nanoseconds(child.id()).unwrap() < 10_000_000 {
            assert!(Instant::now() < deadline, "the work is accounted for");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(tree(own).unwrap().contains(&child.id()));
        assert!(nanoseconds(own).unwrap() > 10_000_000 && mebibytes(child.id()).unwrap() > 0.05);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
