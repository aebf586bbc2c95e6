//! What is installed: the objects of `deploy/` as kubectl and Helm render them, the units and the Debian package's files.
//!
//! Nothing is applied anywhere; that a cluster takes the objects, and that the pods run with no more rights than they ask
//! for, is the cluster suite's to show. Needs kubectl and helm, and says which of them is not there.

#![forbid(unsafe_code)]

#[cfg(test)]
#[path = "deploy"]
mod files {
    mod host;
}

// `cargo xtask test` knows the tests by this module's name: kubectl and helm are installed after all other tests.
#[cfg(test)]
#[path = "deploy"]
mod on_cluster {
    mod chart;
    mod objects;
    mod render;
}
