//! Holds the checkout against the invariants of ARCHITECTURE.md and against what STYLE asks of every file.
//!
//! The rules are in `src/tidy`, each beside a broken tree that it must find fault with; here is the tree that counts.

#![forbid(unsafe_code)]

use roadstead_suite::tidy::{RULES, Tree};

#[test]
fn every_invariant_holds() {
    let tree = Tree::read().expect("cargo describes the workspace");
    let faults: Vec<String> = RULES
        .iter()
        .flat_map(|rule| (rule.check)(&tree).into_iter().map(|fault| format!("{}: {fault}", rule.name)))
        .collect();
    assert!(faults.is_empty(), "{} faults\n  {}", faults.len(), faults.join("\n  "));
}
