//! The control side of the BPF programs: it loads, attaches and pins them, and brings their maps to the desired state.
//!
//! On the configuration's way it stands behind `model`: [`frontends`] decides every Service's endpoint sets,
//! [`compiler::Compiler`] finds what a snapshot changes of them, [`reconcile::Reconciler`] brings the maps to it. On the
//! packet's way it stands nowhere: the programs run without it. [`responder`] is the speaker's part of it, everything else
//! the agent's. It is the only crate that names aya, and it watches no files and no API server.

#![deny(unsafe_code)]

pub mod addresses;
pub mod attach;
mod claims;
pub mod cleanup;
pub mod clock;
pub mod compiler;
pub mod conntrack;
pub mod counters;
pub mod dump;
pub mod explain;
#[cfg(test)]
mod fake_maps;
pub mod fill;
mod filter;
#[cfg(test)]
mod fixture;
pub mod frontends;
pub mod harness;
mod hash;
mod ids;
mod kernel_maps;
pub mod load;
mod maglev;
pub mod maps;
pub mod migrate;
pub mod node;
mod object;
pub mod pins;
mod plan;
pub mod reconcile;
mod recover;
pub mod responder;
mod slots;
mod syscall;
pub mod testmaps;
pub mod testrun;
mod tombstones;
pub mod topology;
pub mod trace;
pub mod traffic;

pub use syscall::netns_cookie;
pub use tombstones::TOMBSTONE_LIFETIME;
