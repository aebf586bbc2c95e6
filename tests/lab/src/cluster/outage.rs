//! Outages of the control plane: the API server stopped, etcd's data copied, lost and brought back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::assets::Part;
use super::flags::Lists;
use super::{ControlPlane, READY, flags};
use crate::process::Process;
use crate::wait::wait_until;

/// Beside the API server's own port.
const HIDDEN_PORT: u16 = 7443;

/// A copy of etcd's data, to restore.
#[derive(Debug)]
pub struct Backup(PathBuf);

impl ControlPlane {
    /// Kills the API server, and with it controllers and scheduler: they give up where they cannot renew their leases,
    /// and what starts them again is the API server's return.
    ///
    /// # Errors
    ///
    /// Where one cannot be killed.
    pub fn stop_api(&self) -> Result<()> {
        [Part::Scheduler, Part::Controllers, Part::ApiServer].into_iter().try_for_each(|part| self.stop(part))
    }

    /// Starts what [`stop_api`](Self::stop_api) ended, and waits until it serves.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub fn start_api(&self) -> Result<()> {
        self.start_part(Part::ApiServer)?;
        // The others wait for it by themselves, but not for long.
        self.wait_for_api()?;
        for part in self.shape.controllers().iter().copied().filter(|part| self.assets.has(*part)) {
            self.start_part(part)?;
        }
        self.wait_for_controllers()
    }

    /// API servers that are started from now on know no streaming lists (KEP-3157), as older ones do.
    pub fn forget_streaming_lists(&self) {
        *self.lists() = Lists::Paged;
    }

    /// Copies etcd's data. Etcd is stopped for the moment of the copy; whoever asks it meanwhile waits.
    ///
    /// # Errors
    ///
    /// Where the copy cannot be made, or etcd does not come back.
    pub fn back_up(&self) -> Result<Backup> {
        self.stop(Part::Etcd)?;
        let copy = self.folder.join("etcd-backup");
        let copied = copy_folder(&self.data(), &copy);
        self.start_part(Part::Etcd)?;
        copied.map(|()| Backup(copy))
    }

    /// Loses all of etcd's data and restores the copy, as after a disaster: nothing of the control plane runs meanwhile.
    /// Revisions begin where those of the copy ended, so what clients know of is in the future.
    ///
    /// # Errors
    ///
    /// Where it does not come back.
    pub fn lose_and_restore(&self, backup: &Backup) -> Result<()> {
        self.stop_api()?;
        self.stop(Part::Etcd)?;
        fs::remove_dir_all(self.data()).context("could not remove etcd's data")?;
        copy_folder(&backup.0, &self.data())?;
        self.start_part(Part::Etcd)?;
        self.start_api()
    }

    /// Starts an API server beside, at another port, which nobody knows of: what is changed through it happens behind the
    /// backs of all who follow the other one.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub fn hidden(&self) -> Result<Hidden<'_>> {
        let mut command = self.assets.command(Part::ApiServer);
        command.args(flags::api_server(self.place.v4(), HIDDEN_PORT, &self.files, Lists::Streamed));
        let process = self.place.spawn("hidden-apiserver", command)?;
        let hidden = Hidden { control: self, process };
        wait_until(READY, "the hidden API server is ready", || {
            hidden.kubectl(&["get", "--raw", "/readyz"], "").is_ok_and(|said| said == "ok")
        })?;
        Ok(hidden)
    }

    fn stop(&self, part: Part) -> Result<()> {
        let process = self.parts().remove(&part);
        match process.filter(Process::is_running) {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }
}

/// A second API server over the same etcd; dropping it ends it.
#[derive(Debug)]
pub struct Hidden<'a> {
    control: &'a ControlPlane,
    process: Process,
}

impl Hidden<'_> {
    /// Runs kubectl against it, with this on standard input.
    ///
    /// # Errors
    ///
    /// Where it fails, with what it says.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let server = format!("https://{}:{HIDDEN_PORT}", self.control.place.v4());
        let arguments: Vec<&str> = ["--server", &server].into_iter().chain(arguments.iter().copied()).collect();
        self.control.kubectl_with(&arguments, input)
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// Where it had ended before.
    pub fn stop(self) -> Result<()> {
        self.process.kill()
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let _none = fs::remove_dir_all(to);
    fs::create_dir_all(to).with_context(|| format!("could not make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("could not read {}", from.display()))? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), &copy).with_context(|| format!("could not write {}", copy.display()))?;
        }
    }
    Ok(())
}
