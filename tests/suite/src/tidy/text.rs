//! What every source file must and must not hold.

use super::code::code;
use super::tree::Tree;

/// The crates that may hold `unsafe` (STYLE 33).
const UNSAFE_CRATES: [&str; 5] =
    ["ebpf/programs", "ebpf/abi", "userspace/dataplane", "tests/lab", "lb-speaker/speaker"];

pub(super) fn unsafe_is_forbidden(tree: &Tree) -> Vec<String> {
    let safe = tree.packages.iter().filter(|package| !UNSAFE_CRATES.contains(&package.folder.as_str()));
    let roots = safe.flat_map(|package| package.targets.iter().filter(|target| target.shipped));
    let open = roots.filter(|target| !code(tree.text(&target.root)).contains("#![forbid(unsafe_code)]"));
    open.map(|target| format!("{} does not open with #![forbid(unsafe_code)]", target.root)).collect()
}

pub(super) fn files_say_what_they_hold(tree: &Tree) -> Vec<String> {
    let silent = tree.rust_files("").filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#!["));
    silent.map(|(path, _)| format!("{path} does not open with //!")).collect()
}

/// Unfinished code, tests that do not run or cannot fail, lints put to silence.
const STUBS: [&str; 6] = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "should_panic", "[allow("];

pub(super) fn no_stubs(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.rust_files("") {
        for (number, line) in code(text).lines().enumerate() {
            let conditional = line.contains("cfg_attr(") && line.contains(" allow(");
            let found = STUBS.iter().find(|stub| line.contains(*stub)).or(conditional.then_some(&"allow("));
            faults.extend(found.map(|stub| format!("{path}:{} holds {stub}", number + 1)));
        }
    }
    faults
}

/// Folders that only one machine or one person has. Written in pieces, for this file is read as well.
const MACHINE_FOLDERS: [&str; 5] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
];

pub(super) fn no_machine_paths(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| !path.ends_with(".lock")) {
        for (number, line) in text.lines().enumerate() {
            let found = MACHINE_FOLDERS.iter().find(|folder| begins_path(line, folder));
            faults.extend(found.map(|folder| format!("{path}:{} names {folder}", number + 1)));
        }
    }
    faults
}

/// Whether the folder stands in the line as the beginning of a path, not in the middle of one.
fn begins_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|before| before.is_alphanumeric() || "_.-}".contains(before))
    })
}
