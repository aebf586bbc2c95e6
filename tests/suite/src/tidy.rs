//! The invariants of the architecture as functions over a view of the tree.
//!
//! `cargo test --test tidy` reads the checkout into a [`Tree`] and asks every rule of [`RULES`]. A rule sees only the
//! tree, so that its own test can hand it a broken one: each must find fault with at least one, or it proves nothing.
//! ARCHITECTURE.md lists every rule under its name.

mod arrows;
mod code;
mod licences;
mod read;
mod text;
mod tree;
mod written;

pub use read::ReadError;
pub use tree::{Dependency, Kind, Package, Target, Tree};

/// One invariant.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// What ARCHITECTURE.md calls it.
    pub name: &'static str,
    /// Everything in the tree that is at odds with it.
    pub check: fn(&Tree) -> Vec<String>,
}

/// All invariants.
pub const RULES: &[Rule] = &[
    Rule { name: "aya-ebpf stays in programs", check: arrows::aya_ebpf_stays_in_programs },
    Rule { name: "aya stays in dataplane", check: arrows::aya_stays_in_dataplane },
    Rule { name: "pingora stays in proxy", check: arrows::pingora_stays_in_proxy },
    Rule { name: "wire formats stay in sources", check: arrows::wire_formats_stay_in_sources },
    Rule { name: "the model has no serde", check: arrows::model_has_no_serde },
    Rule { name: "pure crates stay pure", check: arrows::pure_crates_stay_pure },
    Rule { name: "nothing depends on tests", check: arrows::nothing_depends_on_tests },
    Rule { name: "the toolchain hashes what programs compile", check: arrows::toolchain_hashes_programs },
    Rule { name: "unsafe is forbidden", check: text::unsafe_is_forbidden },
    Rule { name: "files say what they hold", check: text::files_say_what_they_hold },
    Rule { name: "no stubs", check: text::no_stubs },
    Rule { name: "no path of one machine", check: text::no_machine_paths },
    Rule { name: "a folder is a crate", check: written::folder_is_crate },
    Rule { name: "dependencies have reasons", check: written::dependencies_have_reasons },
    Rule { name: "the top level is fixed", check: written::top_level_is_fixed },
    Rule { name: "the architecture is written down", check: written::architecture_is_written_down },
    Rule { name: "licences are allowed", check: licences::licences_are_allowed },
];

#[cfg(test)]
mod tests;
