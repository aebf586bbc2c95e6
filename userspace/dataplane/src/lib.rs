//! The control side of the BPF programs: it loads, attaches and pins them, and brings their maps to the desired state.
//!
//! On the configuration's way it stands behind `model`: [`frontends::compile`] decides every Service's endpoint sets,
//! [`reconcile::Reconciler`] compares them with what the maps hold and writes the difference. On the packet's way it
//! stands nowhere: the programs run without it. It is the only crate that names aya, and it watches no files and no API
//! server.

#![deny(unsafe_code)]

pub mod addresses;
pub mod attach;
mod batch;
pub mod cleanup;
pub mod clock;
pub mod conntrack;
pub mod counters;
pub mod dump;
pub mod explain;
pub mod fill;
pub mod frontends;
pub mod harness;
mod ids;
pub mod load;
pub mod maps;
pub mod migrate;
mod object;
pub mod pins;
pub mod reconcile;
mod slots;
mod syscall;
pub mod testmaps;
pub mod testrun;
pub mod trace;
pub mod traffic;

pub use syscall::netns_cookie;
