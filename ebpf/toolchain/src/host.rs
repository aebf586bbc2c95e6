//! Where this machine may keep compilers and linkers: the environment, read once, so that tests can describe another.

use std::env;
use std::path::{Path, PathBuf};

/// The environment variable that names the `rustc` to use, before any search.
pub const RUSTC_VARIABLE: &str = "ROADSTEAD_BPF_RUSTC";

/// The folders in which tools are looked for.
#[derive(Debug, Clone)]
pub struct Host {
    /// The `rustc` that the user insists on.
    pub named_rustc: Option<PathBuf>,
    /// The folders of PATH, in order.
    pub path: Vec<PathBuf>,
    /// Cargo's home: `cargo install` puts programs into its `bin`.
    pub cargo_home: Option<PathBuf>,
    /// Rustup's home: its `toolchains` folder holds one system root a toolchain.
    pub rustup_home: Option<PathBuf>,
    /// The system root of the distribution's own compiler, `/usr`.
    pub system_root: PathBuf,
}

impl Host {
    /// This machine, as the environment describes it.
    pub fn from_environment() -> Self {
        let home = env::home_dir();
        let folder = |variable: &str, default: &str| {
            env::var_os(variable).map(PathBuf::from).or_else(|| home.as_ref().map(|home| home.join(default)))
        };
        Self {
            named_rustc: env::var_os(RUSTC_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from),
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            cargo_home: folder("CARGO_HOME", ".cargo"),
            rustup_home: folder("RUSTUP_HOME", ".rustup"),
            system_root: PathBuf::from("/usr"),
        }
    }

    /// The first executable of that name on the PATH.
    pub fn on_path(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(name)).find(|file| is_executable(file))
    }
}

/// Whether the file exists and someone may execute it.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
