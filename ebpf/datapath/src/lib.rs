//! Packet logic without packets: verdicts, selection, rewrites, checksums, ICMP errors, neighbour discovery, conntrack
//! timing.
//!
//! On the packet's way it stands inside `programs`, which hands it values read from the packet and writes back what it
//! answers. It holds no pointers, no maps and no clock, so that every rule is tested on the host; `dataplane` uses the
//! same conntrack timing when it collects expired flows.

#![no_std]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod conntrack;
pub mod icmp;
pub mod nat;
pub mod neighbour;
pub mod reset;
pub mod select;
pub mod verdict;
pub mod way;
