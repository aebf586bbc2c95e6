//! `bpf-linker`: where it is and which LLVM it reads. Rust hands it LLVM bitcode, and LLVM reads no bitcode newer than itself.

use std::path::PathBuf;

use crate::error::ToolchainError;
use crate::host::{Host, is_executable};

/// The release of `bpf-linker` that `cargo xtask setup` installs.
pub const LINKER_VERSION: &str = "0.13.0";
/// The major version of LLVM that `cargo xtask setup` builds it with.
pub const LINKER_LLVM: u32 = 22;

/// A `bpf-linker` on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// The major version of the LLVM it is linked with.
    pub llvm: u32,
}

/// Finds `bpf-linker` in Cargo's home or on the PATH.
///
/// Cargo's home comes first: setup installs there, and a PATH may hold an older one of a distribution.
pub fn find_linker(host: &Host) -> Result<Linker, ToolchainError> {
    let installed = host.cargo_home.as_ref().map(|home| home.join("bin/bpf-linker")).filter(|file| is_executable(file));
    let path = installed.or_else(|| host.on_path("bpf-linker")).ok_or(ToolchainError::LinkerMissing)?;
    let program = std::fs::read(&path).map_err(|cause| ToolchainError::file(&path, cause))?;
    // `--version` does not tell the LLVM. A statically linked one names no library; then the recipe's own is assumed.
    let llvm = shared_llvm(&program).unwrap_or(LINKER_LLVM);
    Ok(Linker { path, llvm })
}

/// The major version in the name of the shared library that an ELF file needs: `libLLVM.so.22.1` or `libLLVM-19.so`.
fn shared_llvm(program: &[u8]) -> Option<u32> {
    const LIBRARY: &[u8] = b"\0libLLVM";
    let mut rest = program;
    while let Some(at) = rest.windows(LIBRARY.len()).position(|window| window == LIBRARY) {
        rest = rest.get(at + LIBRARY.len()..)?;
        let version = rest.strip_prefix(b".so.").or_else(|| rest.strip_prefix(b"-"));
        let digits = version.unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
        let major =
            digits.fold(0u32, |number, digit| number.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
        if major > 0 {
            return Some(major);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_is_read_from_the_needed_library() {
        let cases: [(&[u8], Option<u32>); 6] = [
            (b"\x7fELF..\0libLLVM.so.22.1\0libc.so.6\0", Some(22)),
            (b"\0libLLVM-19.so.1\0", Some(19)),
            (b"\0libLLVM.so\0more\0libLLVM.so.21.1\0", Some(21)),
            (b"text of libLLVM.so.20\0", None),
            (b"\0libLLVM", None),
            (b"", None),
        ];
        for (program, expected) in cases {
            assert_eq!(shared_llvm(program), expected, "{}", String::from_utf8_lossy(program));
        }
    }
}
