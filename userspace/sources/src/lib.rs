//! From wire objects to the model, and status back: the border of the configuration's way.
//!
//! A directory of Kubernetes YAML or JSON is read ([`load`]) or read and watched ([`start`]), or an API server is followed; what
//! comes out are
//! snapshots of `roadstead-model` in which names, ports, protocols and addresses are valid and everything is filled in that
//! an API server would fill in. This is the only crate that names kube, k8s-openapi and the YAML parser. It deliberately
//! decides nothing about traffic: what is desired is said here, what follows from it elsewhere.
//!
//! A reading goes `files` (which files) -> `entries` (what of them changed) -> `parse` (documents, the unchanged ones reused) ->
//! `convert` (checked objects) -> `merge` (by name, with `assign` and `slices`) -> snapshot. Every step leaves alone what did
//! not change, so that one endpoint among ten thousand Services costs a few milliseconds; `examples/cold_start.rs` measures it.

#![forbid(unsafe_code)]

mod assign;
mod bounds;
mod claims;
pub mod config;
mod convert;
mod document;
mod entries;
mod events;
mod exclusion;
mod files;
mod findings;
mod flags;
mod hash;
mod kube;
mod legacy;
mod limits;
mod locate;
mod merge;
mod names;
mod object;
mod overlaps;
mod parallel;
mod parse;
mod pods;
mod slices;
mod source;
mod status;
mod store;
mod told;
mod watches;

pub use events::{Events, Gravity};
pub use flags::{Filling, LoadOptions, NamespaceFlag, NodePortRange, NodePortRangeError, SourceFlags};
pub use kube::{Interest, fuzz_wire};
pub use legacy::{Converted, convert_old, fuzz_old};
pub use parse::fuzz_manifest;
pub use source::{Source, SourceError, read, read_announcements, start};
pub use status::{ServiceStatus, StatusWriter, status_objects};
pub use store::{Loaded, load};
