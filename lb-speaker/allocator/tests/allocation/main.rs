//! The allocator from outside: its rules case by case, and its invariants over random inputs.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that does not find what it expects shall fail where it looks"
)]

mod build;
mod changes;
mod families;
mod properties;
mod rules;
mod world;
