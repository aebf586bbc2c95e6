//! The command that compiles the eBPF crate, with the flags that were seen to work, in a clean environment.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Object;
use crate::compiler::Compiler;
use crate::error::ToolchainError;
use crate::linker::Linker;
use crate::sources::Fingerprint;

/// Raised with any change below that alters the object; objects of other recipes are not taken from the cache.
const RECIPE: &str = "1";

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const FLAG_END: &str = "\x1f";

/// The object, and the kernel that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The Rust target, by the host's byte order.
    triple: &'static str,
    /// The architecture in Rust's word, for the layout of registers in `aya-ebpf`.
    arch: String,
    /// Which of the crate's binaries.
    object: Object,
}

impl Target {
    /// An object for the target of the outer build, in a build script; for this machine otherwise.
    pub(crate) fn from_environment(object: Object) -> Self {
        let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
        let native = if cfg!(target_endian = "big") { "big" } else { "little" };
        let order = env::var("CARGO_CFG_TARGET_ENDIAN").unwrap_or_else(|_| native.to_owned());
        let triple = if order == "big" { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
        Self { triple, arch, object }
    }

    /// The cache key of an object of these sources for this target by this recipe.
    pub(crate) fn key(&self, sources: &Fingerprint) -> String {
        sources.key([RECIPE, self.triple, &self.arch, self.object.binary(), self.object.features()])
    }

    fn flags(&self, linker: &Linker, programs_dir: &Path) -> String {
        // The object is the same wherever the checkout is: its BTF names files from the folder `ebpf` on.
        let place = programs_dir.parent().unwrap_or(programs_dir).display();
        [
            format!("--remap-path-prefix={place}=ebpf"),
            format!("--cfg=bpf_target_arch=\"{}\"", self.arch),
            "-Cdebuginfo=2".to_owned(),
            format!("-Clinker={}", linker.path.display()),
            // BTF is made from the debug information; maps and global functions need it.
            "-Clink-arg=--btf".to_owned(),
        ]
        .join(FLAG_END)
    }
}

/// Runs Cargo on the eBPF crate and returns the object it made.
pub(crate) fn build(
    compiler: &Compiler,
    linker: &Linker,
    target: &Target,
    programs_dir: &Path,
    target_dir: &Path,
) -> Result<PathBuf, ToolchainError> {
    let mut command = Command::new(&compiler.cargo);
    clean_environment(&mut command);
    command
        .current_dir(programs_dir)
        .args(["build", "--release", "-Zbuild-std=core", "--target", target.triple])
        .args(["--bin", target.object.binary(), "--features", target.object.features()])
        // The messages for people go to standard error, those for this program to standard output.
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(target_dir)
        .env("CARGO_BUILD_BUILD_DIR", target_dir)
        .env("RUSTC", &compiler.rustc)
        // A wrapper from the user's configuration may not know this compiler.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", target.flags(linker, programs_dir))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().map_err(|cause| ToolchainError::start(&compiler.cargo, cause))?;
    let programs = || programs_dir.to_owned();
    if !output.status.success() {
        let compiler = compiler.name.clone();
        return Err(ToolchainError::Compile { programs: programs(), compiler, status: output.status });
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executables: Vec<PathBuf> = messages.lines().filter_map(executable).collect();
    match (executables.pop(), executables.len()) {
        (Some(object), 0) => Ok(object),
        (last, others) => {
            Err(ToolchainError::NoObject { programs: programs(), found: others + usize::from(last.is_some()) })
        }
    }
}

/// The path in the "executable" field of one of Cargo's messages. A path that JSON would escape is not understood.
fn executable(message: &str) -> Option<PathBuf> {
    let (_, rest) = message.split_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    (!path.contains('\\')).then(|| PathBuf::from(path))
}

/// Removes what an outer Cargo or rustup has put into the environment: it speaks of another compiler and another target.
pub(crate) fn clean_environment(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if belongs_to_outer_build(&name) {
            command.env_remove(name);
        }
    }
}

fn belongs_to_outer_build(name: &OsStr) -> bool {
    // What the user sets for every Cargo alike: homes, network, registries, appearance.
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_HOME",
        "RUST_BACKTRACE",
    ];
    const PREFIXES: [&str; 5] = ["CARGO", "RUST", "DEP_", "__CARGO", "TARGET_"];
    const NAMES: [&str; 9] =
        ["MAKEFLAGS", "MFLAGS", "OUT_DIR", "TARGET", "HOST", "PROFILE", "NUM_JOBS", "OPT_LEVEL", "DEBUG"];
    let Some(name) = name.to_str() else { return false };
    let kept = KEPT.iter().any(|kept| name.starts_with(kept));
    !kept && (NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_build_does_not_leak() {
        for name in ["RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_BUILD_TARGET"] {
            assert!(belongs_to_outer_build(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_MAKEFLAGS", "MAKEFLAGS", "RUSTC_WRAPPER", "CARGO_PROFILE_RELEASE_LTO", "OUT_DIR", "CARGO"] {
            assert!(belongs_to_outer_build(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_HTTP_PROXY", "https_proxy", "LANG"] {
            assert!(!belongs_to_outer_build(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let cases = [
            (r#"{"reason":"compiler-artifact","executable":"/a/b c","fresh":true}"#, Some("/a/b c")),
            (r#"{"reason":"compiler-artifact","executable":null}"#, None),
            (r#"{"reason":"build-finished","success":true}"#, None),
            (r#"{"executable":"/a\"b"}"#, None),
        ];
        for (message, expected) in cases {
            assert_eq!(executable(message), expected.map(PathBuf::from), "{message}");
        }
    }
}
