//! Why no object could be made, in sentences that a build log can end with. They name the command that helps.
//!
//! Written by hand instead of with thiserror: this crate is a build-dependency of the data plane and of xtask, which
//! should start within seconds on a clean machine.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::host::RUSTC_VARIABLE;

/// What keeps the BPF programs from being compiled.
#[derive(Debug)]
pub enum ToolchainError {
    /// `bpf-linker` is neither on the PATH nor in Cargo's home.
    LinkerMissing,
    /// No compiler fits; each rejected one with its reason.
    CompilerMissing {
        /// One sentence part for every compiler that was looked at and why it does not do.
        rejected: Vec<String>,
    },
    /// The compiler named by the environment variable does not do.
    NamedCompiler {
        /// What is wrong with it.
        reason: String,
    },
    /// A tool was found but could not be started.
    Start {
        /// The tool.
        tool: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// Cargo ran on the eBPF crate and failed; its messages went to standard error.
    Compile {
        /// The eBPF crate.
        programs: PathBuf,
        /// Which compiler ran.
        compiler: String,
        /// How Cargo ended.
        status: ExitStatus,
    },
    /// Cargo succeeded but named no single executable.
    NoObject {
        /// The eBPF crate.
        programs: PathBuf,
        /// How many executables it named.
        found: usize,
    },
    /// A file or folder of the sources or of the cache could not be read or written.
    File {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
}

impl ToolchainError {
    pub(crate) fn file(path: &Path, cause: io::Error) -> Self {
        Self::File { path: path.to_owned(), cause }
    }

    pub(crate) fn start(tool: &Path, cause: io::Error) -> Self {
        Self::Start { tool: tool.to_owned(), cause }
    }
}

impl fmt::Display for ToolchainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkerMissing => write!(f, "bpf-linker is missing: run \"cargo xtask setup\""),
            Self::CompilerMissing { rejected } => {
                write!(f, "a Rust compiler with the library sources, which the BPF target needs, is missing")?;
                if !rejected.is_empty() {
                    write!(f, " ({})", rejected.join("; "))?;
                }
                write!(f, ": run \"cargo xtask setup\" or \"rustup component add rust-src\"")
            }
            Self::NamedCompiler { reason } => {
                write!(f, "the compiler that {RUSTC_VARIABLE} names does not do ({reason}): name another or unset it")
            }
            Self::Start { tool, .. } => write!(f, "{} could not be started: run \"cargo xtask setup\"", tool.display()),
            Self::Compile { programs, compiler, status } => {
                write!(f, "{} did not compile with {compiler} ({status}): see the messages above", programs.display())
            }
            Self::NoObject { programs, found } => {
                write!(f, "{} must have exactly one binary, Cargo names {found}", programs.display())
            }
            Self::File { path, .. } => write!(f, "{} could not be read or written", path.display()),
        }
    }
}

impl std::error::Error for ToolchainError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start { cause, .. } | Self::File { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
