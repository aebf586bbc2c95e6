//! Where the programs are that the lab starts: the daemons and itself.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Names the folder of the programs; xtask sets it.
const FOLDER_VARIABLE: &str = "ROADSTEAD_BIN_DIR";

/// The lab's own program: echo server, probes.
pub(crate) fn lab() -> Result<PathBuf> {
    find("roadstead-lab")
}

/// A program of ours: from the folder that the environment names, else beside the running one. A test program stands
/// in `deps/`, the programs one up.
///
/// # Errors
///
/// Where it has not been built, with the command that builds it.
pub fn find(name: &str) -> Result<PathBuf> {
    let folder = folder()?;
    let program = folder.join(name);
    if !program.is_file() {
        bail!("{} is not built: \"cargo build --workspace --bins\" builds it", program.display());
    }
    Ok(program)
}

/// Where the folders of labs are made: below Cargo's target folder, whatever configuration put it there.
pub(crate) fn lab_folder() -> Result<PathBuf> {
    let running = env::current_exe().context("this program does not know where it is")?;
    let target = running.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    // Outside a target folder, such as where the program was copied away from, the current folder does.
    let folder = target.map_or_else(|| PathBuf::from("roadstead-lab"), |target| target.join("lab/runs"));
    std::path::absolute(folder).context("no current folder")
}

fn folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let running = env::current_exe().context("this program does not know where it is")?;
    let folder = running.parent().unwrap_or(Path::new("."));
    let of_tests = folder.ends_with("deps") || folder.ends_with("examples");
    Ok(folder.parent().filter(|_| of_tests).unwrap_or(folder).to_owned())
}
