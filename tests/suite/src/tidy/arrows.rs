//! Which crate may name which: the arrows of the architecture.

use super::code::shipped_code;
use super::tree::{Dependency, Kind, PURE_CRATES, Package, Tree};

/// Everyone who names a crate of a kind without being entitled to it.
fn strangers(
    tree: &Tree,
    kind: impl Fn(&str) -> bool,
    entitled: impl Fn(&Package, &Dependency) -> bool,
) -> Vec<String> {
    let named = tree.packages.iter().flat_map(|package| package.dependencies.iter().map(move |named| (package, named)));
    let strangers = named.filter(|(package, named)| kind(&named.name) && !entitled(package, named));
    strangers.map(|(package, named)| format!("{} names {}", package.folder, named.name)).collect()
}

fn is_kernel_side(name: &str) -> bool {
    name == "aya-ebpf" || name.starts_with("aya-") && name.contains("ebpf")
}

pub(super) fn aya_ebpf_stays_in_programs(tree: &Tree) -> Vec<String> {
    strangers(tree, is_kernel_side, |package, _| package.folder == "ebpf/programs")
}

pub(super) fn aya_stays_in_dataplane(tree: &Tree) -> Vec<String> {
    let user_side = |name: &str| (name == "aya" || name.starts_with("aya-")) && !is_kernel_side(name);
    strangers(tree, user_side, |package, named| {
        // `abi` implements aya's Pod for its layouts behind a feature; the trait allows no other place.
        package.folder == "userspace/dataplane" || package.folder == "ebpf/abi" && named.optional
    })
}

pub(super) fn pingora_stays_in_proxy(tree: &Tree) -> Vec<String> {
    strangers(tree, |name| name.starts_with("pingora"), |package, _| package.folder == "ingress/proxy")
}

pub(super) fn wire_formats_stay_in_sources(tree: &Tree) -> Vec<String> {
    let wire =
        |name: &str| name == "kube" || name.starts_with("kube-") || name == "k8s-openapi" || name.contains("yaml");
    strangers(tree, wire, |package, _| package.folder == "userspace/sources")
}

pub(super) fn model_has_no_serde(tree: &Tree) -> Vec<String> {
    let mut faults =
        strangers(tree, |name| name.starts_with("serde"), |package, _| package.folder != "userspace/model");
    for (path, text) in tree.rust_files("userspace/model") {
        if shipped_code(text).contains("Serialize") {
            faults.push(format!("{path} names Serialize"));
        }
    }
    faults
}

/// Crates that bring a runtime, a clock, files or sockets with them.
const IMPURE: [&str; 12] =
    ["tokio", "hyper", "mio", "nix", "socket2", "notify", "futures", "async-std", "smol", "aya", "reqwest", "polling"];

/// What reaches for the same in the standard library.
const IMPURE_CODE: [&str; 13] = [
    "Instant::now",
    "SystemTime",
    "std::fs",
    "fs::File",
    "std::env",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "async fn",
    "async move",
];

pub(super) fn pure_crates_stay_pure(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for folder in PURE_CRATES {
        let Some(package) = tree.packages.iter().find(|package| package.folder == folder) else {
            faults.push(format!("{folder} is not in the workspace"));
            continue;
        };
        // Others may compile libc in on some architecture; a pure crate has no reason to name it.
        let named = package.dependencies.iter().filter(|named| named.kind != Kind::Dev && named.name == "libc");
        faults.extend(named.map(|_| format!("{folder} names libc")));
        let all = tree.compiled_with.get(folder).into_iter().flatten();
        let impure = all.filter(|name| IMPURE.contains(&name.as_str()));
        faults.extend(impure.map(|name| format!("{folder} is compiled with {name}")));
        for (path, text) in tree.rust_files(&format!("{folder}/src")) {
            let code = shipped_code(text);
            let found = IMPURE_CODE.iter().filter(|word| code.contains(*word));
            faults.extend(found.map(|word| format!("{path} uses {word}")));
        }
    }
    faults
}

pub(super) fn nothing_depends_on_tests(tree: &Tree) -> Vec<String> {
    let outside = tree.packages.iter().filter(|package| !package.folder.starts_with("tests/"));
    let named = outside.flat_map(|package| package.dependencies.iter().map(move |named| (package, named)));
    let in_tests = named.filter(|(_, named)| named.folder.as_ref().is_some_and(|folder| folder.starts_with("tests/")));
    in_tests.map(|(package, named)| format!("{} depends on {}", package.folder, named.name)).collect()
}

/// The object is cached by a hash over named folders: another path dependency would change it unseen.
pub(super) fn toolchain_hashes_programs(tree: &Tree) -> Vec<String> {
    let Some(programs) = tree.packages.iter().find(|package| package.folder == "ebpf/programs") else {
        return vec!["ebpf/programs is not there".to_owned()];
    };
    let hashed = roadstead_toolchain::HASHED_CRATES.map(|name| format!("ebpf/{name}"));
    let mut open: Vec<&str> = programs.dependencies.iter().filter_map(|named| named.folder.as_deref()).collect();
    let mut faults = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    while let Some(folder) = open.pop() {
        if seen.contains(&folder) {
            continue;
        }
        seen.push(folder);
        if !hashed.iter().any(|known| known == folder) {
            faults.push(format!("{folder} is compiled into the object but not hashed"));
        }
        let package = tree.packages.iter().find(|package| package.folder == folder);
        let normal =
            package.into_iter().flat_map(|package| &package.dependencies).filter(|named| named.kind == Kind::Normal);
        open.extend(normal.filter_map(|named| named.folder.as_deref()));
    }
    let (major, minor) = roadstead_toolchain::MINIMUM_RUST;
    let minimum = format!("{major}.{minor}");
    let other =
        tree.packages.iter().find(|package| !package.rust_version.is_empty() && package.rust_version != minimum);
    faults.extend(
        other.map(|package| format!("{} asks for Rust {}, not {minimum}", package.folder, package.rust_version)),
    );
    faults
}
