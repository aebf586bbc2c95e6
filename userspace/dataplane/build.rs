//! Compiles `ebpf/programs` by the one recipe and puts the object where `src/object.rs` embeds it.

use std::{env, error::Error, fs, path::PathBuf};

use roadstead_toolchain::Object;

fn main() {
    if let Err(error) = embed() {
        // Cargo shows this line as the build's error; it names what is missing and the command that installs it.
        println!("cargo::error={}", chain(&*error));
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let programs = manifest_dir.join("../../ebpf/programs");
    for line in roadstead_toolchain::rerun_lines(&programs)? {
        println!("{line}");
    }
    let cache = roadstead_toolchain::cache_dir_from_out_dir(&out_dir);
    let next = env::var_os("CARGO_FEATURE_NEXT_ABI").is_some();
    let object = if next { Object::NextPrograms } else { Object::Programs };
    let object = roadstead_toolchain::compile(object, &programs, &cache)?;
    // A copy: the cache may drop the object while this build's result is still in use.
    fs::copy(object, out_dir.join("programs.o"))?;
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
