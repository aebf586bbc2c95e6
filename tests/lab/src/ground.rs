//! What a lab stands on: its name, its folder, its control group, and their removal at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};

use crate::capture::{Capture, Evidence, Limit};
use crate::identity::LabId;
use crate::namespace::{self, Namespace};
use crate::{cgroup, interrupt, ip, leftovers, programs};

/// What a capture that runs beside every test keeps: the end of what happened, heads of packets only.
const BESIDE: Limit = Limit { frames: 20_000, bytes: 256 };

/// Why this host cannot hold a lab, where it cannot: for tests that then say "skipped: …".
#[must_use]
pub fn lack() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("the lab needs root, for network namespaces and BPF programs".to_owned());
    }
    cgroup::mount_point().err().map(|error| error.to_string())
}

/// Owns everything of one lab that outlives processes; dropping it takes the lab off the host.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) id: LabId,
    pub(crate) folder: PathBuf,
    pub(crate) cgroup: PathBuf,
    pub(crate) pins: PathBuf,
    pub(crate) evidence: Arc<Evidence>,
    failed: AtomicBool,
    beside: Option<Capture>,
}

impl Ground {
    /// Makes room for a lab: sweeps what dead processes left, then makes folder, control group and place for pins.
    pub(crate) fn new(name: &str) -> Result<Self> {
        if let Some(lack) = lack() {
            bail!(lack);
        }
        leftovers::sweep();
        mount_bpf()?;
        let id = LabId::unused();
        let suffix = id.to_string();
        let suffix = suffix.trim_start_matches(|c: char| !c.is_ascii_digit());
        let ground = Self {
            id,
            folder: programs::lab_folder()?.join(format!("{name}-{suffix}")),
            cgroup: leftovers::cgroup_of(id)?,
            pins: leftovers::pins_of(id),
            evidence: Arc::default(),
            failed: AtomicBool::new(false),
            beside: None,
        };
        interrupt::register(id, ground.folder.clone());
        ground.make()?;
        Ok(ground)
    }

    fn make(&self) -> Result<()> {
        // An earlier process of the same number may have left its folder.
        let _absent = fs::remove_dir_all(&self.folder);
        for folder in [&self.folder, &self.cgroup, &self.pins] {
            fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
        }
        Ok(())
    }

    /// Starts the capture that a failing test leaves.
    pub(crate) fn capture_beside(&mut self, segment: &Namespace, device: &str) -> Result<()> {
        let capture = Capture::start(segment, device, Some(BESIDE))?;
        self.evidence.add("segment".to_owned(), &capture);
        self.beside = Some(capture);
        Ok(())
    }

    /// Keeps logs, dumps and captures although no test panics.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire) || std::thread::panicking()
    }

    /// Writes what tells why a test failed.
    fn leave_evidence(&self) -> Result<()> {
        self.evidence.save(&self.folder)?;
        for name in namespace::names().iter().filter(|name| name.parse() == Ok(self.id)) {
            let place = name.split_once('.').map_or(name.as_str(), |(_, place)| place);
            let shows = [["-d", "link"], ["addr", "show"], ["-4", "route"], ["-6", "route"], ["neigh", "show"]];
            let text: String = shows.iter().map(|arguments| ip::show(name, arguments)).collect();
            fs::write(self.folder.join(format!("{place}-network.txt")), text)?;
        }
        dump_maps(&self.pins, &self.folder)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if interrupt::requested() {
            // The thread that heard the signal removes everything and ends the process.
            interrupt::wait();
        }
        if self.has_failed() {
            if let Err(error) = self.leave_evidence() {
                eprintln!("lab: not all evidence could be written: {error:#}");
            }
            eprintln!("lab: logs, captures and dumps are in {}", self.folder.display());
        } else if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("lab: {} stays: {error}", self.folder.display());
        }
        self.beside = None;
        if let Err(error) = leftovers::remove(self.id) {
            eprintln!("lab: {} could not be removed: {error:#}", self.id);
        }
        interrupt::forget(self.id);
    }
}

/// The BPF file system, which systemd mounts where it runs.
fn mount_bpf() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("could not read /proc/self/mounts")?;
    if cgroup::mount_of_type(&mounts, "bpf").is_some() {
        return Ok(());
    }
    let mounted = mount(Some("bpf"), leftovers::BPF_MOUNT, Some("bpf"), MsFlags::empty(), None::<&str>);
    mounted.with_context(|| format!("no BPF file system at {}", leftovers::BPF_MOUNT))
}

/// What the agent tells about its maps and programs, for every node that has pins.
fn dump_maps(pins: &Path, folder: &Path) -> Result<()> {
    let Ok(agent) = programs::find("roadstead") else { return Ok(()) };
    for node in fs::read_dir(pins)?.flatten() {
        let output =
            std::process::Command::new(&agent).args(["status", "--maps", "--bpffs"]).arg(node.path()).output()?;
        if output.status.success() {
            fs::write(folder.join(format!("{}-maps.txt", node.file_name().display())), output.stdout)?;
        }
    }
    Ok(())
}
