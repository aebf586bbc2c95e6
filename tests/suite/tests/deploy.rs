//! What is installed: the objects of `deploy/` as kubectl and Helm render them, the units and the Debian package's files.
//!
//! No object is applied anywhere; that a cluster takes them, and that the pods run with no more rights than they ask for, is
//! the cluster suite's to show. Hosts are booted: a Debian with systemd on nodes of the lab. Needs kubectl, helm, root and
//! what `cargo xtask test` makes; says which of them is not there.

#![forbid(unsafe_code)]

#[cfg(test)]
#[path = "deploy"]
mod files {
    mod host;
}

#[cfg(test)]
#[path = "deploy"]
mod booted {
    mod machine;
    mod site;
    mod units;
}

// `cargo xtask test` knows the tests by this module's name: kubectl and helm are installed after all other tests.
#[cfg(test)]
#[path = "deploy"]
mod on_cluster {
    mod chart;
    mod objects;
    mod render;
}
