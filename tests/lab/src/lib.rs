//! The lab: nodes, pods and a client on one Linux kernel, for the demo and for tests end to end.
//!
//! ```no_run
//! use roadstead_lab::{EchoPorts, Lab, Probe};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new("example")?;
//! let web = lab.node("node-b").add_pod("web-1")?;
//! let _echo = web.start_echo(EchoPorts::USUAL)?;
//! let answer = lab.node("node-a").host().probe_once(&Probe::tcp((web.v4(), 9000)))?;
//! assert_eq!(answer.name(), Some("web-1"));
//! # Ok(())
//! # }
//! ```
//!
//! A *place* is a network namespace with a leaf of the control groups: a node's host, a pod or the client. A packet
//! leaves a place by its `eth0`; nodes and the client share one segment, a bridge in a namespace of its own. The lab
//! stands outside both ways through the house: it starts the daemons as anybody would and knows none of their crates.
//!
//! Everything of a lab bears its name, so that labs run side by side. A lab ends when it is dropped, on Ctrl-C and on
//! SIGTERM; what a killed process left is removed by the next one that makes a lab.

mod capture;
mod cgroup;
pub mod cluster;
pub mod container;
mod daemon;
pub mod demo;
mod desired;
pub mod echo;
pub mod enter;
mod far;
mod frames;
mod ground;
mod identity;
pub mod interrupt;
mod ip;
mod kubelet;
mod lab;
mod leftovers;
mod namespace;
mod neighbour;
mod node;
mod numbers;
mod place;
mod priority;
pub mod probe;
mod process;
mod programs;
mod served;
mod status;
mod topology;
mod vigil;
mod wait;

pub use capture::{Capture, Frame};
pub use cluster::ControlPlane;
pub use daemon::{Daemon, Program};
pub use far::Far;
pub use ground::lack;
pub use identity::LabId;
pub use kubelet::Kubelet;
pub use lab::Lab;
pub use neighbour::{Mac, who_has};
pub use node::{Node, Source};
pub use place::{EchoPorts, Place};
pub use priority::{can_hurry, hurry_all};
pub use probe::{Answer, DatagramsReport, HoldReport, LoadReport, Probe, Running};
pub use process::Process;
pub use programs::find as program;
pub use topology::{Capturing, Topology};
pub use vigil::{Log, Review, Vigil};
pub use wait::{wait_for, wait_until};
