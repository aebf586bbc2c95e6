//! The one recipe that compiles `ebpf/programs` for the BPF target.
//!
//! It stands before the packet's way begins: the build scripts call [`embed`], `cargo xtask setup` asks the same code what
//! a machine lacks. The object is cached by a hash of its sources, so a build of the host crates needs the BPF compiler
//! once, and not at all while the cached object fits.
//!
//! It installs nothing and holds no stub: without a compiler or `bpf-linker` it fails with a sentence that names what is
//! missing and the command that brings it.

#![forbid(unsafe_code)]

mod cache;
mod compiler;
mod digest;
mod error;
mod host;
mod linker;
mod recipe;
mod sources;

pub use compiler::{Compiler, MINIMUM_RUST, find_compiler};
pub use digest::of_parts as sha256;
pub use error::ToolchainError;
pub use host::{Host, RUSTC_VARIABLE};
pub use linker::{LINKER_LLVM, LINKER_VERSION, Linker, find_linker};
pub use sources::HASHED_CRATES;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use recipe::Target;

/// The objects that the eBPF crate makes, one from each of its binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// What the agent carries.
    Programs,
    /// The same with the next ABI version, which tests upgrade to.
    NextPrograms,
    /// What the benchmark measures the programs with.
    Harness,
}

impl Object {
    /// The binary's name in the crate's manifest.
    pub(crate) fn binary(self) -> &'static str {
        match self {
            Self::Programs | Self::NextPrograms => "roadstead",
            Self::Harness => "harness",
        }
    }

    /// The crate's features that it is built with.
    pub(crate) fn features(self) -> &'static str {
        match self {
            Self::NextPrograms => "next-abi",
            Self::Programs | Self::Harness => "",
        }
    }
}

/// The whole of a build script that embeds an object: compiles it and puts it into Cargo's `OUT_DIR` as `file`. What Cargo
/// is to watch goes to standard output, where Cargo reads it, and so does a failure, as the build's error.
pub fn embed(object: Object, file: &str) {
    if let Err(error) = try_embed(object, file) {
        println!("cargo::error={}", chain(&*error));
    }
}

fn try_embed(object: Object, file: &str) -> Result<(), Box<dyn Error>> {
    let programs = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../ebpf/programs");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    for line in rerun_lines(&programs)? {
        println!("{line}");
    }
    let compiled = compile(object, &programs, &cache_dir_from_out_dir(&out_dir))?;
    // A copy: the cache may drop the object while this build's result is still in use.
    fs::copy(compiled, out_dir.join(file))?;
    Ok(())
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Compiles an object of the eBPF crate in `programs_dir`, or takes it from `cache_dir`, and returns its path.
///
/// Safe to call from several processes at once: one compiles, the others wait and find its object. The path stays valid
/// until later versions of the sources push the object out of the cache, so a build script copies it.
fn compile(object: Object, programs_dir: &Path, cache_dir: &Path) -> Result<PathBuf, ToolchainError> {
    compile_on(&Host::from_environment(), &Target::from_environment(object), programs_dir, cache_dir)
}

/// The cache folder that belongs to the target folder of a build script's `OUT_DIR`: one for all profiles.
fn cache_dir_from_out_dir(out_dir: &Path) -> PathBuf {
    // Cargo marks the target folder with CACHEDIR.TAG. Without it, OUT_DIR is <target>/<profile>/build/<package>/out.
    let marked = out_dir.ancestors().skip(1).find(|folder| folder.join("CACHEDIR.TAG").is_file());
    marked.or_else(|| out_dir.ancestors().nth(4)).unwrap_or(out_dir).join("ebpf")
}

/// The lines that a build script prints so that Cargo calls it again when anything the object depends on changes.
fn rerun_lines(programs_dir: &Path) -> Result<Vec<String>, ToolchainError> {
    let watched = sources::watched_paths(programs_dir)?;
    let files = watched.iter().map(|path| format!("cargo::rerun-if-changed={}", path.display()));
    Ok(files.chain([format!("cargo::rerun-if-env-changed={RUSTC_VARIABLE}")]).collect())
}

fn compile_on(host: &Host, target: &Target, programs_dir: &Path, cache_dir: &Path) -> Result<PathBuf, ToolchainError> {
    let programs_dir = programs_dir.canonicalize().map_err(|cause| ToolchainError::file(programs_dir, cause))?;
    let cache = cache::Cache::open(cache_dir)?;
    let _lock = cache.lock()?;
    let before = sources::fingerprint(&programs_dir)?;
    if let Some(object) = cache.hit(&target.key(&before), host) {
        return Ok(object);
    }
    let linker = find_linker(host)?;
    let compiler = find_compiler(host, &linker)?;
    let built = recipe::build(&compiler, &linker, target, &programs_dir, &cache.target_dir())?;
    // Cargo may have written the lock file of the crate just now, so the key is that of the sources after the build. Where
    // more than the lock changed while the compiler ran, the object belongs to neither state and gets no stamp.
    let after = sources::fingerprint(&programs_dir)?;
    cache.store(&target.key(&after), &built, host, before.same_code(&after).then_some((&compiler, &linker)))
}

#[cfg(test)]
mod tests;
