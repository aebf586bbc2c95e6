//! Logs, metrics and health endpoints, the same for all three daemons.
//!
//! Stands beside both ways through the house: whoever forwards or configures counts in a `prometheus::Registry` and logs
//! by `tracing`; this crate formats and serves that. It deliberately defines no metric of its own.

#![forbid(unsafe_code)]

mod flags;
mod health;
mod http;
mod server;
mod shutdown;

pub use flags::{LogFormat, TelemetryFlags, init_logging};
pub use health::Health;
pub use http::{serve, serve_on};
pub use server::answer_requests;
pub use shutdown::Shutdown;
