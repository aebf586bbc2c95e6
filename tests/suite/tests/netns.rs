//! End to end: the real daemons on nodes of the lab, seen by clients, pods and hosts.
//!
//! Needs root and cgroup2; says so and passes where it has neither. The daemons are those of the profile that the tests
//! are built with, or of `ROADSTEAD_BIN_DIR`. Each test has a lab of its own, so they run side by side.

#![forbid(unsafe_code)]

#[cfg(test)]
mod netns {
    mod agent;
    mod broken;
    mod cleanup;
    mod demo;
    mod devices;
    mod expect;
    mod fixture;
    mod gone;
    mod health;
    mod host;
    mod ingress;
    mod inside;
    mod invariants;
    mod matrix;
    mod mtu;
    mod picks;
    mod refused;
    mod robust;
    mod rows;
    mod services;
    mod sockets;
    mod speaker;
    mod stage;
    mod transfer;
    mod udp;
    mod verdicts;
}
