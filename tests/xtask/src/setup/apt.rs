//! Debian packages: which are missing, and their installation.

use std::collections::HashSet;

use anyhow::{Context as _, Result, anyhow, bail};

use super::step;
use crate::process;

/// What helps where a release of Debian has no such compiler.
const IN_PLACE_OF_COMPILER: &str = "in place of rustc-web, rust-web-src and cargo-web, \"rustup component add rust-src\" does \
    as well";

/// Installs those of the packages that are missing; tells whether any was.
pub(super) fn install(packages: &[&str]) -> Result<bool> {
    let Some(known) = process::output("dpkg-query", &query(packages)) else {
        return without_apt(packages);
    };
    let missing = missing(packages, &String::from_utf8_lossy(&known.stdout));
    if missing.is_empty() {
        return Ok(false);
    }
    step("reading Debian's package lists", || quietly(&["update"]))?;
    step(&format!("installing Debian packages: {}", missing.join(" ")), || {
        let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
        arguments.extend(&missing);
        quietly(&arguments).map_err(|error| anyhow!("{error:#}\n({IN_PLACE_OF_COMPILER})"))
    })?;
    Ok(true)
}

fn query<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    ["--show", "--showformat=${binary:Package} ${db:Status-Status}\n"]
        .into_iter()
        .chain(packages.iter().copied())
        .collect()
}

/// The packages that `dpkg-query` does not list as installed. It lists some as `name:architecture`.
fn missing<'a>(packages: &[&'a str], listed: &str) -> Vec<&'a str> {
    let installed: HashSet<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(|name| name.split_once(':').map_or(name, |(name, _)| name))
        .collect();
    packages.iter().copied().filter(|package| !installed.contains(package)).collect()
}

/// Runs apt-get as root; what it says is shown only where it fails.
fn quietly(arguments: &[&str]) -> Result<()> {
    let mut command = process::as_root("env");
    // Another apt may be at work on a fresh machine; waiting for it is better than failing.
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    let output = command.output().with_context(|| format!("could not start {}", process::shown(&command)))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let last: Vec<&str> = said.lines().rev().take(15).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    bail!("{} failed ({}):\n{}", process::shown(&command), output.status, last.join("\n"));
}

/// On another distribution things may be there under other package names: what can be looked for is looked for.
fn without_apt(packages: &[&str]) -> Result<bool> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_there(package)).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    bail!(
        "there is no apt here; install what these Debian packages hold: {} ({IN_PLACE_OF_COMPILER})",
        missing.join(" ")
    );
}

/// Whether the heart of a Debian package is there without it. Libraries are left to the linker's own message.
fn is_there(package: &str) -> bool {
    let starts = |program: &str| process::starts(program, "--version");
    match package {
        "gcc" => starts("cc"),
        "make" => starts("make"),
        "curl" => starts("curl"),
        "chromium-headless-shell" => starts("chromium-headless-shell") || starts("chromium"),
        "iproute2" => starts("ip"),
        "nftables" => starts("nft"),
        "iptables" => starts("iptables"),
        "util-linux" => starts("chrt") && starts("prlimit"),
        "nginx" => process::starts("nginx", "-v"),
        "haproxy" => process::starts("haproxy", "-v"),
        "keepalived" => starts("keepalived"),
        "wrk" => process::starts("wrk", "-v"),
        "iputils-arping" => process::starts("arping", "-V"),
        "ndisc6" => process::starts("ndisc6", "-V"),
        "tshark" => starts("tshark"),
        "mmdebstrap" => starts("mmdebstrap"),
        "nghttp2-client" => starts("h2load"),
        "python3-pip" => process::answer("python3", &["-m", "pip", "--version"]).is_some(),
        "llvm-22-dev" => super::linker::llvm_prefix().join("bin/llvm-config").exists(),
        // The compiler is only asked for where none was found.
        "rustc-web" | "rust-web-src" | "cargo-web" => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let listed = "gcc installed\nzlib1g-dev:amd64 installed\nmake not-installed\niproute2 config-files\n";
        let cases: [(&[&str], &[&str]); 4] = [
            (&["gcc", "zlib1g-dev"], &[]),
            (&["gcc", "make", "iproute2"], &["make", "iproute2"]),
            (&["rustc-web"], &["rustc-web"]),
            (&[], &[]),
        ];
        for (packages, expected) in cases {
            assert_eq!(missing(packages, listed), expected, "{packages:?}");
        }
    }
}
