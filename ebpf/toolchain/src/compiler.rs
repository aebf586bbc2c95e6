//! Which Rust compiler builds the eBPF crate: any with the library sources, because the BPF target has no built `core`.
//!
//! In order: the one that the environment names, rustup's toolchains (nightly ones first, then newer ones), the
//! distribution's (Debian's rustc-web, rust-web-src and cargo-web). A stable compiler does it with `RUSTC_BOOTSTRAP`.
//! Its LLVM must not be newer than the linker's, and its Rust not older than the workspace asks for.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::ToolchainError;
use crate::host::{Host, is_executable};
use crate::linker::Linker;
use crate::recipe;

/// The oldest Rust that compiles the eBPF crate, as major and minor: the workspace's `rust-version`.
pub const MINIMUM_RUST: (u32, u32) = (1, 95);

/// A compiler that can build for the BPF target, with the Cargo that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// What a message calls it.
    pub name: String,
    /// The compiler proper, not a proxy that chooses one.
    pub rustc: PathBuf,
    /// The Cargo of the same toolchain: `-Zbuild-std` must fit the compiler.
    pub cargo: PathBuf,
    /// The Rust release, as major and minor.
    pub release: (u32, u32),
    /// The major version of its LLVM.
    pub llvm: u32,
}

/// A place where a compiler may be, not looked into yet.
struct Candidate {
    name: String,
    system_root: PathBuf,
}

/// Finds the first compiler that fits the linker.
pub fn find_compiler(host: &Host, linker: &Linker) -> Result<Compiler, ToolchainError> {
    if let Some(rustc) = &host.named_rustc {
        return named(rustc).and_then(|candidate| inspect(&candidate, linker)).map_err(|reason| {
            let reason = format!("{}: {reason}", rustc.display());
            ToolchainError::NamedCompiler { reason }
        });
    }
    let mut rejected = Vec::new();
    for candidate in candidates(host) {
        match inspect(&candidate, linker) {
            Ok(compiler) => return Ok(compiler),
            Err(reason) => rejected.push(format!("{}: {reason}", candidate.name)),
        }
    }
    Err(ToolchainError::CompilerMissing { rejected })
}

/// The candidate for a `rustc` that may be a proxy of rustup: the compiler itself knows its system root.
fn named(rustc: &Path) -> Result<Candidate, String> {
    let root = answer(rustc, &["--print", "sysroot"])?;
    Ok(Candidate { name: rustc.display().to_string(), system_root: PathBuf::from(root.trim()) })
}

/// All places that have a compiler at all, best first.
fn candidates(host: &Host) -> Vec<Candidate> {
    let toolchains = host.rustup_home.iter().filter_map(|home| fs::read_dir(home.join("toolchains")).ok());
    let mut rustup: Vec<Candidate> = toolchains
        .flat_map(Iterator::flatten)
        .map(|entry| Candidate {
            name: format!("rustup toolchain {}", entry.file_name().display()),
            system_root: entry.path(),
        })
        .collect();
    // Names compare as text, which is enough for "newer first": it only decides which of several good ones is taken.
    rustup.sort_by_key(|candidate| Reverse((candidate.name.contains("nightly"), candidate.name.clone())));
    let system = Candidate { name: "the system's rustc".to_owned(), system_root: host.system_root.clone() };
    rustup.into_iter().chain([system]).filter(|candidate| is_executable(&candidate.rustc())).collect()
}

impl Candidate {
    fn rustc(&self) -> PathBuf {
        self.system_root.join("bin/rustc")
    }
}

/// Looks into a candidate; the error is the reason why it does not do. The cheap questions come first.
fn inspect(candidate: &Candidate, linker: &Linker) -> Result<Compiler, String> {
    if !candidate.system_root.join("lib/rustlib/src/rust/library/core").is_dir() {
        return Err("has no library sources".to_owned());
    }
    let cargo = candidate.system_root.join("bin/cargo");
    if !is_executable(&cargo) {
        return Err("has no cargo beside it".to_owned());
    }
    let version = answer(&candidate.rustc(), &["-vV"])?;
    let release = version_line(&version, "release: ").ok_or("does not tell its release")?;
    let llvm = version_line(&version, "LLVM version: ").ok_or("does not tell its LLVM version")?.0;
    if release < MINIMUM_RUST {
        let (major, minor) = MINIMUM_RUST;
        return Err(format!("is Rust {}.{}, older than {major}.{minor}", release.0, release.1));
    }
    if llvm > linker.llvm {
        return Err(format!("has LLVM {llvm}, newer than bpf-linker's {}", linker.llvm));
    }
    Ok(Compiler { name: candidate.name.clone(), rustc: candidate.rustc(), cargo, release, llvm })
}

/// Major and minor behind a label of `rustc -vV`.
fn version_line(text: &str, label: &str) -> Option<(u32, u32)> {
    let mut numbers = text.lines().find_map(|line| line.strip_prefix(label))?.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Standard output of a compiler's question about itself.
fn answer(rustc: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(rustc);
    recipe::clean_environment(&mut command);
    let output = command.args(arguments.iter().map(OsStr::new)).output().map_err(|cause| cause.to_string())?;
    if !output.status.success() {
        return Err(format!("\"rustc {}\" fails with {}", arguments.join(" "), output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| "answers with text that is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let text = "rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        let cases = [("release: ", Some((1, 97))), ("LLVM version: ", Some((22, 1))), ("host: ", None)];
        for (label, expected) in cases {
            assert_eq!(version_line(text, label), expected, "{label}");
        }
        assert_eq!(version_line("release: unknown", "release: "), None);
    }
}
