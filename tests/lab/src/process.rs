//! A process of the lab: it runs inside a place, writes to a log of its own and ends at the latest with its owner.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_for;

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    child: Mutex<Child>,
    log: PathBuf,
    /// What earlier processes of the same name wrote to the log.
    log_start: usize,
}

impl Process {
    /// Starts a command whose output goes to the end of the log. The command already knows its place.
    pub(crate) fn start(name: &str, log: &Path, mut command: Command) -> Result<Self> {
        let failed = || format!("could not start {name} ({})", command.get_program().display());
        let output = OpenOptions::new().create(true).append(true).open(log).with_context(failed)?;
        let log_start = output.metadata().map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or_default());
        let failed = failed();
        command.stdout(output.try_clone().context(failed.clone())?).stderr(output);
        // A process group of its own: Ctrl-C at the terminal reaches the lab, which ends its processes in order.
        command.stdin(Stdio::null()).process_group(0);
        let child = command.spawn().context(failed)?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("no process number")?);
        Ok(Self { name: name.to_owned(), pid, child: Mutex::new(child), log: log.to_owned(), log_start })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.ended(), Ok(None))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Held, so that nobody reaps it in between and the number belongs to another process.
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let running = child.try_wait().context("could not be waited for")?.is_none();
        let sent = if running { kill(self.pid, signal) } else { Err(nix::Error::ESRCH) };
        sent.with_context(|| format!("{} did not get {signal}", self.name))
    }

    /// SIGKILL, which it cannot answer.
    ///
    /// # Errors
    ///
    /// Where it had ended before.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(5)).map(drop)
    }

    /// SIGTERM, and waits for it to end.
    ///
    /// # Errors
    ///
    /// Where it had ended before, or does not end within the deadline.
    pub fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    ///
    /// Where it does not within the deadline.
    pub fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        wait_for(deadline, &format!("{} ends", self.name), || self.ended().transpose())?
    }

    /// Everything that it has written.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// The last lines that it has written.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }

    /// The file that it writes to.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    fn ended(&self) -> Result<Option<ExitStatus>> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().with_context(|| format!("{} could not be waited for", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            // The only error left is that it ended in between.
            let _ended = self.kill();
        }
    }
}
