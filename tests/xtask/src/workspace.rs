//! Where things are: the checkout, the target folder, the programs of the lab profile.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// The profile of demo and tests, and the folder Cargo gives it.
pub(crate) const PROFILE: &str = "lab";

/// The top of the checkout.
pub(crate) fn root() -> PathBuf {
    let here =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).map_or_else(|| here.clone(), Path::to_owned)
}

/// Cargo's target folder: the one that holds this program, whatever configuration put it there.
pub(crate) fn target_dir() -> PathBuf {
    let running = env::current_exe().ok().and_then(|program| program.ancestors().nth(2).map(Path::to_owned));
    running.filter(|folder| folder.join("CACHEDIR.TAG").is_file()).unwrap_or_else(|| root().join("target"))
}

/// The folder of the daemons and the lab that demo and tests start.
pub(crate) fn program_dir() -> PathBuf {
    target_dir().join(PROFILE)
}

/// The profile that is shipped, and measured.
pub(crate) const SHIPPED_PROFILE: &str = "release";

/// The folder of what is measured.
pub(crate) fn shipped_dir() -> PathBuf {
    target_dir().join(SHIPPED_PROFILE)
}

/// The Cargo that runs us, in the checkout, without what it told this program about this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_PRIMARY_PACKAGE"
        });
        if told {
            command.env_remove(name);
        }
    }
    command
}

/// Builds the daemons and the lab. All of the workspace, because another selection has other features of the same
/// dependencies and would build those twice.
pub(crate) fn build_programs() -> anyhow::Result<()> {
    crate::process::run(cargo().args(["build", "--workspace", "--bins", "--profile", PROFILE]))
}

/// Builds what [`build_programs`] builds, and beside it an agent of the next ABI version, which tests upgrade to.
pub(crate) fn build_programs_and_next() -> anyhow::Result<()> {
    let (agent, next) = (program_dir().join("roadstead"), program_dir().join("roadstead-next"));
    let build = ["build", "--workspace", "--bins", "--profile", PROFILE, "--features", "roadstead-agent/next-abi"];
    crate::process::run(cargo().args(build))?;
    // A new file: the old one may be running.
    let _none = std::fs::remove_file(&next);
    std::fs::copy(&agent, &next).with_context(|| format!("could not copy {}", agent.display()))?;
    build_programs()
}

/// PATH with the folders of administration programs (`ip`, `sysctl`), which a user's PATH may lack.
pub(crate) fn path_with_sbin() -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(folders).unwrap_or(path)
}
