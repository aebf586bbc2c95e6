//! Announcing addresses on a segment: who announces, who is alive, and what goes over the wire.
//!
//! It stands at the beginning of a packet's way (the client's "who has") and behind `allocator` on the configuration's.
//! Everything here is a state machine without sockets and clock: `speaker` hands in frames, datagrams and the time, and
//! sends what comes out. Time is a [`Duration`](std::time::Duration) since an origin of the caller's choice.

#![forbid(unsafe_code)]

pub mod announce;
pub mod conflict;
pub mod election;
mod fuzz;
pub mod membership;
pub mod ownership;
pub mod replica;
pub mod responder;
pub mod wire;

pub use fuzz::{datagram_seeds, document_seeds, fuzz_datagram, fuzz_document, fuzz_frame, fuzz_neighbour, neighbours};
