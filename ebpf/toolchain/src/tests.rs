//! The whole way from sources to a cached object, with a Cargo, a compiler and a linker made of shell scripts.
//!
//! What the real ones do is seen by every build of the data plane; here is what they are asked, and how often.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

/// A machine in a folder: `rustup/toolchains/*` are rustup's, `usr` is the system's, `cargo/bin` holds the linker.
struct Machine {
    top: TempDir,
    host: Host,
}

impl Machine {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        let host = Host {
            named_rustc: None,
            path: vec![at("bin")],
            cargo_home: Some(at("cargo")),
            rustup_home: Some(at("rustup")),
            system_root: at("usr"),
        };
        let machine = Self { top, host };
        machine.write("programs/Cargo.toml", "[package]");
        machine.write("programs/src/main.rs", "fn main() {}");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn script(&self, name: &str, body: &str) {
        self.write(name, &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn linker(&self) {
        self.script("cargo/bin/bpf-linker", "exit 0");
    }

    /// A toolchain whose Cargo "compiles" by writing its own name, and notes each run.
    fn toolchain(&self, root: &str, release: &str, llvm: &str) {
        self.script(
            &format!("{root}/bin/rustc"),
            &format!(
                "case \"$*\" in '-vV') printf 'release: {release}\\nLLVM version: {llvm}\\n' ;; *) echo {} ;; esac",
                self.path(root).display()
            ),
        );
        let body = format!(
            "echo \"$RUSTC\" >> {runs}\nprintf '%s' \"$*|$CARGO_ENCODED_RUSTFLAGS\" > {object}\n\
             echo '{{\"executable\":\"{object}\"}}'",
            runs = self.path("runs").display(),
            object = self.path("built").display(),
        );
        self.script(&format!("{root}/bin/cargo"), &body);
        fs::create_dir_all(self.path(&format!("{root}/lib/rustlib/src/rust/library/core"))).unwrap();
    }

    fn compile(&self) -> Result<PathBuf, ToolchainError> {
        self.compile_object(Object::Programs)
    }

    fn compile_object(&self, object: Object) -> Result<PathBuf, ToolchainError> {
        compile_on(&self.host, &Target::from_environment(object), &self.path("programs"), &self.path("cache"))
    }

    /// The compilers that ran so far.
    fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("runs")).unwrap_or_default();
        text.lines().map(|line| line.trim_start_matches(&*self.top.path().to_string_lossy()).to_owned()).collect()
    }
}

#[test]
fn the_first_compiler_that_fits_is_taken() {
    let machine = Machine::new();
    machine.linker();
    machine.toolchain("usr", "1.96.0", "22.1.8");
    machine.toolchain("rustup/toolchains/stable", "1.95.0", "22.1.2");
    machine.toolchain("rustup/toolchains/nightly", "1.99.0-nightly", "23.1.0");
    machine.compile().unwrap();
    machine.toolchain("rustup/toolchains/nightly", "1.97.0-nightly", "22.1.4");
    machine.write("programs/src/main.rs", "fn main() { }");
    machine.compile().unwrap();
    fs::remove_dir_all(machine.path("rustup")).unwrap();
    machine.write("programs/src/main.rs", "fn main() {  }");
    let object = machine.compile().unwrap();
    let expected = ["/rustup/toolchains/stable/bin/rustc", "/rustup/toolchains/nightly/bin/rustc", "/usr/bin/rustc"];
    assert_eq!(machine.runs(), expected);
    let asked = fs::read_to_string(object).unwrap();
    for part in
        ["-Zbuild-std=core", "unknown-none", "--target-dir", "-Clink-arg=--btf", "cargo/bin/bpf-linker", "=ebpf"]
    {
        assert!(asked.contains(part), "{part} in {asked}");
    }
}

#[test]
fn the_named_compiler_goes_before_all_others() {
    let mut machine = Machine::new();
    machine.linker();
    machine.toolchain("usr", "1.96.0", "22.1.8");
    machine.toolchain("mine", "1.96.0", "21.1.8");
    machine.compile().unwrap();
    machine.host.named_rustc = Some(machine.path("mine/bin/rustc"));
    machine.compile().unwrap();
    machine.compile().unwrap();
    assert_eq!(machine.runs(), ["/usr/bin/rustc", "/mine/bin/rustc"]);
    machine.toolchain("mine", "1.80.0", "21.1.8");
    let error = machine.compile().unwrap_err().to_string();
    assert!(error.contains("ROADSTEAD_BPF_RUSTC") && error.contains("older than 1.95"), "{error}");
}

#[test]
fn an_object_is_made_once() {
    let machine = Machine::new();
    machine.linker();
    machine.toolchain("usr", "1.96.0", "22.1.8");
    let first = machine.compile().unwrap();
    assert_eq!(machine.compile().unwrap(), first);
    assert_eq!(machine.runs().len(), 1, "the second call takes the object from the cache");
    fs::remove_dir_all(machine.path("usr")).unwrap();
    fs::remove_dir_all(machine.path("cargo")).unwrap();
    assert_eq!(machine.compile().unwrap(), first, "the object outlives its tools");
    machine.write("programs/src/main.rs", "changed");
    let error = machine.compile().unwrap_err().to_string();
    assert_eq!(error, "bpf-linker is missing: run \"cargo xtask setup\"");
}

#[test]
fn each_object_of_the_crate_is_made_and_kept_for_itself() {
    let machine = Machine::new();
    machine.linker();
    machine.toolchain("usr", "1.96.0", "22.1.8");
    let (programs, harness) = (machine.compile().unwrap(), machine.compile_object(Object::Harness).unwrap());
    assert_ne!(programs, harness);
    for (object, name) in [(&programs, "--bin roadstead"), (&harness, "--bin harness")] {
        assert!(fs::read_to_string(object).unwrap().contains(name), "{name}");
    }
    assert_eq!((machine.compile().unwrap(), machine.runs().len()), (programs, 2));
}

#[test]
fn an_upgraded_tool_or_a_broken_object_is_made_anew() {
    let machine = Machine::new();
    machine.linker();
    machine.toolchain("usr", "1.96.0", "22.1.8");
    let object = machine.compile().unwrap();
    machine.script("cargo/bin/bpf-linker", "exit 0 # a newer one");
    machine.compile().unwrap();
    assert_eq!(machine.runs().len(), 2, "the linker changed");
    fs::write(&object, "half").unwrap();
    machine.compile().unwrap();
    assert_eq!(machine.runs().len(), 3, "the object was damaged");
    fs::remove_file(object.with_extension("stamp")).unwrap();
    machine.compile().unwrap();
    assert_eq!(machine.runs().len(), 4, "the stamp was lost");
}

#[test]
fn what_is_missing_is_named() {
    let machine = Machine::new();
    machine.linker();
    let error = machine.compile().unwrap_err().to_string();
    assert!(error.ends_with("run \"cargo xtask setup\" or \"rustup component add rust-src\""), "{error}");
    machine.toolchain("rustup/toolchains/nightly", "1.99.0-nightly", "23.1.0");
    machine.toolchain("usr", "1.96.0", "22.1.8");
    fs::remove_dir_all(machine.path("usr/lib")).unwrap();
    let error = machine.compile().unwrap_err().to_string();
    for part in ["nightly: has LLVM 23, newer than bpf-linker's 22", "the system's rustc: has no library sources"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(machine.runs().len(), 0);
}

#[test]
fn a_failing_compiler_is_an_error_and_leaves_no_object() {
    let machine = Machine::new();
    machine.linker();
    machine.toolchain("usr", "1.96.0", "22.1.8");
    machine.script("usr/bin/cargo", "exit 101");
    let error = machine.compile().unwrap_err();
    assert!(matches!(error, ToolchainError::Compile { .. }), "{error}");
    machine.script("usr/bin/cargo", "echo '{\"executable\":null}'");
    let error = machine.compile().unwrap_err();
    assert!(matches!(error, ToolchainError::NoObject { found: 0, .. }), "{error}");
    let objects = fs::read_dir(machine.path("cache")).unwrap().flatten();
    assert_eq!(objects.filter(|entry| entry.path().extension().is_some_and(|e| e == "o")).count(), 0);
}

#[test]
fn sources_that_change_under_the_compiler_are_not_taken_for_compiled() {
    let machine = Machine::new();
    machine.linker();
    machine.toolchain("usr", "1.96.0", "22.1.8");
    let cargo = fs::read_to_string(machine.path("usr/bin/cargo")).unwrap();
    machine.script("usr/bin/cargo", &format!("echo more >> src/main.rs\n{cargo}"));
    machine.compile().unwrap();
    machine.compile().unwrap();
    assert_eq!(machine.runs().len(), 2);
}

#[test]
fn callers_at_once_compile_once() {
    let machine = Machine::new();
    machine.linker();
    machine.toolchain("usr", "1.96.0", "22.1.8");
    let objects: Vec<PathBuf> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(|| machine.compile().unwrap())).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(machine.runs().len(), 1);
    assert!(objects.iter().all(|object| Some(object) == objects.first()), "{objects:?}");
}

#[test]
fn old_objects_go() {
    let machine = Machine::new();
    machine.linker();
    machine.toolchain("usr", "1.96.0", "22.1.8");
    for version in 0..20 {
        machine.write("programs/src/main.rs", &format!("// {version}"));
        assert!(machine.compile().unwrap().is_file());
    }
    let files = |extension: &str| {
        let entries = fs::read_dir(machine.path("cache")).unwrap().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|found| found == extension)).count()
    };
    assert_eq!((files("o"), files("stamp")), (16, 16));
}

#[test]
fn the_cache_lies_in_the_target_folder() {
    let top = tempfile::tempdir().unwrap();
    let out_dir = top.path().join("target/x86_64-unknown-linux-gnu/lab/build/roadstead-dataplane-0a/out");
    fs::create_dir_all(&out_dir).unwrap();
    let unmarked = cache_dir_from_out_dir(&out_dir);
    assert_eq!(unmarked, top.path().join("target/x86_64-unknown-linux-gnu/ebpf"));
    fs::write(top.path().join("target/CACHEDIR.TAG"), "").unwrap();
    assert_eq!(cache_dir_from_out_dir(&out_dir), top.path().join("target/ebpf"));
    assert_eq!(cache_dir_from_out_dir(Path::new("out")), Path::new("out/ebpf"));
}

#[test]
fn a_build_script_watches_what_is_hashed() {
    let machine = Machine::new();
    machine.write("abi/src/lib.rs", "");
    let lines = rerun_lines(&machine.path("programs")).unwrap().join("\n");
    for part in ["programs/Cargo.toml", "programs/src/main.rs", "abi/src/lib.rs", "abi/src\n", "ROADSTEAD_BPF_RUSTC"] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
    assert!(!lines.contains("Cargo.lock"), "a watched path that does not exist would run the script every time");
}
