//! A network namespace: threads of this process and other processes enter it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sched::{CloneFlags, setns};

use crate::wait::wait_until;

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";
/// How long a link may take to come up.
const LINK_UP: Duration = Duration::from_secs(10);

/// A named network namespace, held open.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    /// Opens one that `ip netns add` made.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let path = path(name);
        let file = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
        Ok(Self { name: name.to_owned(), file: Arc::new(file) })
    }

    /// Its name to `ip -n`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A file of its own for a process that will enter.
    pub(crate) fn file(&self) -> Result<File> {
        self.file.try_clone().context("the namespace's file could not be duplicated")
    }

    /// Runs the work on a thread inside. A thread that entered is not used for anything else: it ends with the work.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&*self.file, CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::Error>(work())
            });
            let done = inside.join().map_err(|_| anyhow!("the thread in {} panicked", self.name))?;
            done.with_context(|| format!("could not enter {}", self.name))
        })
    }

    /// Waits until devices carry frames. A device that is set up drops all of them until its other end is up and the
    /// kernel has come to notice.
    pub(crate) fn wait_running(&self, devices: &[&str]) -> Result<()> {
        let (running, what) = (InterfaceFlags::IFF_RUNNING, format!("{} of {} run", devices.join(", "), self.name));
        let is_running = |device: &str| {
            let mut addresses = getifaddrs().into_iter().flatten();
            addresses.any(|address| address.interface_name == device && address.flags.contains(running))
        };
        let waited = self.run(|| wait_until(LINK_UP, &what, || devices.iter().all(|device| is_running(device))))?;
        waited.map(drop)
    }

    /// Writes kernel parameters; those that this kernel does not have are left out.
    pub(crate) fn set_parameters(&self, parameters: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (name, value) in parameters {
                // /proc/sys/net is that of the thread that opens it.
                let file = Path::new("/proc/sys/net").join(name);
                if file.exists() {
                    fs::write(&file, value).with_context(|| format!("could not set {}", file.display()))?;
                }
            }
            Ok(())
        })?
    }
}

/// The file of a named namespace.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// The names of all namespaces of this host.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
