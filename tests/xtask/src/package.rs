//! `package`: the programs as they are handed out, as a Debian package or for a container image.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{process, setup, workspace};

/// The three daemons, by package and program.
const DAEMONS: [(&str, &str); 3] = [
    ("roadstead-agent", "roadstead"),
    ("roadstead-proxy", "roadstead-ingress"),
    ("roadstead-speaker", "roadstead-speaker"),
];

/// `cargo xtask package [--static]`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => debian(),
        ["--static"] => linked_statically(),
        _ => bail!("\"{}\": the only flag is --static", arguments.join(" ")),
    }
}

/// A Debian package of all three with their units, in `target/debian`. It depends on the C library of this machine.
fn debian() -> Result<()> {
    setup::install()?;
    let mut build = workspace::cargo();
    build.args(["build", "--release", "--locked"]).args(packages());
    process::run(&mut build)?;
    process::run(&mut packing()?)
}

/// The same package of the programs that the tests run, quickly made; tells its file.
pub(crate) fn of_tests() -> Result<PathBuf> {
    let package = workspace::program_dir().join("roadstead.deb");
    let mut pack = packing()?;
    pack.args(["--profile", workspace::PROFILE, "--fast", "--strip", "--quiet", "--output"]).arg(&package);
    process::run(&mut pack)?;
    Ok(package)
}

/// The command that packs what has been built.
fn packing() -> Result<Command> {
    let packer = setup::install_packer()?;
    let mut pack = workspace::cargo();
    // Called as Cargo calls it, wherever it is installed; it builds nothing itself, as it knows one crate alone.
    let path = env::join_paths(
        packer
            .parent()
            .map(PathBuf::from)
            .into_iter()
            .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )?;
    pack.env("PATH", path).args(["deb", "--package", "roadstead-agent", "--no-build", "--locked"]);
    pack.env("CARGO_TARGET_DIR", workspace::target_dir());
    Ok(pack)
}

/// The three programs without any library of the machine, in `target/package`: what `deploy/Dockerfile` copies.
fn linked_statically() -> Result<()> {
    setup::install()?;
    let compiler = process::answer(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()), &["-vV"]);
    let host = compiler.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("host: ")));
    let host = host.context("rustc does not tell its host")?;
    let mut build = workspace::cargo();
    // The target is named so that the flag holds for the programs, and not for the macros that build them.
    build.args(["build", "--release", "--locked", "--target", host]).args(packages());
    // Without the tables of lines, which are three quarters of each; names stay for stack traces.
    build.env("RUSTFLAGS", "-C target-feature=+crt-static").env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    process::run(&mut build)?;
    let (built, out) = (workspace::target_dir().join(host).join("release"), workspace::target_dir().join("package"));
    fs::create_dir_all(&out).with_context(|| format!("could not make {}", out.display()))?;
    for (_, program) in DAEMONS {
        let from = built.join(program);
        fs::copy(&from, out.join(program)).with_context(|| format!("could not copy {}", from.display()))?;
    }
    println!("package: the programs are in {}", out.display());
    Ok(())
}

fn packages() -> impl Iterator<Item = &'static str> {
    DAEMONS.iter().flat_map(|(package, _)| ["--package", package])
}
