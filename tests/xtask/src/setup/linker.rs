//! `bpf-linker`: whether the one that is there fits, and its build from crates.io.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use roadstead_toolchain::{Host, LINKER_LLVM, LINKER_VERSION, Linker, find_linker};

use super::step;
use crate::{process, workspace};

/// What `bpf-linker` is built from.
pub(super) const BUILD_PACKAGES: [&str; 4] = ["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"];

/// The feature of `bpf-linker` and the variable of `llvm-sys` that go with [`LINKER_LLVM`].
const FEATURE: &str = "llvm-22";
const PREFIX_VARIABLE: &str = "LLVM_SYS_221_PREFIX";
/// Where Debian puts that LLVM.
const DEBIAN_PREFIX: &str = "/usr/lib/llvm-22";

/// The `bpf-linker` on this machine, if it starts and is neither older nor built with an older LLVM than ours.
pub(super) fn fitting(host: &Host) -> Option<Linker> {
    let linker = find_linker(host).ok()?;
    let version = process::answer(&linker.path, &["--version"])?;
    (is_new_enough(&version) && linker.llvm >= LINKER_LLVM).then_some(linker)
}

/// Builds `bpf-linker` into Cargo's home, with Cargo's progress on the terminal.
pub(super) fn install(host: &Host) -> Result<Linker> {
    let home = host.cargo_home.as_ref().context("neither CARGO_HOME nor HOME is set")?;
    let llvm = llvm_prefix();
    // Its build asks the first llvm-config of the PATH, whatever the prefix says: an older LLVM would be linked.
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([llvm.join("bin")].into_iter().chain(env::split_paths(&path)))?;
    step(&format!("building bpf-linker {LINKER_VERSION} (one to five minutes)"), || {
        process::run(
            workspace::cargo()
                .args(["install", "bpf-linker", "--locked", "--force", "--version", LINKER_VERSION])
                .args(["--no-default-features", "--features", FEATURE])
                .arg("--root")
                .arg(home)
                .env("PATH", &path)
                .env("LLVM_PREFIX", &llvm)
                .env(PREFIX_VARIABLE, &llvm),
        )
    })?;
    fitting(host).with_context(|| {
        format!("bpf-linker was built but does not fit: it does not start, or its LLVM is older than {LINKER_LLVM}")
    })
}

/// The folder of the LLVM that `bpf-linker` is built with.
pub(super) fn llvm_prefix() -> PathBuf {
    env::var_os(PREFIX_VARIABLE).map_or_else(|| PathBuf::from(DEBIAN_PREFIX), PathBuf::from)
}

/// Whether "bpf-linker 0.13.0" is at least [`LINKER_VERSION`].
fn is_new_enough(answer: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u32>> { text.trim().split('.').map(|part| part.parse().ok()).collect() };
    let found = answer.trim().strip_prefix("bpf-linker ").and_then(numbers);
    found.is_some_and(|found| Some(found) >= numbers(LINKER_VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_linker_is_replaced() {
        let cases = [
            ("bpf-linker 0.13.0\n", true),
            ("bpf-linker 0.14.1\n", true),
            ("bpf-linker 1.0.0\n", true),
            ("bpf-linker 0.9.15\n", false),
            ("bpf-linker\n", false),
            ("", false),
        ];
        for (answer, expected) in cases {
            assert_eq!(is_new_enough(answer), expected, "{answer}");
        }
    }

    #[test]
    fn the_recipe_names_one_llvm() {
        let major = LINKER_LLVM.to_string();
        assert!(FEATURE.ends_with(&major) && DEBIAN_PREFIX.ends_with(&major) && PREFIX_VARIABLE.contains(&major));
        assert!(BUILD_PACKAGES.iter().filter(|package| package.contains(&major)).count() == 2);
    }
}
