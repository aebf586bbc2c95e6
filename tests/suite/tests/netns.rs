//! End to end: the real daemons on nodes of the lab, seen by clients, pods and hosts.
//!
//! Needs root and cgroup2; says so and passes where it has neither. The daemons are those of the profile that the tests
//! are built with, or of `ROADSTEAD_BIN_DIR`. Each test has a lab of its own, so they run side by side.
//!
//! They run twice: with manifests in a directory, and by one switch with the same manifests in a real API server, which each
//! lab has to itself while it runs (`fixture::source`). What means nothing there leaves itself out, and says why.

#![forbid(unsafe_code)]

#[cfg(test)]
mod netns {
    mod agent;
    mod broken;
    mod cleanup;
    mod conflicts;
    mod copies;
    mod dashboard;
    mod demo;
    mod devices;
    mod doctor;
    mod expect;
    mod failover;
    mod fixture;
    mod gone;
    mod health;
    mod host;
    mod hostile;
    mod ingress;
    mod inside;
    mod interfaces;
    mod invariants;
    mod linux;
    mod matrix;
    mod moved;
    mod mtu;
    mod ownership;
    mod picks;
    mod refused;
    mod responder;
    mod robust;
    mod rows;
    mod segment;
    mod services;
    mod sockets;
    mod speaker;
    mod stage;
    mod takeover;
    mod transfer;
    mod udp;
    mod unprivileged;
    mod verdicts;
    mod wellformed;
}
